"""What outcomes taught about each backend, fading with time.

Speed. A transfer that took d ms where the profile promised p ms leaves the residual
ln(d / p). Its mean over the outcomes of a backend corrects the profile; the mean over
those from one place, or of one type of content, corrects that again. Each mean is
shrunk towards what it corrects, as in a normal model with known variances (Gelman et
al., "Bayesian Data Analysis", 3rd edition, section 5.4): n outcomes pull with weight n
against a prior worth a few, so that little evidence leans on what is shared.

Success. The probability is the mean of a beta distribution (ibid., section 2.4): the
profile's rate counts like a few outcomes, and the outcomes are added.

Everything kept is a sum of weighted outcomes whose weight halves with age, so it can
be brought to another time by one factor, and two servers' sums can be added.
"""

import math
from collections.abc import Mapping
from random import Random
from typing import Any

from routing.core.geography import ROUND_TRIP_MS_PER_KM
from routing.core.model import ASSUMED_SIZE_BYTES, Backend, Estimate, Location

SPEED_HALF_LIFE_S = 3600.0
"""Shorter, and a quiet hour forgets what was learned; longer, and a backend that has
slowed down is believed fast for hours."""

SUCCESS_HALF_LIFE_S = 1800.0
"""Failures come in bursts of minutes: half an hour outlasts one and is over soon after."""

PRIOR_OUTCOMES = 5.0
"""How many outcomes the profile counts for. With fewer, one failure at the start
condemns a backend; with more, a wrong profile misleads for long."""

SHARED_OUTCOMES = 10.0
"""How many outcomes of its own a place or a type needs to weigh as much as the backend's."""

RESIDUAL_LIMIT = 2.0
"""A transfer counts as at most e² ≈ 7.4 times slower or faster than the profile says,
so that one that hung for an hour is not worth a hundred honest ones."""

RESIDUAL_VARIANCE = 0.25
"""Of one residual around its mean: transfers of one kind vary by a factor of about
1.6, as measured object stores do (lognormal sigma 0.1 to 0.5)."""

CELL_DEGREES = 30.0
"""About 3,300 km: clients of one part of a continent share their road to a backend."""

MAX_CONTEXTS = 64
"""Places and types kept apart for each backend; what comes later has no context of its own."""


Context = tuple[str, ...]
"""The names of what an outcome shares with others besides its backend: its place, its
type's family; empty where neither is known."""


class Sums:
    """A decayed count, and decayed sums beside it, at the time base `at`."""

    __slots__ = ("at", "count", "total")

    def __init__(self, at: float, count: float = 0.0, total: float = 0.0) -> None:
        self.at = at
        self.count = count
        self.total = total

    def __repr__(self) -> str:
        return f"Sums(count={self.count:.6g}, total={self.total:.6g})"

    def add(self, count: float, total: float, at: float, half_life_s: float) -> None:
        """Adds sums whose time base is `at`; the later of the two bases is kept."""
        if at >= self.at:
            fade = _fade(at - self.at, half_life_s)
            self.count = self.count * fade + count
            self.total = self.total * fade + total
            self.at = at
        else:
            fade = _fade(self.at - at, half_life_s)
            self.count += count * fade
            self.total += total * fade

    def read(self, now: float, half_life_s: float) -> tuple[float, float]:
        """Count and total as they weigh now."""
        fade = _fade(max(0.0, now - self.at), half_life_s)
        return self.count * fade, self.total * fade


def context_of(location: Location | None, content_type: str) -> Context:
    """A coarse place (a cell of 30 degrees, or the region's name) and the type's family."""
    keys = []
    if location is not None and location.latitude is not None and location.longitude is not None:
        north = math.floor(location.latitude / CELL_DEGREES)
        east = math.floor(location.longitude / CELL_DEGREES)
        keys.append(f"cell:{north}:{east}")
    elif location is not None and location.region:
        keys.append(f"region:{location.region}")
    if content_type:
        keys.append(f"type:{content_type.partition('/')[0]}")
    return tuple(keys)


def profile_ms(backend: Backend, size_bytes: int, distance_km: float | None) -> float:
    """What the profile promises: latency, transfer, and one round trip over the distance."""
    transfer_ms = size_bytes * 8e-3 / backend.throughput_mbps
    return backend.latency_ms + transfer_ms + (distance_km or 0.0) * ROUND_TRIP_MS_PER_KM


class Learning:
    """Sums for each backend, and for each of its places and content families.

    Bounded by backends × (1 + 2 × MAX_CONTEXTS).
    """

    def __init__(self) -> None:
        # {backend: sums of (success), outcomes that ever came}
        self._success: dict[str, Sums] = {}
        self._outcomes: dict[str, int] = {}
        # {backend: {"": all, "place:…" or "type:…": those}}, sums of residuals
        self._speed: dict[str, dict[str, Sums]] = {}

    def __repr__(self) -> str:
        return f"Learning(backends={len(self._success)}, outcomes={sum(self._outcomes.values())})"

    def outcomes(self, backend_id: str) -> int:
        """How many outcomes the backend ever had."""
        return self._outcomes.get(backend_id, 0)

    def success_probability(self, backend: Backend, *, now: float) -> float:
        """The probability that an operation on this backend succeeds."""
        count, successes = self._success_sums(backend.id, now)
        return (PRIOR_OUTCOMES * backend.success_rate + successes) / (PRIOR_OUTCOMES + count)

    def estimate(
        self, backend: Backend, context: Context, size_bytes: int, distance_km: float | None, *, now: float
    ) -> Estimate:
        """What is believed about an operation of this size and context."""
        prior_ms = profile_ms(backend, size_bytes, distance_km)
        count, correction = self._correction(backend.id, context, now)
        outcomes, successes = self._success_sums(backend.id, now)
        weight = PRIOR_OUTCOMES + outcomes
        return Estimate(
            prior_ms * math.exp(correction) if count else prior_ms,
            (PRIOR_OUTCOMES * backend.success_rate + successes) / weight,
            prior_ms,
            backend.success_rate,
            count / (count + PRIOR_OUTCOMES),
            outcomes / weight,
        )

    def draw(
        self,
        backend: Backend,
        context: Context,
        size_bytes: int,
        distance_km: float | None,
        *,
        now: float,
        random: Random,
    ) -> Estimate:
        """One estimate out of all that the evidence still allows (Thompson, "On the
        likelihood that one unknown probability exceeds another", 1933)."""
        prior_ms = profile_ms(backend, size_bytes, distance_km)
        count, correction = self._correction(backend.id, context, now)
        deviation = math.sqrt(RESIDUAL_VARIANCE / (PRIOR_OUTCOMES + count))
        outcomes, successes = self._success_sums(backend.id, now)
        prior_successes = PRIOR_OUTCOMES * backend.success_rate
        return Estimate(
            prior_ms * math.exp(random.gauss(correction, deviation)),
            random.betavariate(
                max(prior_successes + successes, 1e-3),
                max(PRIOR_OUTCOMES - prior_successes + outcomes - successes, 1e-3),
            ),
            prior_ms,
            backend.success_rate,
            count / (count + PRIOR_OUTCOMES),
            outcomes / (PRIOR_OUTCOMES + outcomes),
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
        at: float,
    ) -> None:
        """Learns from one outcome. Failures, and outcomes without a duration, say nothing
        about speed."""
        sums = self._success.setdefault(backend.id, Sums(at))
        sums.add(1.0, float(success), at, SUCCESS_HALF_LIFE_S)
        self._outcomes[backend.id] = self._outcomes.get(backend.id, 0) + 1
        if not success or duration_ms is None:
            return
        promised_ms = profile_ms(backend, size_bytes or ASSUMED_SIZE_BYTES, distance_km)
        residual = math.log(duration_ms / promised_ms)
        residual = max(-RESIDUAL_LIMIT, min(RESIDUAL_LIMIT, residual))
        table = self._speed.setdefault(backend.id, {})
        for key in ("", *context):
            if key in table or len(table) < 1 + MAX_CONTEXTS:
                table.setdefault(key, Sums(at)).add(1.0, residual, at, SPEED_HALF_LIFE_S)

    def snapshot(self) -> dict[str, Any]:
        """All sums, each with its time base."""
        return {
            "success": {name: [one.at, one.count, one.total] for name, one in self._success.items()},
            "outcomes": dict(self._outcomes),
            "speed": {
                name: {key: [one.at, one.count, one.total] for key, one in table.items()}
                for name, table in self._speed.items()
            },
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Adds the sums of a snapshot."""
        for name, (at, count, total) in snapshot["success"].items():
            self._success.setdefault(name, Sums(at)).add(count, total, at, SUCCESS_HALF_LIFE_S)
        for name, outcomes in snapshot["outcomes"].items():
            self._outcomes[name] = self._outcomes.get(name, 0) + outcomes
        for name, table in snapshot["speed"].items():
            mine = self._speed.setdefault(name, {})
            for key, (at, count, total) in table.items():
                mine.setdefault(key, Sums(at)).add(count, total, at, SPEED_HALF_LIFE_S)

    def _success_sums(self, backend_id: str, now: float) -> tuple[float, float]:
        sums = self._success.get(backend_id)
        return (0.0, 0.0) if sums is None else sums.read(now, SUCCESS_HALF_LIFE_S)

    def _correction(self, backend_id: str, context: Context, now: float) -> tuple[float, float]:
        """The number of residuals behind it, and the mean residual for this context."""
        table = self._speed.get(backend_id)
        if not table:
            return 0.0, 0.0
        count, total = table[""].read(now, SPEED_HALF_LIFE_S)
        shared = total / (count + PRIOR_OUTCOMES)
        correction = shared
        for key in context:
            sums = table.get(key)
            if sums is not None:
                own, residuals = sums.read(now, SPEED_HALF_LIFE_S)
                correction += (residuals - own * shared) / (own + SHARED_OUTCOMES)
        return count, correction


def _fade(age_s: float, half_life_s: float) -> float:
    return float(2.0 ** (-age_s / half_life_s)) if age_s else 1.0
