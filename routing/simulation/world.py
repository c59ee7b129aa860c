"""A world: the true behaviour of the backends, the requests, and the disturbances."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from routing.core.factors import FACTORS
from routing.core.geography import Place, distance_km, place
from routing.core.model import Backend, Candidate, Estimate
from routing.core.scoring import Weights
from routing.errors import NoEligibleBackend
from routing.simulation.events import Disturbance
from routing.simulation.scenario import Range, Scenario, WorldRules
from routing.simulation.true_backend import TrueBackend
from routing.simulation.workload import Request, Workload


class Luck(NamedTuple):
    """Random numbers of one request on one backend. `spread` is standard normal, the others
    are uniform in [0, 1)."""

    spread: float
    stall: float
    stalled: float
    failure: float
    failed_at: float


def luck(seed: str, request: int, backend_id: str) -> Luck:
    """A function of its three arguments, so that all policies meet the same luck.

    >>> luck("0", 7, "s3") == luck("0", 7, "s3"), luck("0", 7, "s3") == luck("0", 8, "s3")
    (True, False)
    """
    dice = Random(f"{seed}/{request}/{backend_id}")
    return Luck(dice.gauss(0.0, 1.0), *(dice.random() for _ in range(4)))


STALL: Range = (3.0, 20.0)
"""Range of the factor on the duration of a stalled transfer."""


def pareto(exponent: float, spread: float) -> float:
    """A Pareto number with median 1, from a standard normal one.

    >>> pareto(1.5, 0.0), round(pareto(1.5, 3.0))
    (1.0, 52)
    """
    # erfc keeps its precision where 1 - cdf would be 0.
    return math.pow(math.erfc(spread / math.sqrt(2.0)), -1.0 / exponent)


def mean_pareto(exponent: float) -> float:
    """The mean of `pareto`."""
    return exponent / (exponent - 1.0) / math.pow(2.0, 1.0 / exponent)


def mean_stall(rules: WorldRules) -> float:
    """Mean factor of stalls on durations."""
    return 1.0 + rules.stalls * (sum(STALL) / 2.0 - 1.0)


_PERFORMANCE, _LOAD = FACTORS["performance"].score, FACTORS["load"].score


class Prospects(NamedTuple):
    """The truth about one request on every present backend, with nothing in flight.

    Per name: a candidate whose estimate is the true one, the median duration, and the utility
    in [0, 1], which is the contract's weighted sum of factors. `client` is a factor on the
    durations for this client's own network at that moment; no policy can know it.
    """

    names: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    usual_ms: tuple[float, ...]
    client: float
    utilities: tuple[float, ...]


class OperationResult(NamedTuple):
    """Whether one operation succeeds, and how long it takes."""

    success: bool
    duration_ms: float


class World:
    """One scenario drawn with one seed. Nothing in it depends on what a policy does.

    `newcomers` maps a backend to the index of the first request that may use it.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        workload: Workload,
        backends: Iterable[TrueBackend],
        *,
        disturbances: Iterable[Disturbance] = (),
        newcomers: Mapping[str, int] = MappingProxyType({}),
        weights: Weights,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.workload = workload
        self.backends = {one.id: one for one in backends}
        self.disturbances = tuple(disturbances)
        self.newcomers = newcomers
        self.weights = weights
        self._weight_of = dict(zip(FACTORS, weights, strict=True))
        self._places = {one.id: _place(one.profile) for one in self.backends.values()}
        # Every policy is judged by the same prospects; bounded by the number of requests.
        self._prospects: dict[int, Prospects] = {}
        tail = scenario.world.tail
        self._tail = None if tail is None else Random(f"{self.key}/tail").uniform(*tail)

    def __repr__(self) -> str:
        return f"World({self.key}, backends={len(self.backends)}, requests={len(self.workload.requests)})"

    @property
    def key(self) -> str:
        """Seed string of all random numbers in this world."""
        return f"{self.scenario.name}/{self.seed}"

    @property
    def profiles(self) -> tuple[Backend, ...]:
        """The profiles that policies start with; newcomers have none."""
        return tuple(one.profile for one in self.backends.values() if one.id not in self.newcomers)

    def present(self, request: Request) -> Iterator[TrueBackend]:
        """The backends that exist at this request and accept its size."""
        for one in self.backends.values():
            limit = one.profile.max_object_bytes
            if self.newcomers.get(one.id, 0) <= request.index and (
                limit is None or request.query.size_bytes <= limit
            ):
                yield one

    def prospects(self, request: Request) -> Prospects:
        """The truth about this request, computed once and cached."""
        known = self._prospects.get(request.index)
        if known is None:
            known = self._prospects[request.index] = self.compute_prospects(request)
        return known

    def loaded(
        self,
        prospects: Prospects,
        inflight: Mapping[str, int],
        request: Request,
        waits_ms: Mapping[str, float] = MappingProxyType({}),
    ) -> Sequence[float]:
        """Utilities with these numbers of operations in flight, and these waits in queues."""
        utilities = list(prospects.utilities)
        performance, load = self._weight_of["performance"], self._weight_of["load"]
        for index, (name, candidate) in enumerate(zip(prospects.names, prospects.candidates, strict=True)):
            count = inflight.get(name, 0)
            if count:
                slowed = candidate.estimate._replace(
                    expected_ms=candidate.estimate.expected_ms * self.slowed(name, count)
                    + waits_ms.get(name, 0.0)
                )
                busy = candidate._replace(estimate=slowed, inflight=count)
                utilities[index] += performance * (
                    _PERFORMANCE(request.query, busy) - _PERFORMANCE(request.query, candidate)
                ) + load * (_LOAD(request.query, busy) - _LOAD(request.query, candidate))
        return utilities

    def slowed(self, name: str, inflight: int) -> float:
        """Factor on the duration of an operation that starts with `inflight` others in flight."""
        slows_at = self.backends[name].slows_at
        return 1.0 if slows_at is None else 1.0 + inflight / slows_at

    def carry_out(self, request: Request, name: str, inflight: int) -> OperationResult:
        """Result of the request on this backend; the same for every policy that chooses it."""
        prospects = self.prospects(request)
        index = prospects.names.index(name)
        dice = luck(self.key, request.index, name)
        usual_ms = prospects.usual_ms[index] * prospects.client * self.slowed(name, inflight)
        if dice.failure >= prospects.candidates[index].estimate.success_probability:
            return OperationResult(False, usual_ms * dice.failed_at)
        return OperationResult(True, usual_ms * self._spread(self.backends[name], dice))

    def _spread(self, backend: TrueBackend, dice: Luck) -> float:
        stalled = dice.stall < self.scenario.world.stalls
        hung = STALL[0] + (STALL[1] - STALL[0]) * dice.stalled if stalled else 1.0
        if self._tail is not None:
            return pareto(self._tail, dice.spread) * hung
        return math.exp(backend.sigma * dice.spread) * hung

    def compute_prospects(self, request: Request) -> Prospects:
        """The truth about this request, which need not be one of the workload's."""
        rules = self.scenario.world
        active = [one for one in self.disturbances if one.affects(request)]
        names, candidates, usual = [], [], []
        for one in self.present(request):
            usual_ms, success = one.usual_ms(request), 1.0 - one.failure_rate
            for disturbance in active:
                if disturbance.backend_id == one.id:
                    slower, adds_ms, fails = disturbance.strength(request)
                    usual_ms = usual_ms * slower + adds_ms
                    success *= 1.0 - fails
            # The mean of a lognormal or Pareto distribution lies above its median.
            expected_ms = usual_ms * math.exp((one.sigma**2 + rules.client_spread**2) / 2.0)
            if self._tail is not None:
                expected_ms = usual_ms * math.exp(rules.client_spread**2 / 2.0) * mean_pareto(self._tail)
            expected_ms *= mean_stall(rules)
            names.append(one.id)
            usual.append(usual_ms)
            truth = Estimate(expected_ms, success, expected_ms, success)
            candidates.append(Candidate(one.profile, truth, 0, self._distance_km(request, one.id)))
        if not names:
            size = f"{request.query.size_bytes:,} bytes"
            raise NoEligibleBackend(dict.fromkeys(self.backends, f"does not take an object of {size}"))
        utilities = (self._utility(request, candidate) for candidate in candidates)
        client = math.exp(rules.client_spread * luck(self.key, request.index, "").spread)
        return Prospects(tuple(names), tuple(candidates), tuple(usual), client, tuple(utilities))

    def _utility(self, request: Request, candidate: Candidate) -> float:
        scores = (factor.score(request.query, candidate) for factor in FACTORS.values())
        return sum(weight * score for weight, score in zip(self.weights, scores, strict=True))

    def _distance_km(self, request: Request, name: str) -> float | None:
        here, there = request.query.location, self._places[name]
        if there is None or here is None or here.latitude is None or here.longitude is None:
            return None
        return distance_km(place(here.latitude, here.longitude), there)


def _place(backend: Backend) -> Place | None:
    if backend.latitude is None or backend.longitude is None:
        return None
    return place(backend.latitude, backend.longitude)
