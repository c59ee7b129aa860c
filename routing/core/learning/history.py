"""One backend's past: a record that fades slowly, and the latest outcomes as they were.

The record of success is a beta distribution (Gelman et al., "Bayesian Data Analysis",
3rd edition, section 2.4): the profile's rate counts like a few outcomes, and the
outcomes are added. The record of speed are effects (see `effects`).

Against the record, the latest outcomes show whether a condition holds (see
`conditions`). Those kept are the latest by time, whoever saw them, in whatever order.
"""

from bisect import insort
from collections.abc import Mapping
from typing import Any, NamedTuple

from routing.core.learning.changepoint import LATEST, UNCHANGED, Change, Fading, speed_change, success_change
from routing.core.learning.regression import Effects
from routing.core.model import Backend, Evidence

STEP_S = 300.0
"""What a decision takes from the record is reckoned anew after so many seconds, in which the
record has faded by a quarter of a percent."""

SUCCESS_HALF_LIFE_S = 86_400.0
"""A good record lasts; an outage is a condition."""

PRIOR_OUTCOMES = 5.0
"""How many outcomes the profile's success rate counts for. With fewer, one failure at the
start condemns a backend; with more, a wrong profile misleads for long."""

MOST_EXCUSED = 0.9
SPEAKING_RECORD = 20.0
"""An outcome is kept out of the record as far as a condition explains it: an outage of a day
ago says little about tomorrow, and a backend that had one would else be avoided for days
where others are nearly as good. Never all of it, or a profile that promises too much would
hold for ever; and hardly any while the record has fewer outcomes than this to differ from.
Mean regret is the same without, within 0.001; where another is nearly as good, the share that
comes back within 900 decisions after an outage is three times as high with it."""

MAX_KNOWN = 64
"""Places and types for which it is kept how a backend stands, until its next outcome: with 100
backends most decisions find it, and no list of types makes them many."""

Context = tuple[str, ...]
"""The names of the effects on a transfer: the backend's own, its places', its type's."""


class Transfer(NamedTuple):
    """What a successful transfer leaves; `share` is the throughput's of what was promised,
    `busy` how busy the backend was, `unheard` the decisions since its outcome before."""

    at: float
    residual: float
    share: float
    context: Context
    busy: float = 0.0
    unheard: float = 0.0


class Lately(NamedTuple):
    """What is to be known for the decisions of one step of STEP_S: the usual probability of success by
    the record, how far outcomes have a part in what is believed, and the conditions, None where
    there is none."""

    step: float
    usual: float
    evidence: Evidence
    slowed: Fading | None
    failing: Fading | None


class Standing(NamedTuple):
    """The same in one context: with the sums of the effects, and what being busy adds to them,
    None where that is not known. A hundred of these are taken apart for one decision."""

    step: float
    usual: float
    evidence: Evidence
    slowed: Fading | None
    failing: Fading | None
    latency: float
    throughput: float
    busy: tuple[float, float] | None


class Past:
    """One backend's record, its latest outcomes, and what those show.

    `count` and `successes` fade, and are as they were at `at`; so are the parts of them
    that a condition explains, `odd_count` and `odd_successes`. `latest` are (time, success,
    decisions since the outcome before) and never more than LATEST, as are `transfers`, both
    by time. `heard_at` counts the decisions of this server up to the last outcome. `known` are
    the standings that were asked for since, by context, at most MAX_KNOWN.
    """

    __slots__ = (
        "_lately",
        "_reach",
        "at",
        "count",
        "effects",
        "heard_at",
        "known",
        "last_failure_at",
        "latest",
        "odd_count",
        "odd_successes",
        "outcomes",
        "speed",
        "successes",
        "transfers",
    )

    def __init__(self, at: float, heard_at: int = 0) -> None:
        self.at = at
        self.heard_at = heard_at
        self.outcomes = 0
        self.count = 0.0
        self.successes = 0.0
        self.odd_count = 0.0
        self.odd_successes = 0.0
        self.last_failure_at: float | None = None
        self.effects = Effects()
        self.latest: list[tuple[float, float, float]] = []
        self.transfers: list[Transfer] = []
        self.speed = UNCHANGED
        # None when something has come since it was last asked for.
        self._reach: Change | None = UNCHANGED
        self._lately: Lately | None = None
        self.known: dict[Context, Standing] = {}

    def note(
        self, backend: Backend, success: bool, transfer: Transfer | None, *, at: float, decisions: int
    ) -> None:
        """Takes in one outcome in its place in time. Of two at one time the one told later
        counts as the later. `decisions` are the server's so far."""
        self.outcomes += 1
        insort(self.latest, (at, float(success), float(decisions - self.heard_at)), key=_time)
        del self.latest[:-LATEST]
        self.heard_at = decisions
        if not success:
            self._note_failure(at)
        self._reach = None
        odd = self._excused(backend)
        self._add(1.0, float(success), odd, odd * success, at)
        self._reach = self._lately = None
        # At once, as the speed below, so that nobody who asks about a thousand backends waits for it.
        self.reach(backend)
        self.known.clear()
        if transfer is not None:
            self.effects.note(transfer.context, transfer.share, transfer.residual, transfer.busy, at=at)
            insort(self.transfers, transfer, key=_time)
            del self.transfers[:-LATEST]
            self.speed = self._speed()

    def snapshot(self, decisions: int) -> dict[str, Any]:
        """The sums with their time bases, and the latest outcomes; `decisions` are the
        server's so far."""
        return {
            "outcomes": self.outcomes,
            "unheard": decisions - self.heard_at,
            "record": [self.at, self.count, self.successes, self.odd_count, self.odd_successes],
            "last_failure_at": self.last_failure_at,
            "effects": self.effects.snapshot(),
            "latest": [[*one] for one in self.latest],
            "transfers": [
                [one.at, one.residual, one.share, [*one.context], one.busy, one.unheard]
                for one in self.transfers
            ],
        }

    def merge(self, snapshot: Mapping[str, Any], decisions: int) -> None:
        """Adds the sums of a snapshot; of the latest outcomes of both, the latest remain."""
        self.heard_at = max(self.heard_at, decisions - snapshot["unheard"])
        self.outcomes += snapshot["outcomes"]
        at, count, successes, odd_count, odd_successes = snapshot["record"]
        self._add(count, successes, odd_count, odd_successes, at)
        self._note_failure(snapshot["last_failure_at"])
        self.effects.merge(snapshot["effects"])
        latest = [(at, success, unheard) for at, success, unheard in snapshot["latest"]]
        transfers = [
            Transfer(at, residual, share, tuple(names), busy, unheard)
            for at, residual, share, names, busy, unheard in snapshot["transfers"]
        ]
        # Without any of our own, theirs stay in the order in which they came.
        self.latest = sorted([*self.latest, *latest])[-LATEST:] if self.latest else latest
        self.transfers = sorted([*self.transfers, *transfers])[-LATEST:] if self.transfers else transfers
        self._lately = None
        self.known.clear()
        self._reach = None if self.latest else UNCHANGED
        self.speed = self._speed() if self.transfers else UNCHANGED

    def reach(self, backend: Backend) -> Change:
        """What the latest outcomes show that the record would not expect."""
        if self._reach is None:
            if self.last_failure_at is None or self.last_failure_at < self.latest[0][0]:
                self._reach = UNCHANGED
            else:
                times, successes, unheard = zip(*self.latest, strict=True)
                usual = self.usual(backend, times[-1])
                self._reach = (
                    UNCHANGED if all(successes) else success_change(times, unheard, successes, usual)
                )
        return self._reach

    def record(self, backend: Backend, now: float) -> tuple[float, float]:
        """The parameters of the record's beta distribution: successes and failures."""
        return self._record(backend, _fade(now - self.at))

    def _record(self, backend: Backend, fade: float) -> tuple[float, float]:
        good = PRIOR_OUTCOMES * backend.success_rate + (self.successes - self.odd_successes) * fade
        bad = PRIOR_OUTCOMES + (self.count - self.odd_count) * fade - good
        return good, bad if bad > 0.0 else 0.0

    def usual(self, backend: Backend, now: float) -> float:
        """The probability of success by the record alone."""
        good, bad = self.record(backend, now)
        return good / (good + bad)

    def overall(self, backend: Backend, now: float) -> float:
        """Likewise, with what was odd counted in full."""
        fade = _fade(now - self.at)
        good = PRIOR_OUTCOMES * backend.success_rate + self.successes * fade
        return good / (PRIOR_OUTCOMES + self.count * fade)

    def standing(self, backend: Backend, context: Context, now: float) -> Standing:
        """What all decisions of this step and context go by; the record fades step by step,
        so that they need not reckon it again."""
        step = now // STEP_S
        known = self.known.get(context)
        if known is None or known.step != step:
            lately = self._lately
            if lately is None or lately.step != step:
                lately = self._lately = self._of_step(backend, step, now)
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
            # A thousand of these for one report: the class would take twice as long.
            known = tuple.__new__(Standing, (*lately, *self.effects.sums(context)))
            self.known[context] = known
        return known

    def _of_step(self, backend: Backend, step: float, now: float) -> Lately:
        then = STEP_S * step
        fade = _fade(then - self.at)
        good, bad = self._record(backend, fade)
        count = self.count * fade
        return Lately(
            step,
            good / (good + bad),
            Evidence(self.effects.evidence(then), count / (PRIOR_OUTCOMES + count)),
            self.speed.fading(then, now),
            self.reach(backend).fading(then, now),
        )

    def _speed(self) -> Change:
        """What the latest transfers show that the record does not explain."""
        total = self.effects.total
        return speed_change(
            [one.at for one in self.transfers],
            [one.unheard for one in self.transfers],
            [one.residual - total(one.context, one.share, one.busy) for one in self.transfers],
        )

    def _add(self, count: float, successes: float, odd_count: float, odd_successes: float, at: float) -> None:
        """Adds sums whose time base is `at`; the later of the two bases is kept."""
        mine, theirs = _fade(at - self.at), _fade(self.at - at)
        self.count = self.count * mine + count * theirs
        self.successes = self.successes * mine + successes * theirs
        self.odd_count = self.odd_count * mine + odd_count * theirs
        self.odd_successes = self.odd_successes * mine + odd_successes * theirs
        self.at = max(self.at, at)

    def _excused(self, backend: Backend) -> float:
        """How far a condition explains the last outcome, before that is in the record."""
        held = self.reach(backend).probability
        return MOST_EXCUSED * held * self.count / (self.count + SPEAKING_RECORD) if held else 0.0

    def _note_failure(self, at: float | None) -> None:
        times = [one for one in (self.last_failure_at, at) if one is not None]
        self.last_failure_at = max(times, default=None)


def _time(outcome: tuple[Any, ...]) -> float:
    return float(outcome[0])


def _fade(age_s: float) -> float:
    return float(2.0 ** (-age_s / SUCCESS_HALF_LIFE_S)) if age_s > 0.0 else 1.0
