"""One backend's history: its records of success and of speed, and those of kinds of requests.

The records decay slowly. The latest outcomes are compared with them to detect a change (see
`changepoint`), of the whole backend or of one kind: they are the latest by the time at which
they happened, whichever server recorded them and in whatever order.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from routing.core.learning.changepoint import DecayingChange
from routing.core.learning.context import Context
from routing.core.learning.kinds import Kind, Kinds, rate_shift_of, shift_of
from routing.core.learning.speed import SpeedRecord
from routing.core.learning.success import SuccessRecord
from routing.core.learning.transfer import Transfer
from routing.core.model import REFERENCE_LATENCY_MS, REFERENCE_THROUGHPUT_MBPS, Backend, Evidence

ESTIMATE_STEP_S = 300.0
"""Decisions use cached estimates of the record, recomputed after so many seconds, in which the
record decays by a quarter of a percent."""

MAX_CONTEXT_ESTIMATES = 64
"""Contexts for which estimates are cached until the backend's next outcome: with 100 backends
most decisions hit the cache, and a client that sends many content types cannot grow it."""


class ChangeEstimate(NamedTuple):
    """The changes of speed and of success that count, None where there is none, and the kinds that
    they are of, None where of the backend."""

    speed: DecayingChange | None
    success: DecayingChange | None
    speed_kind: Kind | None = None
    success_kind: Kind | None = None


class StepEstimate(NamedTuple):
    """What all decisions of one step of ESTIMATE_STEP_S have in common: the probability of
    success by the record alone, the evidence, and the changes of the backend."""

    step: float
    long_term_success: float
    evidence: Evidence
    changes: ChangeEstimate


class ContextEstimate(NamedTuple):
    """A StepEstimate for one context, where kinds have their part in the probability of success
    and may have changes of their own, None where there is no change; with the sums of the
    effects for latency and throughput, what load adds to each, None where that is not known,
    the logarithm of the mean duration over the typical one, and the part of a correction
    towards slower that time has left of it."""

    step: float
    long_term_success: float
    evidence: Evidence
    changes: ChangeEstimate | None
    latency: float
    throughput: float
    load: tuple[float, float] | None
    log_mean: float
    belief: float


class BackendHistory:
    """`decisions_then` is this server's number of decisions at the backend's last outcome.
    `context_estimates` is a cache."""

    __slots__ = (
        "_step_estimate",
        "context_estimates",
        "decisions_then",
        "kinds",
        "outcomes",
        "speed",
        "success",
    )

    def __init__(
        self,
        at: float,
        decisions_then: int = 0,
        *,
        latency_ms: float = REFERENCE_LATENCY_MS,
        throughput_mbps: float = REFERENCE_THROUGHPUT_MBPS,
    ) -> None:
        self.decisions_then = decisions_then
        self.outcomes = 0
        self.success = SuccessRecord(at)
        self.speed = SpeedRecord(decisions_then, latency_ms=latency_ms, throughput_mbps=throughput_mbps)
        self.kinds = Kinds()
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
        residual = None if transfer is None else self.speed.note(transfer, kinds, decisions)
        if self.success.note(backend, success, kinds, decisions_since, at=at):
            for kind in kinds:
                kind.forget_failures()
        else:
            expected = self.success.long_term(backend, at)
            measured = None if residual is None else transfer
            for kind in kinds:
                latest = (at, float(kind.decisions_since), float(success), measured)
                rate = expected * (1.0 - kind.failure_rate(at))
                kind.note_latest(latest, residual or 0.0, rate, self.speed.effects)
        for kind in kinds:
            kind.decisions_since = 0
        self._step_estimate = None
        self.context_estimates.clear()

    def snapshot(self, decisions: int) -> dict[str, Any]:
        """The sums with their time bases, and the latest outcomes, as JSON-able values; `decisions`
        is the server's number of decisions so far."""
        return {
            "outcomes": self.outcomes,
            "unheard": decisions - self.decisions_then,
            **self.success.snapshot(),
            **self.speed.snapshot(decisions),
            "kinds": self.kinds.snapshot(),
        }

    def merge(self, snapshot: Mapping[str, Any], decisions: int) -> None:
        """Adds the sums of a snapshot, and keeps the latest outcomes of both."""
        self.decisions_then = max(self.decisions_then, decisions - snapshot["unheard"])
        self.outcomes += snapshot["outcomes"]
        self.success.merge(snapshot)
        self.speed.merge(snapshot, decisions)
        self.kinds.merge(snapshot["kinds"], self.speed.effects)
        self._step_estimate = None
        self.context_estimates.clear()

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

    def _estimate_step(self, backend: Backend, step: float, now: float) -> StepEstimate:
        start = ESTIMATE_STEP_S * step
        return StepEstimate(
            step,
            self.success.long_term(backend, start),
            Evidence(self.speed.effects.evidence(start), self.success.evidence(start)),
            ChangeEstimate(
                self.speed.change.decay_from(start, now), self.success.change(backend).decay_from(start, now)
            ),
        )

    def _estimate_context(
        self, common: StepEstimate, backend: Backend, context: Context, now: float
    ) -> ContextEstimate:
        # As of the start of the step, so that a cached estimate is what a new one would be.
        start = ESTIMATE_STEP_S * common.step
        rate, changes = common.long_term_success, common.changes
        kinds = self.kinds.known(context[1:])
        for kind in kinds:
            rate *= 1.0 - kind.failure_rate(start)
        if any(kind.changed for kind in kinds):
            # Of several changes the one that matters most is believed, not their sum: most of
            # them are of the same outcomes.
            kind = max(kinds, key=lambda one: shift_of(one.speed_change))
            if shift_of(kind.speed_change) > shift_of(self.speed.change):
                speed = kind.speed_change.decay_from(start, now)
                changes = changes._replace(speed=speed, speed_kind=kind)
            kind = max(kinds, key=lambda one: rate_shift_of(one.success_change, rate))
            if rate_shift_of(kind.success_change, rate) > rate_shift_of(self.success.change(backend), rate):
                success = kind.success_change.decay_from(start, now)
                changes = changes._replace(success=success, success_kind=kind)
        return ContextEstimate(
            common.step,
            rate,
            common.evidence,
            None if changes.speed is None and changes.success is None else changes,
            *self.speed.effects.sums(context),
            self.speed.log_mean,
            self.speed.doubt.belief_by_time(start),
        )
