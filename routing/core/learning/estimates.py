"""What outcomes taught about each backend, fading with time.

A transfer that took d ms where the profile promised p ms leaves the residual ln(d / p).
What is expected is the promise, corrected by what the backend's record makes of such
residuals from this place and for this type; and while a condition is believed in, by
that (see `past`). Likewise the probability of success. Failures say nothing about
speed. News grow old, so that a backend that was left is tried again.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any

from routing.core.geography import ROUND_TRIP_MS_PER_KM
from routing.core.learning.changepoint import CONDITION_HALF_LIFE_DECISIONS, CONDITION_HALF_LIFE_S, moments
from routing.core.learning.history import STEP_S, Context, Past, Transfer
from routing.core.learning.regression import OWN
from routing.core.model import ASSUMED_SIZE_BYTES, Backend, Estimate, Evidence, Location

CELL_DEGREES = 10.0
PART_CELLS = 3
"""A neighbourhood (1,100 km), and a part of the world (three times that)."""

CONTEXTS_REMEMBERED = 4096
"""Places and types whose names are not made up anew for each decision, about 2 MB at most: it
takes as long as all that is looked up with them among three backends."""

LARGEST_RESIDUAL = 3.0
"""A transfer counts as at most twenty times slower or faster than promised, so that one that
hung for an hour does not outweigh a dozen honest ones. Limits around what is believed would
be tighter, but what is kept would depend on the order of the outcomes."""

DRAWN_SHARE = 0.1
"""The share of `adaptive` decisions that draw for every backend; the others draw for those
without an outcome, and take the rest at the mean. Drawing in a third wastes more on backends
that are alike; in a thirtieth it is found out too late who has become better. Between 0.05
and 0.2 mean regret is the same, 0.072: less costs where profiles are wrong, more in outages."""

DOUBT = 0.02
"""In so many draws, at least, a condition is taken to have ended: at a thousand decisions
a second as at one a minute, one that ended is found out within some hundred of them."""

CONVINCING = 3
UNCONVINCED = 0.3
"""One odd transfer convinces nobody, three do: of the draws for a backend that had fewer, so
many take it for unknown. Without, a newcomer whose first transfer was odd may wait for a
thousand decisions (regret 0.36 in one world of five). With 1.0, regret is the same where
backends come anew and higher by 0.01 where nothing changes; drawing for such backends in
every decision costs 0.02 where profiles are wrong."""

LEAST_RATE = 1e-3
"""A rate is drawn from a normal distribution of the belief's mean and variance, and kept
inside (0, 1); a draw from the beta distribution itself costs five times as much."""


def context_of(location: Location | None, content_type: str) -> Context:
    """Cells of 30 and of 10 degrees, or the region's name; and the type."""
    if location is None:
        return _context(None, None, "", content_type)
    latitude, longitude = location.latitude, location.longitude
    if latitude is None or longitude is None:
        return _context(None, None, location.region, content_type)
    return _context(int(latitude // CELL_DEGREES), int(longitude // CELL_DEGREES), "", content_type)


@lru_cache(CONTEXTS_REMEMBERED)
def _context(north: int | None, east: int | None, region: str, content_type: str) -> Context:
    names = [OWN]
    if north is not None and east is not None:
        part = PART_CELLS
        names.append(f"cell:{part * CELL_DEGREES}:{north // part}:{east // part}")
        names.append(f"cell:{CELL_DEGREES}:{north}:{east}")
    elif region:
        names.append(f"region:{region}")
    if content_type:
        names.append(f"type:{content_type}")
    return tuple(names)


def promise(backend: Backend, size_bytes: int, distance_km: float | None) -> tuple[float, float]:
    """What the profile promises in ms (latency, transfer, and one round trip over the
    distance), and the transfer's share of it."""
    transfer_ms = size_bytes * 8e-3 / backend.throughput_mbps
    whole_ms = backend.latency_ms + transfer_ms + (distance_km or 0.0) * ROUND_TRIP_MS_PER_KM
    return whole_ms, transfer_ms / whole_ms


class Learning:
    """The past of each backend that had an outcome: bounded by backends × MAX_EFFECTS."""

    def __init__(self) -> None:
        self._pasts: dict[str, Past] = {}
        # A clock for what fades with traffic.
        self._decisions = 0

    def __repr__(self) -> str:
        outcomes = sum(past.outcomes for past in self._pasts.values())
        return f"Learning(backends={len(self._pasts)}, outcomes={outcomes})"

    def outcomes(self, backend_id: str) -> int:
        """How many outcomes the backend ever had."""
        past = self._pasts.get(backend_id)
        return 0 if past is None else past.outcomes

    def last_failure_at(self, backend_id: str) -> float | None:
        """When the backend last failed, if it ever did."""
        past = self._pasts.get(backend_id)
        return None if past is None else past.last_failure_at

    def success_probability(self, backend: Backend, *, now: float) -> float:
        """The probability that an operation on this backend succeeds."""
        return self.estimate(backend, (OWN,), 0, None, now=now).success_probability

    def overall_success(self, backend: Backend, *, now: float) -> float:
        """Likewise by all of the record alone, whatever the backend's present condition."""
        past = self._pasts.get(backend.id)
        return backend.success_rate if past is None else past.overall(backend, now)

    def note_decision(self) -> None:
        """Traffic goes on: what was not heard of since is believed a little less."""
        self._decisions += 1

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
        """What is believed about an operation of this size and context, beside so many others
        that are in flight."""
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
        """Likewise about several backends, each at its distance and with what is in flight on it."""
        # A hundred for one decision: `promise` and `held` are written out, and no class is called.
        find, made, step = self._pasts.get, tuple.__new__, now // STEP_S
        elapsed = (now - step * STEP_S) / CONDITION_HALF_LIFE_S
        estimates = []
        for backend, distance_km, beside in zip(backends, distances_km, inflight, strict=True):
            transfer_ms = size_bytes * 8e-3 / backend.throughput_mbps
            prior_ms = backend.latency_ms + transfer_ms + (distance_km or 0.0) * ROUND_TRIP_MS_PER_KM
            past = find(backend.id)
            if past is None:
                estimates.append(Estimate(prior_ms, backend.success_rate, prior_ms, backend.success_rate))
                continue
            standing = past.known.get(context)
            if standing is None or standing.step != step:
                standing = past.standing(backend, context, now)
            _, success, evidence, slowed, failing, latency, throughput, busy = standing
            if beside and busy is not None:
                strength = math.log1p(beside)
                latency += strength * busy[0]
                throughput += strength * busy[1]
            share = transfer_ms / prior_ms
            correction = (1.0 - share) * latency + share * throughput
            if slowed is not None or failing is not None:
                gone = elapsed + (self._decisions - past.heard_at) / CONDITION_HALF_LIFE_DECISIONS
                if slowed is not None:
                    correction += 2.0 ** -(slowed[0] + gone * slowed[2]) * slowed[1]
                if failing is not None:
                    success += 2.0 ** -(failing[0] + gone * failing[2]) * (failing[1] - success)
            expected_ms = prior_ms * math.exp(correction)
            estimates.append(made(Estimate, (expected_ms, success, prior_ms, backend.success_rate, evidence)))
        return estimates

    def uncertainty(
        self, backend: Backend, context: Context, size_bytes: int, distance_km: float | None, *, now: float
    ) -> tuple[float, float]:
        """How sure the estimate is: the standard deviations of the natural logarithm of
        the expected time, and of the probability of success.

        Of the logarithm, 0.1 means that 10 % either way is quite possible. A condition that
        may hold or not counts as the mixture that it is.
        """
        past = self._pasts.get(backend.id) or Past(now)
        unheard = self._unheard(past)
        _, share = promise(backend, size_bytes, distance_km)
        level = past.effects.variance(context, share, now=now)
        held = past.speed.held(now, unheard)
        level += held * (past.speed.variance + (1.0 - held) * past.speed.mean**2)
        reach = past.reach(backend)
        held = reach.held(now, unheard)
        usual, rate = moments(*past.record(backend, now))
        rate += held * (reach.variance - rate + (1.0 - held) * (reach.mean - usual) ** 2)
        return math.sqrt(level), math.sqrt(rate)

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
        """One estimate out of all that the evidence still allows (Thompson, "On the
        likelihood that one unknown probability exceeds another", 1933)."""
        past, evidence = self._pasts.get(backend.id), Evidence()
        if past is None:
            past = Past(now)
        else:
            evidence = past.standing(backend, context, now).evidence
        unheard = self._unheard(past)
        prior_ms, share = promise(backend, size_bytes, distance_km)
        if 0 < len(past.transfers) < CONVINCING and random.random() < UNCONVINCED:
            past = Past(now)
        correction = past.effects.total(context, share, math.log1p(inflight))
        variance = past.effects.variance(context, share, now=now)
        if _holds(past.speed.held(now, unheard), random):
            correction += past.speed.mean
            variance += past.speed.variance
        reach = past.reach(backend)
        rate = reach.mean, reach.variance
        if not _holds(reach.held(now, unheard), random):
            rate = moments(*past.record(backend, now))
        return Estimate(
            prior_ms * math.exp(random.gauss(correction, math.sqrt(variance))),
            min(max(random.gauss(rate[0], math.sqrt(rate[1])), LEAST_RATE), 1.0 - LEAST_RATE),
            prior_ms,
            backend.success_rate,
            evidence,
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
        """Learns from one outcome. Failures, and outcomes without a duration, say nothing
        about speed. `inflight` is what was under way when it began."""
        transfer = None
        if success and duration_ms is not None:
            promised_ms, share = promise(backend, size_bytes or ASSUMED_SIZE_BYTES, distance_km)
            residual = math.log(duration_ms / promised_ms)
            residual = max(-LARGEST_RESIDUAL, min(LARGEST_RESIDUAL, residual))
            transfer = Transfer(at, residual, share, context, math.log1p(inflight))
        past = self._pasts.get(backend.id)
        if past is None:
            past = self._pasts[backend.id] = Past(at, self._decisions)
        if transfer is not None:
            transfer = transfer._replace(unheard=self._unheard(past))
        past.note(backend, success, transfer, at=at, decisions=self._decisions)

    def snapshot(self) -> dict[str, Any]:
        """{backend: its past}."""
        return {name: past.snapshot(self._decisions) for name, past in self._pasts.items()}

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Adds the pasts of a snapshot to ours."""
        for name, theirs in snapshot.items():
            past = self._pasts.get(name)
            if past is None:
                past = self._pasts[name] = Past(theirs["record"][0], self._decisions - theirs["unheard"])
            past.merge(theirs, self._decisions)

    def _unheard(self, past: Past) -> int:
        """Decisions since the backend's last outcome."""
        return self._decisions - past.heard_at


def _holds(held: float, random: Random) -> bool:
    """One draw of whether a condition holds now that does so with this probability."""
    return held > 0.0 and random.random() < min(held, 1.0 - DOUBT)
