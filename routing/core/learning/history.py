"""One backend's history: a record that decays slowly, and its latest outcomes one by one.

The record of success is a beta distribution (Gelman et al., "Bayesian Data Analysis",
3rd edition, section 2.4): the profile's rate is a prior worth a few outcomes, to which
the outcomes are added. The record of speed is a regression (see `regression`).

The latest outcomes are compared with the record to detect a change (see `changepoint`).
They are the latest by the time at which they happened, whichever server recorded them
and in whatever order.
"""

from bisect import insort
from collections.abc import Mapping
from typing import Any, NamedTuple

from routing.core.learning.changepoint import (
    LATEST_OUTCOMES,
    UNCHANGED,
    Change,
    DecayingChange,
    detect_speed_change,
    detect_success_change,
)
from routing.core.learning.regression import Effects
from routing.core.model import Backend, Evidence

ESTIMATE_STEP_S = 300.0
"""Decisions use cached estimates of the record, recomputed after so many seconds, in which the
record decays by a quarter of a percent."""

SUCCESS_HALF_LIFE_S = 86_400.0
"""The half-life of the record of success. A long one, since outages are changes, not record."""

PRIOR_OUTCOMES = 5.0
"""How many outcomes the profile's success rate is worth. With fewer, one early failure
condemns a backend; with more, a wrong profile misleads for long."""

MAX_EXPLAINED = 0.9
EXPLAINED_PRIOR_OUTCOMES = 20.0
"""An outcome that a change explains is left out of the record, in part: an outage of a day
ago says little about tomorrow, and after one a backend would else be avoided for days where
others are nearly as good. At most this part, or a profile that promises too much would never
be corrected; and hardly any while the record has fewer outcomes than this to differ from.
Mean regret is the same without, within 0.001; where another backend is nearly as good, the
traffic that returns within 900 decisions after an outage is three times as much with it."""

MAX_CONTEXT_ESTIMATES = 64
"""Contexts for which estimates are cached until the backend's next outcome: with 100 backends
most decisions hit the cache, and a client that sends many content types cannot grow it."""

Context = tuple[str, ...]
"""The names of the effects on a transfer: the backend's own, those of its place, its type's."""


class Transfer(NamedTuple):
    """What is learned from one successful transfer: `residual` is ln(duration / promised
    duration), `throughput_share` the part of the promise that depends on throughput, `load`
    how busy the backend was, `decisions_since` the decisions since its previous outcome."""

    at: float
    residual: float
    throughput_share: float
    context: Context
    load: float = 0.0
    decisions_since: float = 0.0


class StepEstimate(NamedTuple):
    """What all decisions of one step of ESTIMATE_STEP_S have in common: the probability of
    success by the record alone, the evidence, and the changes, None where there is none."""

    step: float
    long_term_success: float
    evidence: Evidence
    speed_change: DecayingChange | None
    success_change: DecayingChange | None


class ContextEstimate(NamedTuple):
    """A StepEstimate for one context: with the sums of the effects for latency and throughput,
    and what load adds to each, None where that is not known."""

    step: float
    long_term_success: float
    evidence: Evidence
    speed_change: DecayingChange | None
    success_change: DecayingChange | None
    latency: float
    throughput: float
    load: tuple[float, float] | None


class BackendHistory:
    """One backend's record, its latest outcomes, and the changes detected in them.

    `count` and `successes` decay; they are the values at the time `at`. So are the parts of
    them that changes explain, `explained_count` and `explained_successes`. `latest` holds
    (time, success, decisions since the previous outcome), `transfers` the successful ones
    that were timed; both at most LATEST_OUTCOMES, ordered by time. `decisions_then` is
    this server's number of decisions at the last outcome. `context_estimates` is a cache.
    """

    __slots__ = (
        "_step_estimate",
        "_success_change",
        "at",
        "context_estimates",
        "count",
        "decisions_then",
        "effects",
        "explained_count",
        "explained_successes",
        "last_failure_at",
        "latest",
        "outcomes",
        "speed_change",
        "successes",
        "transfers",
    )

    def __init__(self, at: float, decisions_then: int = 0) -> None:
        self.at = at
        self.decisions_then = decisions_then
        self.outcomes = 0
        self.count = 0.0
        self.successes = 0.0
        self.explained_count = 0.0
        self.explained_successes = 0.0
        self.last_failure_at: float | None = None
        self.effects = Effects()
        self.latest: list[tuple[float, float, float]] = []
        self.transfers: list[Transfer] = []
        self.speed_change = UNCHANGED
        # None means that outcomes were added since it was detected.
        self._success_change: Change | None = UNCHANGED
        self._step_estimate: StepEstimate | None = None
        self.context_estimates: dict[Context, ContextEstimate] = {}

    def note(
        self, backend: Backend, success: bool, transfer: Transfer | None, *, at: float, decisions: int
    ) -> None:
        """Adds one outcome, ordered by time; of two at the same time, the one reported later
        counts as later. `decisions` is the server's number of decisions so far."""
        self.outcomes += 1
        insort(self.latest, (at, float(success), float(decisions - self.decisions_then)), key=_time)
        del self.latest[:-LATEST_OUTCOMES]
        self.decisions_then = decisions
        if not success:
            self._note_failure(at)
        self._success_change = None
        explained = self._explained_share(backend)
        self._add(1.0, float(success), explained, explained * success, at)
        self._success_change = self._step_estimate = None
        # Detected here, as is the change of speed below, so that a report about a thousand
        # backends does not have to.
        self.success_change(backend)
        self.context_estimates.clear()
        if transfer is not None:
            self.effects.note(
                transfer.context, transfer.throughput_share, transfer.residual, transfer.load, at=at
            )
            insort(self.transfers, transfer, key=_time)
            del self.transfers[:-LATEST_OUTCOMES]
            self.speed_change = self._detect_speed_change()

    def snapshot(self, decisions: int) -> dict[str, Any]:
        """The sums with their time bases, and the latest outcomes; `decisions` is the server's
        number of decisions so far."""
        return {
            "outcomes": self.outcomes,
            "unheard": decisions - self.decisions_then,
            "record": [self.at, self.count, self.successes, self.explained_count, self.explained_successes],
            "last_failure_at": self.last_failure_at,
            "effects": self.effects.snapshot(),
            "latest": [[*one] for one in self.latest],
            "transfers": [
                [one.at, one.residual, one.throughput_share, [*one.context], one.load, one.decisions_since]
                for one in self.transfers
            ],
        }

    def merge(self, snapshot: Mapping[str, Any], decisions: int) -> None:
        """Adds the sums of a snapshot, and keeps the latest outcomes of both."""
        self.decisions_then = max(self.decisions_then, decisions - snapshot["unheard"])
        self.outcomes += snapshot["outcomes"]
        at, count, successes, explained_count, explained_successes = snapshot["record"]
        self._add(count, successes, explained_count, explained_successes, at)
        self._note_failure(snapshot["last_failure_at"])
        self.effects.merge(snapshot["effects"])
        latest = [(at, success, decisions_since) for at, success, decisions_since in snapshot["latest"]]
        transfers = [
            Transfer(at, residual, share, tuple(names), load, decisions_since)
            for at, residual, share, names, load, decisions_since in snapshot["transfers"]
        ]
        # If only the snapshot has any, their order is kept, also among outcomes of equal times.
        self.latest = sorted([*self.latest, *latest])[-LATEST_OUTCOMES:] if self.latest else latest
        self.transfers = (
            sorted([*self.transfers, *transfers])[-LATEST_OUTCOMES:] if self.transfers else transfers
        )
        self._step_estimate = None
        self.context_estimates.clear()
        self._success_change = None if self.latest else UNCHANGED
        self.speed_change = self._detect_speed_change() if self.transfers else UNCHANGED

    def success_change(self, backend: Backend) -> Change:
        """Detected change in the success rate."""
        if self._success_change is None:
            if self.last_failure_at is None or self.last_failure_at < self.latest[0][0]:
                self._success_change = UNCHANGED
            else:
                times, successes, decisions_since = zip(*self.latest, strict=True)
                expected = self.long_term_success(backend, times[-1])
                self._success_change = (
                    UNCHANGED
                    if all(successes)
                    else detect_success_change(times, decisions_since, successes, expected)
                )
        return self._success_change

    def success_record(self, backend: Backend, now: float) -> tuple[float, float]:
        """The parameters of the record's beta distribution: successes and failures."""
        return self._success_record(backend, _decay(now - self.at))

    def _success_record(self, backend: Backend, decay: float) -> tuple[float, float]:
        good = PRIOR_OUTCOMES * backend.success_rate + (self.successes - self.explained_successes) * decay
        bad = PRIOR_OUTCOMES + (self.count - self.explained_count) * decay - good
        return good, bad if bad > 0.0 else 0.0

    def long_term_success(self, backend: Backend, now: float) -> float:
        """The probability of success by the record alone."""
        good, bad = self.success_record(backend, now)
        return good / (good + bad)

    def overall_success(self, backend: Backend, now: float) -> float:
        """Likewise, with outcomes that changes explain counted in full."""
        decay = _decay(now - self.at)
        good = PRIOR_OUTCOMES * backend.success_rate + self.successes * decay
        return good / (PRIOR_OUTCOMES + self.count * decay)

    def context_estimate(self, backend: Backend, context: Context, now: float) -> ContextEstimate:
        """The cached estimate for this context and the step that `now` is in."""
        step = now // ESTIMATE_STEP_S
        estimate = self.context_estimates.get(context)
        if estimate is None or estimate.step != step:
            common = self._step_estimate
            if common is None or common.step != step:
                common = self._step_estimate = self._estimate_step(backend, step, now)
            if len(self.context_estimates) >= MAX_CONTEXT_ESTIMATES:
                self.context_estimates.clear()
            estimate = ContextEstimate(*common, *self.effects.sums(context))
            self.context_estimates[context] = estimate
        return estimate

    def _estimate_step(self, backend: Backend, step: float, now: float) -> StepEstimate:
        start = ESTIMATE_STEP_S * step
        decay = _decay(start - self.at)
        good, bad = self._success_record(backend, decay)
        count = self.count * decay
        return StepEstimate(
            step,
            good / (good + bad),
            Evidence(self.effects.evidence(start), count / (PRIOR_OUTCOMES + count)),
            self.speed_change.decay_from(start, now),
            self.success_change(backend).decay_from(start, now),
        )

    def _detect_speed_change(self) -> Change:
        """Detected change in the speed of transfers."""
        total = self.effects.total
        return detect_speed_change(
            [one.at for one in self.transfers],
            [one.decisions_since for one in self.transfers],
            [one.residual - total(one.context, one.throughput_share, one.load) for one in self.transfers],
        )

    def _add(
        self, count: float, successes: float, explained_count: float, explained_successes: float, at: float
    ) -> None:
        """Adds sums as of the time `at`; the result is as of the later of both times."""
        mine, theirs = _decay(at - self.at), _decay(self.at - at)
        self.count = self.count * mine + count * theirs
        self.successes = self.successes * mine + successes * theirs
        self.explained_count = self.explained_count * mine + explained_count * theirs
        self.explained_successes = self.explained_successes * mine + explained_successes * theirs
        self.at = max(self.at, at)

    def _explained_share(self, backend: Backend) -> float:
        """The part of the latest outcome that a change explains, before the record has it."""
        probability = self.success_change(backend).probability
        if not probability:
            return 0.0
        return MAX_EXPLAINED * probability * self.count / (self.count + EXPLAINED_PRIOR_OUTCOMES)

    def _note_failure(self, at: float | None) -> None:
        times = [one for one in (self.last_failure_at, at) if one is not None]
        self.last_failure_at = max(times, default=None)


def _time(outcome: tuple[Any, ...]) -> float:
    return float(outcome[0])


def _decay(age_s: float) -> float:
    return float(2.0 ** (-age_s / SUCCESS_HALF_LIFE_S)) if age_s > 0.0 else 1.0
