"""What a play comes to in numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from routing.core.factors import cost_usd
from routing.simulation.events import Disturbance
from routing.simulation.play import JudgedDecision, Play

FAILING = 0.3
SLOW = 2.0
"""An effect that at least so many operations fail of, or that takes so many times as long, is
one that a policy should leave the backend for."""

LEFT_WINDOW, LEFT_RETRIES = 20, 1
"""A backend counts as left when of so many decisions in a row all but one have passed it by: to
look once whether it works again is not to stay, though it counts. By chance that happens once in forty times
to one that gets a quarter of the traffic, and hardly ever to one that gets more."""

RETURN_WINDOW, RETURN_COUNT = 10, 5
"""Traffic counts as back when, of the last ten requests that the healed backend is best for, five
went to it."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Decisions until the traffic was back; or, where it never was, for how many it stayed away."""

    decisions: int
    returned: bool


@dataclass(frozen=True, slots=True)
class Measures:
    """`regret` is 0 for the clairvoyant and 1 for a uniform choice; shares in [0, 1]; times in ms
    of the operations that succeeded. `left` and `back` hold one number for each time that
    a backend failed, or became slow, and could be seen to."""

    regret: float
    success_rate: float
    mean_ms: float
    p99_ms: float
    usd_per_1000: float
    left: tuple[int, ...]
    back: tuple[Recovery, ...]


def measures(play: Play) -> Measures:
    """Needs at least one choice."""
    choices = play.decisions
    durations = sorted(one.duration_ms for one in choices if one.success) or [0.0]
    lost = sum(one.best - one.utility for one in choices)
    at_random = sum(one.best - one.mean for one in choices)
    spent = sum(cost_usd(one.request.query, play.world.backends[one.backend_id].profile) for one in choices)
    return Measures(
        regret=lost / at_random if at_random else 0.0,
        success_rate=sum(one.success for one in choices) / len(choices),
        mean_ms=sum(durations) / len(durations),
        p99_ms=durations[min(int(len(durations) * 0.99), len(durations) - 1)],
        usd_per_1000=spent / len(choices) * 1000.0,
        left=tuple(count for effect in _bad(play) if (count := _left(play, effect)) is not None),
        back=tuple(back for effect, until in _healed(play) if (back := _back(choices, effect, until))),
    )


def _bad(play: Play) -> Iterator[Disturbance]:
    """The effects that come suddenly, for everybody, and are bad enough to leave."""
    for effect in play.world.disturbances:
        if effect.whole and effect.first > 0 and (effect.fails >= FAILING or effect.slower >= SLOW):
            yield effect


def _healed(play: Play) -> Iterator[tuple[Disturbance, int]]:
    """The effects that end, and the number of the request where the backend's next begins."""
    found = sorted(_bad(play), key=lambda one: (one.backend_id, one.first))
    for effect, following in pairwise([*found, None]):
        assert effect is not None
        same = following is not None and following.backend_id == effect.backend_id
        until = following.first if following is not None and same else len(play.decisions)
        if effect.last < until:
            yield effect, until


def _left(play: Play, effect: Disturbance) -> int | None:
    """How many more requests the backend got after the first news of the effect; None where
    there was no news, because nobody was sent there."""
    heard_at = min(
        (
            report.ended_at
            for report in play.reports
            if report.backend_id == effect.backend_id and effect.first <= report.request.index < effect.last
        ),
        default=None,
    )
    if heard_at is None:
        return None
    went = [
        choice.backend_id == effect.backend_id
        for choice in play.decisions[effect.first : effect.last]
        if choice.request.at >= heard_at
    ]
    sent = 0
    for index, there in enumerate(went):
        following = sum(went[index : index + LEFT_WINDOW])
        if not there and following <= LEFT_RETRIES:
            return sent + following
        sent += there
    return sent


def _back(choices: Sequence[JudgedDecision], effect: Disturbance, until: int) -> Recovery | None:
    """None where the healed backend was best for too few requests to tell."""
    went: list[bool] = []
    for choice in choices[effect.last : until]:
        if choice.best_id == effect.backend_id:
            went.append(choice.backend_id == effect.backend_id)
            if len(went) >= RETURN_WINDOW and sum(went[-RETURN_WINDOW:]) >= RETURN_COUNT:
                return Recovery(choice.request.index - effect.last, True)
    return Recovery(until - effect.last, False) if len(went) >= RETURN_WINDOW else None
