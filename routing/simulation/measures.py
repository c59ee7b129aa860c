"""Summary figures of a play."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from routing.core.factors import cost_usd
from routing.simulation.events import Disturbance
from routing.simulation.play import JudgedDecision, Play

FAILING = 0.3
SLOW = 2.0
"""A policy should leave a backend while at least this share of its operations fails, or while
they take at least this many times as long."""

LEFT_WINDOW, LEFT_RETRIES = 20, 1
"""A backend counts as left when at most LEFT_RETRIES of LEFT_WINDOW consecutive decisions choose
it: a single retry is not staying, though it is counted. A backend with a quarter of the traffic meets
this by chance once in forty windows, one with more hardly ever."""

RETURN_WINDOW, RETURN_COUNT = 10, 5
"""Traffic counts as back when RETURN_COUNT of the last RETURN_WINDOW requests for which the healed
backend is best went to it."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Decisions until the traffic was back; if `returned` is False, until the end of observation."""

    decisions: int
    returned: bool


@dataclass(frozen=True, slots=True)
class Measures:
    """`regret` is 0 for the clairvoyant and 1 for a uniform choice; shares are in [0, 1]; times are
    of successful operations. `affected_regret` is the regret over the requests that a partial
    disturbance affects, normalised over them alone; None without such requests. `left` and
    `back` hold one entry for each disturbance that the policy could observe."""

    regret: float
    affected_regret: float | None
    success_rate: float
    mean_ms: float
    p99_ms: float
    usd_per_1000: float
    left: tuple[int, ...]
    back: tuple[Recovery, ...]


def measures(play: Play) -> Measures:
    """Summarises a play with at least one decision."""
    choices = play.decisions
    durations = sorted(one.duration_ms for one in choices if one.success) or [0.0]
    partial = [one for one in play.world.disturbances if one.partial]
    affected = [one for one in choices if any(each.affects(one.request) for each in partial)]
    spent = sum(cost_usd(one.request.query, play.world.backends[one.backend_id].profile) for one in choices)
    return Measures(
        regret=_regret(choices),
        affected_regret=_regret(affected) if affected else None,
        success_rate=sum(one.success for one in choices) / len(choices),
        mean_ms=sum(durations) / len(durations),
        p99_ms=durations[min(int(len(durations) * 0.99), len(durations) - 1)],
        usd_per_1000=spent / len(choices) * 1000.0,
        left=tuple(count for effect in _bad(play) if (count := _left(play, effect)) is not None),
        back=tuple(back for effect, until in _healed(play) if (back := _back(choices, effect, until))),
    )


def _regret(decisions: Sequence[JudgedDecision]) -> float:
    lost = sum(one.best - one.utility for one in decisions)
    at_random = sum(one.best - one.mean for one in decisions)
    return lost / at_random if at_random else 0.0


def _bad(play: Play) -> Iterator[Disturbance]:
    """Disturbances that begin suddenly, affect all requests and are bad enough to leave for."""
    for effect in play.world.disturbances:
        if effect.whole and effect.first > 0 and (effect.fails >= FAILING or effect.slower >= SLOW):
            yield effect


def _healed(play: Play) -> Iterator[tuple[Disturbance, int]]:
    """Disturbances that end, each with the index of the request where the backend's next one begins."""
    found = sorted(_bad(play), key=lambda one: (one.backend_id, one.first))
    for effect, following in pairwise([*found, None]):
        assert effect is not None
        same = following is not None and following.backend_id == effect.backend_id
        until = following.first if following is not None and same else len(play.decisions)
        if effect.last < until:
            yield effect, until


def _left(play: Play, effect: Disturbance) -> int | None:
    """Requests sent to the backend after the first report from within the disturbance; None if
    there was no report."""
    first_report_at = min(
        (
            report.ended_at
            for report in play.reports
            if report.backend_id == effect.backend_id and effect.first <= report.request.index < effect.last
        ),
        default=None,
    )
    if first_report_at is None:
        return None
    chosen = [
        choice.backend_id == effect.backend_id
        for choice in play.decisions[effect.first : effect.last]
        if choice.request.at >= first_report_at
    ]
    sent = 0
    for index, there in enumerate(chosen):
        following = sum(chosen[index : index + LEFT_WINDOW])
        if not there and following <= LEFT_RETRIES:
            return sent + following
        sent += there
    return sent


def _back(choices: Sequence[JudgedDecision], effect: Disturbance, until: int) -> Recovery | None:
    """None if the healed backend was best for fewer than RETURN_WINDOW requests."""
    went: list[bool] = []
    for choice in choices[effect.last : until]:
        if choice.best_id == effect.backend_id:
            went.append(choice.backend_id == effect.backend_id)
            if len(went) >= RETURN_WINDOW and sum(went[-RETURN_WINDOW:]) >= RETURN_COUNT:
                return Recovery(choice.request.index - effect.last, True)
    return Recovery(until - effect.last, False) if len(went) >= RETURN_WINDOW else None
