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
from functools import lru_cache
from random import Random
from typing import Any

from routing.core.geography import ROUND_TRIP_MS_PER_KM
from routing.core.learning.changepoint import (
    CHANGE_HALF_LIFE_DECISIONS,
    CHANGE_HALF_LIFE_S,
    Change,
    beta_moments,
)
from routing.core.learning.doubt import DOUBT_AFTER_DECISIONS
from routing.core.learning.history import ESTIMATE_STEP_S, BackendHistory, ContextEstimate
from routing.core.learning.regression import OWN
from routing.core.learning.transfer import Context, Transfer
from routing.core.model import ASSUMED_SIZE_BYTES, Backend, Estimate, Location, Operation

CELL_DEGREES = 10.0
COARSE_CELLS = 3
"""Places are cells of so many degrees (1,100 km), and coarse cells of three times that."""

CONTEXT_CACHE_SIZE = 4096
"""Contexts whose names are cached, about 2 MB at most. Making them for each decision takes as
long as everything that is looked up with them for three backends."""

BAND_BITS = 4
"""A band of sizes spans a factor of 16: slow start, and fixed costs beside the latency, make small
objects slower and middle ones slower still than latency and throughput alone."""

MAX_RESIDUAL = 20.0
"""A duration of e^20 times what the profile promises is a fault of the client's clock."""

DRAW_ALL_SHARE = 0.1
"""The share of `adaptive` decisions that draw an estimate for every backend; the others draw
for backends without an outcome, and take the mean for the rest. Drawing in a third of the
decisions wastes more on backends that are alike; in a thirtieth, improved backends are
noticed too late. Between 0.05 and 0.2 mean regret is the same, 0.072: less costs where
profiles are wrong, more in outages."""

MIN_END_PROBABILITY = 0.02
"""At least this share of draws assumes that a change has ended. So its end is noticed within
some hundred draws, at a thousand decisions a second as at one a minute."""

CONVINCING_TRANSFERS = 3
IGNORED_SHARE = 0.3
"""While a backend has fewer transfers than this, this share of its draws ignores them: one odd
transfer is weak evidence, three are not. Without, a new backend whose first transfer was odd
may wait for a thousand decisions (regret 0.36 in one world of five). With 1.0, regret is the
same where new backends appear and higher by 0.01 where nothing changes; drawing for such
backends in every decision costs 0.02 where profiles are wrong."""

MIN_DRAWN_RATE = 1e-3
"""A success rate is drawn from a normal distribution with the posterior's mean and variance,
and kept this far inside (0, 1); a draw from the beta distribution takes five times as long."""


def context_of(
    operation: Operation | None, location: Location | None, content_type: str, size_bytes: int
) -> Context:
    """The names of the effects: the backend's own, and those of the kinds of this request: its
    operation, region, coarse cell and cell, type, and band of size; of what is not known, none."""
    north = east = None
    region = ""
    if location is not None:
        region = location.region
        if location.latitude is not None and location.longitude is not None:
            north, east = int(location.latitude // CELL_DEGREES), int(location.longitude // CELL_DEGREES)
    return _context(operation, north, east, region, content_type, size_bytes.bit_length() // BAND_BITS)


@lru_cache(CONTEXT_CACHE_SIZE)
def _context(
    operation: Operation | None,
    north: int | None,
    east: int | None,
    region: str,
    content_type: str,
    band: int,
) -> Context:
    names = [OWN]
    if operation is not None:
        names.append(f"operation:{operation.value}")
    if region:
        names.append(f"region:{region}")
    if north is not None and east is not None:
        coarse = COARSE_CELLS
        names.append(f"cell:{coarse * CELL_DEGREES}:{north // coarse}:{east // coarse}")
        names.append(f"cell:{CELL_DEGREES}:{north}:{east}")
    if content_type:
        names.append(f"type:{content_type}")
    if band:
        names.append(f"size:{BAND_BITS * band}")
    return tuple(names)


def prior_duration(
    profile: Backend | BackendHistory, size_bytes: int, distance_km: float | None
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
        return None if history is None else history.last_failure_at

    def success_probability(self, backend: Backend, *, now: float) -> float:
        """The probability that an operation on this backend succeeds."""
        return self.estimate(backend, (OWN,), 0, None, now=now).success_probability

    def overall_success(self, backend: Backend, *, now: float) -> float:
        """Likewise by the record alone, whatever changes are detected."""
        history = self._histories.get(backend.id)
        return backend.success_rate if history is None else history.overall_success(backend, now)

    def note_decision(self, backend_id: str, context: Context) -> None:
        """Counts a decision: with each, what no outcome confirms is believed less."""
        self._decisions += 1
        history = self._histories.get(backend_id)
        if history is not None:
            history.doubt.note_decision(self._decisions)
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
            (
                _,
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
                belief,
            ) = learned
            if count and by_load is not None:
                load = math.log1p(count)
                latency_by_load, throughput_by_load = by_load
                latency += load * latency_by_load
                throughput += load * throughput_by_load
            if (
                history.latency_ms == backend.latency_ms
                and history.throughput_mbps == backend.throughput_mbps
            ):
                throughput_share = transfer_ms / prior_ms
                correction = (1.0 - throughput_share) * latency + throughput_share * throughput
            else:
                correction = _correction_of_new_profile(
                    history, prior_ms, size_bytes, distance_km, latency, throughput, now=now
                )
            if correction > 0.0:
                correction *= belief
                unconfirmed = self._decisions - history.doubt.believed_then - DOUBT_AFTER_DECISIONS
                if unconfirmed > 0:
                    correction *= 2.0 ** (-unconfirmed / history.doubt.half_life_decisions)
            if speed is not None or rate is not None:
                age = elapsed + (self._decisions - history.decisions_then) / CHANGE_HALF_LIFE_DECISIONS
                if speed is not None:
                    if speed_kind is not None:
                        age = elapsed + speed_kind.decisions_since / CHANGE_HALF_LIFE_DECISIONS
                    correction += 2.0 ** -(speed.half_lives + age * speed.pace) * speed.level
                if rate is not None:
                    decisions = self._decisions - history.decisions_then
                    if success_kind is not None:
                        decisions = success_kind.decisions_since
                    age = elapsed + decisions / CHANGE_HALF_LIFE_DECISIONS
                    success += 2.0 ** -(rate.half_lives + age * rate.pace) * (rate.level - success)
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
        learned = history.context_estimate(backend, context, now)
        _, throughput_share = prior_duration(backend, size_bytes, distance_km)
        variance = history.effects.variance(context, throughput_share, now=now)
        belief = history.doubt.belief(now, self._decisions)
        if belief < 1.0:
            prior = BackendHistory(now).effects.variance(context, throughput_share, now=now)
            correction = history.effects.total(context, throughput_share)
            variance = belief * variance + (1.0 - belief) * (prior + belief * correction * correction)
        change, probability = self._speed_change(history, learned, now)
        variance += probability * (change.variance + (1.0 - probability) * change.mean**2)
        change, probability = self._success_change(history, learned, backend, now)
        mean, rate_variance = beta_moments(*history.success_record(backend, now))
        mean *= history.kinds.success_rate(context[1:], now)
        rate_variance += probability * (
            change.variance - rate_variance + (1.0 - probability) * (change.mean - mean) ** 2
        )
        return math.sqrt(variance), math.sqrt(rate_variance)

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
        history = self._histories.get(backend.id)
        if history is None:
            history = BackendHistory(now)
        learned = history.context_estimate(backend, context, now)
        belief = history.doubt.belief(now, self._decisions)
        prior_ms, throughput_share = prior_duration(backend, size_bytes, distance_km)
        if 0 < len(history.transfers) < CONVINCING_TRANSFERS and random.random() < IGNORED_SHARE:
            belief = 0.0
        speed_history = history if random.random() < belief else BackendHistory(now)
        correction = speed_history.effects.total(context, throughput_share, math.log1p(inflight))
        variance = speed_history.effects.variance(context, throughput_share, now=now)
        change, probability = self._speed_change(history, learned, now)
        if _draw_change(probability, random):
            correction += change.mean
            variance += change.variance
        change, probability = self._success_change(history, learned, backend, now)
        if _draw_change(probability, random):
            rate, rate_variance = change.mean, change.variance
        else:
            rate, rate_variance = beta_moments(*history.success_record(backend, now))
            rate *= history.kinds.success_rate(context[1:], now)
        correction += learned.log_mean
        expected_ms = prior_ms * math.exp(random.gauss(correction, math.sqrt(variance)))
        rate = random.gauss(rate, math.sqrt(rate_variance))
        return Estimate(
            expected_ms,
            min(max(rate, MIN_DRAWN_RATE), 1.0 - MIN_DRAWN_RATE),
            prior_ms,
            backend.success_rate,
            learned.evidence,
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
            promised_ms, throughput_share = prior_duration(history, size_bytes, distance_km)
            residual = math.log(duration_ms / promised_ms)
            residual = max(-MAX_RESIDUAL, min(MAX_RESIDUAL, residual))
            decisions_since = self._decisions_since(history)
            transfer = Transfer(
                at, residual, throughput_share, context, math.log1p(inflight), decisions_since
            )
        history.note(backend, context, success, transfer, at=at, decisions=self._decisions)
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

    def _speed_change(
        self, history: BackendHistory, learned: ContextEstimate, now: float
    ) -> tuple[Change, float]:
        """The change of speed that counts for this context, and its probability now."""
        kind = learned.speed_kind
        if kind is None:
            change = history.speed_change
            return change, change.probability_at(now, self._decisions_since(history))
        return kind.speed_change, kind.speed_change.probability_at(now, kind.decisions_since)

    def _success_change(
        self, history: BackendHistory, learned: ContextEstimate, backend: Backend, now: float
    ) -> tuple[Change, float]:
        """The change of success that counts for this context, and its probability now."""
        kind = learned.success_kind
        if kind is None:
            change = history.success_change(backend)
            return change, change.probability_at(now, self._decisions_since(history))
        return kind.success_change, kind.success_change.probability_at(now, kind.decisions_since)

    def _decisions_since(self, history: BackendHistory) -> int:
        """This server's decisions since the backend's last outcome."""
        return self._decisions - history.decisions_then


def _correction_of_new_profile(
    history: BackendHistory,
    prior_ms: float,
    size_bytes: int,
    distance_km: float | None,
    latency: float,
    throughput: float,
    *,
    now: float,
) -> float:
    """The correction of a profile that differs from the one that the residuals are relative to: the
    estimate stays as it was as far as outcomes support it, the rest follows the new profile."""
    promised_ms, throughput_share = prior_duration(history, size_bytes, distance_km)
    learned = (1.0 - throughput_share) * latency + throughput_share * throughput
    return history.effects.support(throughput_share, now=now) * (learned + math.log(promised_ms / prior_ms))


def _draw_change(probability: float, random: Random) -> bool:
    """Draws whether a change of this probability holds now."""
    return probability > 0.0 and random.random() < min(probability, 1.0 - MIN_END_PROBABILITY)
