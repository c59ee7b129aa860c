"""What was learned from outcomes about each backend: expected duration and success.

A transfer that took d ms where the profile promised p ms leaves the residual ln(d / p).
The expected duration is the promise, corrected by the residuals that the backend's
record predicts for this operation, place, type and size and, while a change is likely, by
its level (see `history` and `changepoint`). The probability of success is learned in the same way.
Failures teach nothing about speed. Evidence decays, so an abandoned backend is
eventually retried.
"""

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from routing.core.geography import ROUND_TRIP_MS_PER_KM
from routing.core.learning.changepoint import (
    CHANGE_HALF_LIFE_DECISIONS,
    CHANGE_HALF_LIFE_S,
)
from routing.core.learning.context import OWN, Context
from routing.core.learning.history import (
    ESTIMATE_STEP_S,
    BackendHistory,
    ChangeEstimate,
)
from routing.core.learning.posterior import Posterior
from routing.core.learning.speed import SpeedRecord
from routing.core.learning.transfer import Transfer
from routing.core.model import ASSUMED_SIZE_BYTES, Backend, Estimate

MAX_RESIDUAL = 20.0
"""A duration of e^20 times what the profile promises is a fault of the client's clock."""

DRAW_ALL_SHARE = 0.1
"""The share of `adaptive` decisions that draw an estimate for every backend; the others draw
for backends without an outcome, and take the mean for the rest. Drawing in a third of the
decisions wastes more on backends that are alike; in a thirtieth, improved backends are
noticed too late. Between 0.05 and 0.2 mean regret is the same, 0.072: less costs where
profiles are wrong, more in outages."""


def prior_duration(
    profile: Backend | SpeedRecord, size_bytes: int, distance_km: float | None
) -> tuple[float, float]:
    """The duration in ms that the profile promises (latency, transfer, and one round trip over
    the distance), and the transfer's share of it."""
    transfer_ms = size_bytes * 8e-3 / profile.throughput_mbps
    total_ms = profile.latency_ms + transfer_ms + (distance_km or 0.0) * ROUND_TRIP_MS_PER_KM
    return total_ms, transfer_ms / total_ms


class Learning:
    """The history of each backend that had an outcome: bounded by backends × MAX_EFFECTS."""

    def __init__(self) -> None:
        self._histories: dict[str, BackendHistory] = {}
        # The clock by which changes decay with traffic.
        self._decisions = 0
        # The histories in which a change may hold for one kind of request only.
        self._with_changed_kinds: dict[str, BackendHistory] = {}

    def __repr__(self) -> str:
        outcomes = sum(history.outcomes for history in self._histories.values())
        return f"Learning(backends={len(self._histories)}, outcomes={outcomes})"

    def outcomes(self, backend_id: str) -> int:
        """How many outcomes of the backend were recorded."""
        history = self._histories.get(backend_id)
        return 0 if history is None else history.outcomes

    def last_failure_at(self, backend_id: str) -> float | None:
        """When the backend last failed, or None."""
        history = self._histories.get(backend_id)
        return None if history is None else history.success.last_failure_at

    def success_probability(self, backend: Backend, *, now: float) -> float:
        """The probability that an operation on this backend succeeds."""
        return self.estimate(backend, (OWN,), 0, None, now=now).success_probability

    def overall_success(self, backend: Backend, *, now: float) -> float:
        """Likewise by the record alone, whatever changes are detected."""
        history = self._histories.get(backend.id)
        return backend.success_rate if history is None else history.success.overall(backend, now)

    def note_decision(self, backend_id: str, context: Context) -> None:
        """Counts a decision: with each, what no outcome confirms is believed less."""
        self._decisions += 1
        history = self._histories.get(backend_id)
        if history is not None:
            history.speed.doubt.note_decision(self._decisions)
        for history in self._with_changed_kinds.values():
            for kind in history.kinds.known(context[1:]):
                kind.decisions_since += 1

    def estimate(
        self,
        backend: Backend,
        context: Context,
        size_bytes: int,
        distance_km: float | None,
        inflight: int = 0,
        *,
        now: float,
    ) -> Estimate:
        """The estimate for an operation of this size and context, with `inflight` others in
        flight on the backend."""
        return self.estimates((backend,), context, size_bytes, (distance_km,), (inflight,), now=now)[0]

    def estimates(
        self,
        backends: Sequence[Backend],
        context: Context,
        size_bytes: int,
        distances_km: Sequence[float | None],
        inflight: Sequence[int],
        *,
        now: float,
    ) -> list[Estimate]:
        """Likewise for several backends, each with its distance and its operations in flight.

        One decision may run this loop for a hundred backends, so `prior_duration` and
        `Change.probability_at` are written out in it, and estimates are made without calling
        their class: `tuple.__new__` takes 0.25 µs, `Estimate(...)` 0.45 µs.
        """
        find, new, step = self._histories.get, tuple.__new__, now // ESTIMATE_STEP_S
        elapsed = (now - step * ESTIMATE_STEP_S) / CHANGE_HALF_LIFE_S
        estimates = []
        for backend, distance_km, count in zip(backends, distances_km, inflight, strict=True):
            transfer_ms = size_bytes * 8e-3 / backend.throughput_mbps
            prior_ms = backend.latency_ms + transfer_ms + (distance_km or 0.0) * ROUND_TRIP_MS_PER_KM
            history = find(backend.id)
            if history is None:
                estimates.append(Estimate(prior_ms, backend.success_rate, prior_ms, backend.success_rate))
                continue
            learned = history.context_estimates.get(context)
            if learned is None or learned.step != step:
                learned = history.context_estimate(backend, context, now)
            _, success, evidence, changes, latency, throughput, by_load, log_mean, belief = learned
            if count and by_load is not None:
                load, (latency_by_load, throughput_by_load) = math.log1p(count), by_load
                latency += load * latency_by_load
                throughput += load * throughput_by_load
            record = history.speed
            correction = ((prior_ms - transfer_ms) * latency + transfer_ms * throughput) / prior_ms
            if record.latency_ms != backend.latency_ms or record.throughput_mbps != backend.throughput_mbps:
                sums = latency, throughput
                correction = _for_new_profile(record, prior_ms, size_bytes, distance_km, sums, now=now)
            if correction > 0.0:
                correction *= belief * record.doubt.belief_by_decisions(self._decisions)
            if changes is not None:
                correction, success = self._changed(history, changes, elapsed, correction, success)
            expected_ms = prior_ms * math.exp(correction + log_mean)
            estimates.append(new(Estimate, (expected_ms, success, prior_ms, backend.success_rate, evidence)))
        return estimates

    def uncertainty(
        self, backend: Backend, context: Context, size_bytes: int, distance_km: float | None, *, now: float
    ) -> tuple[float, float]:
        """The standard deviations of the natural logarithm of the expected duration, and of the
        probability of success.

        Of the logarithm, 0.1 means about 10 % either way. A change that may hold or not is
        counted as a mixture of both cases.
        """
        history = self._histories.get(backend.id) or BackendHistory(now)
        _, throughput_share = prior_duration(backend, size_bytes, distance_km)
        posterior = Posterior(history, backend, context, throughput_share, self._decisions, now)
        return posterior.spreads()

    def draw(
        self,
        backend: Backend,
        context: Context,
        size_bytes: int,
        distance_km: float | None,
        inflight: int = 0,
        *,
        now: float,
        random: Random,
    ) -> Estimate:
        """One estimate drawn from the posterior (Thompson, "On the likelihood that one unknown
        probability exceeds another", 1933)."""
        history = self._histories.get(backend.id) or BackendHistory(now)
        prior_ms, throughput_share = prior_duration(backend, size_bytes, distance_km)
        posterior = Posterior(history, backend, context, throughput_share, self._decisions, now)
        correction, rate = posterior.draw(math.log1p(inflight), random)
        return Estimate(
            prior_ms * math.exp(correction), rate, prior_ms, backend.success_rate, posterior.learned.evidence
        )

    def note(
        self,
        backend: Backend,
        context: Context,
        *,
        success: bool,
        duration_ms: int | None,
        size_bytes: int,
        distance_km: float | None,
        inflight: int = 0,
        at: float,
    ) -> None:
        """Learns from one outcome. Failures and outcomes without a duration teach nothing about
        speed. `inflight` is how many operations were in flight on the backend when it began."""
        history = self._histories.get(backend.id)
        if history is None:
            history = self._histories[backend.id] = BackendHistory(
                at,
                self._decisions,
                latency_ms=backend.latency_ms,
                throughput_mbps=backend.throughput_mbps,
            )
        transfer = None
        if success and duration_ms is not None:
            size_bytes = size_bytes or ASSUMED_SIZE_BYTES
            promised_ms, throughput_share = prior_duration(history.speed, size_bytes, distance_km)
            residual = math.log(duration_ms / promised_ms)
            residual = max(-MAX_RESIDUAL, min(MAX_RESIDUAL, residual))
            decisions_since = self._decisions_since(history)
            transfer = Transfer(
                at, residual, throughput_share, context, math.log1p(inflight), decisions_since
            )
        history.note(backend, context, success, transfer, at=at, decisions=self._decisions)
        # Most backends have no changed kind and get none: only the kinds of this outcome are asked.
        if backend.id in self._with_changed_kinds or any(
            kind.changed for kind in history.kinds.known(context[1:])
        ):
            self._list_changed_kinds(backend.id, history)

    def snapshot(self) -> dict[str, Any]:
        """{backend: its history}, as JSON-able values."""
        return {name: history.snapshot(self._decisions) for name, history in self._histories.items()}

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Adds the histories of a snapshot."""
        for name, theirs in snapshot.items():
            history = self._histories.get(name)
            if history is None:
                latency_ms, throughput_mbps = theirs["profile"]
                history = self._histories[name] = BackendHistory(
                    theirs["record"][0],
                    self._decisions - theirs["unheard"],
                    latency_ms=latency_ms,
                    throughput_mbps=throughput_mbps,
                )
            history.merge(theirs, self._decisions)
            self._list_changed_kinds(name, history)

    def _list_changed_kinds(self, backend_id: str, history: BackendHistory) -> None:
        if history.kinds.changed:
            self._with_changed_kinds[backend_id] = history
        else:
            self._with_changed_kinds.pop(backend_id, None)

    def _changed(
        self,
        history: BackendHistory,
        changes: ChangeEstimate,
        elapsed: float,
        correction: float,
        success: float,
    ) -> tuple[float, float]:
        """The correction and the probability of success with the changes that may hold."""
        speed, rate, speed_kind, success_kind = changes
        decisions_since = self._decisions - history.decisions_then
        if speed is not None:
            decisions = decisions_since if speed_kind is None else speed_kind.decisions_since
            age = elapsed + decisions / CHANGE_HALF_LIFE_DECISIONS
            correction += 2.0 ** -(speed.half_lives + age * speed.pace) * speed.level
        if rate is not None:
            decisions = decisions_since if success_kind is None else success_kind.decisions_since
            age = elapsed + decisions / CHANGE_HALF_LIFE_DECISIONS
            success += 2.0 ** -(rate.half_lives + age * rate.pace) * (rate.level - success)
        return correction, success

    def _decisions_since(self, history: BackendHistory) -> int:
        """This server's decisions since the backend's last outcome."""
        return self._decisions - history.decisions_then


def _for_new_profile(
    record: SpeedRecord,
    prior_ms: float,
    size_bytes: int,
    distance_km: float | None,
    sums: tuple[float, float],
    *,
    now: float,
) -> float:
    """The correction of a profile that differs from the one that the residuals are relative to: the
    estimate stays as it was as far as outcomes support it, the rest follows the new profile."""
    promised_ms, throughput_share = prior_duration(record, size_bytes, distance_km)
    latency, throughput = sums
    learned = (1.0 - throughput_share) * latency + throughput_share * throughput
    return record.effects.support(throughput_share, now=now) * (learned + math.log(promised_ms / prior_ms))
