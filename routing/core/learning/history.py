"""One backend's history: a record that decays slowly, and its latest outcomes one by one.

The record of success is a beta distribution (Gelman et al., "Bayesian Data Analysis",
3rd edition, section 2.4): the profile's rate is a prior worth a few outcomes, to which
the outcomes are added. The record of speed is a regression (see `regression`).

The latest outcomes are compared with the record to detect a change (see `changepoint`).
They are the latest by the time at which they happened, whichever server recorded them
and in whatever order.
"""

import math
from bisect import insort
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from routing.core.learning.changepoint import (
    LATEST_OUTCOMES,
    UNCHANGED,
    Change,
    DecayingChange,
    detect_speed_change,
    detect_success_change,
)
from routing.core.learning.doubt import Doubt
from routing.core.learning.kinds import Kind, Kinds, attribute_failure, drop_of, shift_of, slowest
from routing.core.learning.regression import Effects
from routing.core.learning.transfer import Context, Transfer
from routing.core.model import REFERENCE_LATENCY_MS, REFERENCE_THROUGHPUT_MBPS, Backend, Evidence

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

EXPLAINS = 0.5
"""A change of at least this probability explains an outcome that agrees with it, which then is no
evidence for other changes."""

MAX_SURPRISE = 3.0
"""A transfer counts as at most twenty times slower or faster than the latest ones, so that one that
hung for an hour does not outweigh a dozen others. Not than the profile: one in wrong units is off
by factors of a thousand."""

PROFILE_VOTES = 2
"""The profile has so many votes in what the latest transfers show, so that it takes three of them to
move that further than MAX_SURPRISE: one odd transfer is weak evidence."""

PRIOR_MEAN_TRANSFERS = 30.0
"""The record of how far the mean duration is above the typical one starts with so many transfers
that show no difference."""

UNLEARNED_RESIDUAL = 0.7
"""While the latest transfers are all further off than this factor of two, what the record has not
learned yet is not taken for noise."""

CONFIRMING_MARGIN = 0.1
"""A transfer confirms what was learned if it is nearer to that than to the profile, by this much of
its logarithm: where both predict the same, there is nothing to doubt or to confirm."""

MAX_CONTEXT_ESTIMATES = 64
"""Contexts for which estimates are cached until the backend's next outcome: with 100 backends
most decisions hit the cache, and a client that sends many content types cannot grow it."""


class StepEstimate(NamedTuple):
    """What all decisions of one step of ESTIMATE_STEP_S have in common: the probability of
    success by the record alone, the evidence, and the changes, None where there is none."""

    step: float
    long_term_success: float
    evidence: Evidence
    speed_change: DecayingChange | None
    success_change: DecayingChange | None


class ContextEstimate(NamedTuple):
    """A StepEstimate for one context, where kinds have their part in the probability of success
    and may have changes of their own: with the sums of the effects for latency and throughput,
    what load adds to each, None where that is not known, the kinds that the changes are of,
    None where of the backend, the logarithm of the mean duration over the typical one, and the
    part of a correction towards slower that time has left of it."""

    step: float
    long_term_success: float
    evidence: Evidence
    speed_change: DecayingChange | None
    success_change: DecayingChange | None
    latency: float
    throughput: float
    load: tuple[float, float] | None
    speed_kind: Kind | None
    success_kind: Kind | None
    log_mean: float
    belief: float


class BackendHistory:
    """One backend's record, its latest outcomes, and the changes detected in them.

    `count` and `successes` decay; they are the values at the time `at`. So are the parts of
    them that changes explain, `explained_count` and `explained_successes`, the failures that
    are attributed to `kinds`, and the sums for the mean duration. The residuals are relative to
    a profile's `latency_ms` and `throughput_mbps`, those of the first outcome. `latest` holds
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
        "doubt",
        "effects",
        "explained_count",
        "explained_successes",
        "kind_failures",
        "kinds",
        "last_failure_at",
        "latency_ms",
        "latest",
        "mean_count",
        "mean_sum",
        "outcomes",
        "residuals",
        "speed_change",
        "successes",
        "throughput_mbps",
        "transfers",
    )

    def __init__(
        self,
        at: float,
        decisions_then: int = 0,
        *,
        latency_ms: float = REFERENCE_LATENCY_MS,
        throughput_mbps: float = REFERENCE_THROUGHPUT_MBPS,
    ) -> None:
        self.latency_ms = latency_ms
        self.throughput_mbps = throughput_mbps
        self.doubt = Doubt(decisions_then)
        self.kinds = Kinds()
        self.kind_failures = 0.0
        self.mean_count = 0.0
        self.mean_sum = 0.0
        # What the record does not explain of the latest transfers.
        self.residuals: list[float] = []
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
        self,
        backend: Backend,
        context: Context,
        success: bool,
        transfer: Transfer | None,
        *,
        at: float,
        decisions: int,
    ) -> None:
        """Adds one outcome, ordered by time; of two at the same time, the one reported later
        counts as later. `decisions` is the server's number of decisions so far."""
        self.outcomes += 1
        decisions_since = float(decisions - self.decisions_then)
        self.decisions_then = decisions
        kinds = self.kinds.get_or_add(context[1:], at)
        residual = None
        if transfer is not None:
            residual = self._note_transfer(transfer, kinds, decisions)
        explained = self._note_success(backend, success, kinds, decisions_since, at)
        if explained:
            for kind in kinds:
                kind.forget_failures()
        else:
            expected = self.long_term_success(backend, at)
            measured = None if residual is None else transfer
            for kind in kinds:
                latest = (at, float(kind.decisions_since), float(success), measured)
                rate = expected * (1.0 - kind.failure_rate(at))
                kind.note_latest(latest, residual or 0.0, rate, self.effects)
        for kind in kinds:
            kind.decisions_since = 0
        self._step_estimate = None
        self.context_estimates.clear()

    def _note_success(
        self, backend: Backend, success: bool, kinds: Sequence[Kind], decisions_since: float, at: float
    ) -> bool:
        """Adds success or failure to the record. Returns whether a change of the whole backend
        explains a failure."""
        by_kind = by_backend = False
        rate = self.long_term_success(backend, at)
        if not success:
            self._note_failure(at)
            by_kind = any(
                kind.success_change.probability_at(at, kind.decisions_since) > EXPLAINS
                for kind in kinds
                if kind.changed
            )
            change = self.success_change(backend)
            by_backend = not by_kind and change.probability_at(at, decisions_since) > EXPLAINS
        if not by_kind:
            insort(self.latest, (at, float(success), decisions_since), key=_time)
            del self.latest[:-LATEST_OUTCOMES]
            self._success_change = None
        explained = _explained_share(self.success_change(backend), self.count)
        if by_kind:
            explained = max(explained, *[_explained_share(kind.success_change, kind.count) for kind in kinds])
        counted = 1.0 - explained
        self._add(1.0, float(success), explained, explained * success, at)
        parts = [0.0] * len(kinds)
        if not success:
            backend_part, parts = attribute_failure(kinds, rate, at)
            self.kind_failures += counted * (1.0 - backend_part) * _decay(self.at - at)
        for kind, part in zip(kinds, parts, strict=True):
            kind.add(counted, counted * part, at)
        # Detected here, as is the change of speed, so that a report about a thousand backends
        # does not have to.
        self._success_change = None
        self.success_change(backend)
        return by_backend

    def _note_transfer(self, transfer: Transfer, kinds: Sequence[Kind], decisions: int) -> float | None:
        """Adds a transfer. Returns what neither the record nor a change of the whole backend
        explains of it, None if that change does."""
        at = transfer.at
        residual = self.effects.residual(transfer)
        learned = transfer.residual - residual
        kind = slowest(kinds)
        kind_shift, by_kind = 0.0, False
        if kind is not None:
            by_kind, kind_shift = _explains(
                kind.speed_change, kind.speed_change.probability_at(at, kind.decisions_since), residual
            )
        probability = self.speed_change.probability_at(at, transfer.decisions_since)
        by_backend, shift = _explains(self.speed_change, probability, residual)
        if abs(kind_shift) > abs(shift):
            shift = kind_shift
        self.doubt.note_transfer(
            confirms=abs(residual) <= abs(transfer.residual) - CONFIRMING_MARGIN,
            at=at,
            decisions_since=transfer.decisions_since,
            decisions=decisions,
        )
        typical = median([0.0] * PROFILE_VOTES + self.residuals)
        self._note_mean(residual - shift, typical, at)
        counted = learned + min(max(residual, typical - MAX_SURPRISE), typical + MAX_SURPRISE)
        self.effects.note(transfer.context, transfer.throughput_share, counted, transfer.load, at=at)
        if not by_kind:
            insort(self.transfers, transfer, key=_time)
            del self.transfers[:-LATEST_OUTCOMES]
        self.speed_change = self._detect_speed_change()
        return None if by_backend and not by_kind else residual

    def _note_mean(self, residual: float, typical: float, at: float) -> None:
        """Adds to the sums for the mean duration: a regression of logarithms predicts the typical
        one, and the mean is above that by the mean of exp(residual)."""
        if abs(typical) > UNLEARNED_RESIDUAL:
            residual -= typical
        decay, weight = _decay(at - self.at), self.count / (self.count + EXPLAINED_PRIOR_OUTCOMES)
        self.mean_count = self.mean_count * decay + weight
        self.mean_sum = self.mean_sum * decay + weight * math.exp(min(residual, MAX_SURPRISE))

    def snapshot(self, decisions: int) -> dict[str, Any]:
        """The sums with their time bases, and the latest outcomes; `decisions` is the server's
        number of decisions so far."""
        return {
            "outcomes": self.outcomes,
            "unheard": decisions - self.decisions_then,
            "record": [self.at, self.count, self.successes, self.explained_count, self.explained_successes],
            "last_failure_at": self.last_failure_at,
            "profile": [self.latency_ms, self.throughput_mbps],
            "doubt": self.doubt.snapshot(decisions),
            "kinds": self.kinds.snapshot(),
            "kind_failures": self.kind_failures,
            "mean": [self.mean_count, self.mean_sum],
            "effects": self.effects.snapshot(),
            "latest": [[*one] for one in self.latest],
            "transfers": [one.snapshot() for one in self.transfers],
        }

    def merge(self, snapshot: Mapping[str, Any], decisions: int) -> None:
        """Adds the sums of a snapshot, and keeps the latest outcomes of both."""
        self.decisions_then = max(self.decisions_then, decisions - snapshot["unheard"])
        self.outcomes += snapshot["outcomes"]
        at, count, successes, explained_count, explained_successes = snapshot["record"]
        self._add(count, successes, explained_count, explained_successes, at)
        decay = _decay(self.at - at)
        self.kind_failures += snapshot["kind_failures"] * decay
        self.mean_count += snapshot["mean"][0] * decay
        self.mean_sum += snapshot["mean"][1] * decay
        self.doubt.merge(snapshot["doubt"], decisions)
        self._note_failure(snapshot["last_failure_at"])
        self.effects.merge(snapshot["effects"])
        self.kinds.merge(snapshot["kinds"], self.effects)
        latest = [(at, success, decisions_since) for at, success, decisions_since in snapshot["latest"]]
        transfers = [Transfer.from_snapshot(row) for row in snapshot["transfers"]]
        # If only the snapshot has any, their order is kept, also among outcomes of equal times.
        self.latest = sorted([*self.latest, *latest])[-LATEST_OUTCOMES:] if self.latest else latest
        self.transfers = (
            sorted([*self.transfers, *transfers])[-LATEST_OUTCOMES:] if self.transfers else transfers
        )
        self._step_estimate = None
        self.context_estimates.clear()
        self._success_change = None if self.latest else UNCHANGED
        self.speed_change = self._detect_speed_change()

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
        counted = self.count - self.explained_count - self.kind_failures
        bad = PRIOR_OUTCOMES + counted * decay - good
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
            estimate = self.context_estimates[context] = self._estimate_context(common, backend, context, now)
        return estimate

    def _estimate_context(
        self, common: StepEstimate, backend: Backend, context: Context, now: float
    ) -> ContextEstimate:
        step, success, evidence, speed, rate = common
        latency, throughput, by_load = self.effects.sums(context)
        # As of the start of the step, so that a cached estimate is what a new one would be.
        start = ESTIMATE_STEP_S * step
        kinds = self.kinds.known(context[1:])
        for kind in kinds:
            success *= 1.0 - kind.failure_rate(start)
        speed_kind = success_kind = None
        if any(kind.changed for kind in kinds):
            # Of several changes the one that matters most is believed, not their sum: most of
            # them are of the same outcomes.
            kind = max(kinds, key=lambda one: shift_of(one.speed_change))
            if shift_of(kind.speed_change) > shift_of(self.speed_change):
                speed_kind, speed = kind, kind.speed_change.decay_from(start, now)
            kind = max(kinds, key=lambda one: drop_of(one.success_change, success))
            if drop_of(kind.success_change, success) > drop_of(self.success_change(backend), success):
                success_kind, rate = kind, kind.success_change.decay_from(start, now)
        log_mean = math.log((PRIOR_MEAN_TRANSFERS + self.mean_sum) / (PRIOR_MEAN_TRANSFERS + self.mean_count))
        return ContextEstimate(
            step,
            success,
            evidence,
            speed,
            rate,
            latency,
            throughput,
            by_load,
            speed_kind,
            success_kind,
            log_mean,
            self.doubt.belief_by_time(start),
        )

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
        self.residuals = [self.effects.residual(one) for one in self.transfers]
        if not self.transfers:
            return UNCHANGED
        return detect_speed_change(
            [one.at for one in self.transfers],
            [one.decisions_since for one in self.transfers],
            self.residuals,
        )

    def _add(
        self, count: float, successes: float, explained_count: float, explained_successes: float, at: float
    ) -> None:
        """Adds sums as of the time `at`; the result is as of the later of both times."""
        mine, theirs = _decay(at - self.at), _decay(self.at - at)
        self.count = self.count * mine + count * theirs
        self.successes = self.successes * mine + successes * theirs
        self.kind_failures *= mine
        self.mean_count *= mine
        self.mean_sum *= mine
        self.explained_count = self.explained_count * mine + explained_count * theirs
        self.explained_successes = self.explained_successes * mine + explained_successes * theirs
        self.at = max(self.at, at)

    def _note_failure(self, at: float | None) -> None:
        times = [one for one in (self.last_failure_at, at) if one is not None]
        self.last_failure_at = max(times, default=None)


def _explained_share(change: Change, count: float) -> float:
    """The part of an outcome that a change explains, where the record has so many."""
    return MAX_EXPLAINED * change.probability * count / (count + EXPLAINED_PRIOR_OUTCOMES)


def _explains(change: Change, probability: float, residual: float) -> tuple[bool, float]:
    """Whether a change of speed explains this residual, and the shift that it made expect."""
    agrees = abs(residual - change.mean) < abs(residual)
    return probability > EXPLAINS and agrees, probability * change.mean


def _time(outcome: tuple[Any, ...]) -> float:
    return float(outcome[0])


def _decay(age_s: float) -> float:
    return float(2.0 ** (-age_s / SUCCESS_HALF_LIFE_S)) if age_s > 0.0 else 1.0
