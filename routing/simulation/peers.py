"""Load balancers of other systems, each built after its source, to compare with."""

import math
from collections import Counter, deque
from collections.abc import Sequence
from random import Random

from routing.core.factors import FACTORS
from routing.core.geography import distance_km, place
from routing.core.learning.estimates import prior_duration
from routing.core.model import ASSUMED_SIZE_BYTES, Backend, Candidate, Estimate
from routing.simulation.play import Play, Report
from routing.simulation.workload import Request


class Uniform:
    """Chooses uniformly at random."""

    def __init__(self, play: Play, random: Random) -> None:  # noqa: ARG002 - as the others
        self._random = random

    def choose(self, request: Request, names: Sequence[str]) -> str:  # noqa: ARG002
        return names[self._random.randrange(len(names))]

    def learn(self, report: Report) -> None:
        """Learns nothing."""


class RoundRobin:
    """Cycles through the backends."""

    def __init__(self, play: Play, random: Random) -> None:  # noqa: ARG002 - as the others
        self._turn = -1

    def choose(self, request: Request, names: Sequence[str]) -> str:  # noqa: ARG002
        self._turn += 1
        return names[self._turn % len(names)]

    def learn(self, report: Report) -> None:
        """Learns nothing."""


class Static:
    """Static rules from the profiles: the contract's weighted sum without learning."""

    def __init__(self, play: Play, random: Random) -> None:  # noqa: ARG002 - as the others
        self._sums = ProfileScores(play)

    def choose(self, request: Request, names: Sequence[str]) -> str:
        return max(names, key=lambda name: self._sums.score(request, name))

    def learn(self, report: Report) -> None:
        """Learns nothing."""


class OperationsInFlight:
    """Counts operations in flight. A balancer in the data path sees every end; here some outcomes
    are never reported, and their operations count as ended after LONGEST_S."""

    LONGEST_S = 60.0

    def __init__(self) -> None:
        self._begun: dict[str, deque[float]] = {}

    def begin(self, name: str, at: float) -> None:
        """Counts an operation that starts."""
        self._begun.setdefault(name, deque()).append(at)

    def end(self, name: str) -> None:
        """Removes the oldest operation, since they are indistinguishable."""
        if self._begun[name]:
            self._begun[name].popleft()

    def count(self, name: str, now: float) -> int:
        """Operations in flight at `now`."""
        begun = self._begun.get(name)
        while begun and begun[0] < now - self.LONGEST_S:
            begun.popleft()
        return len(begun) if begun else 0


class PeakEwma:
    """Power of two choices by peak-EWMA latency × (in flight + 1), with failure accrual
    (Twitter's Finagle: `p2cPeakEwma`, `FailureAccrualFactory`).

    A latency above the average replaces it at once, one below it lowers it slowly. Finagle
    decays over 10 seconds, at thousands of requests a second; here that is TURNS decisions.
    The initial latency is the profile's for 1 MiB. Tuned on other seeds: 10 and 200 turns
    give the same regret.
    """

    TURNS = 50.0
    FAILURES = 5
    DEAD_FOR = 50

    def __init__(self, play: Play, random: Random) -> None:
        self._sums = ProfileScores(play)
        self._random = random
        self._turn = 0
        self._ewma_ms: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        self._pending = OperationsInFlight()
        self._failed: Counter[str] = Counter()
        self._dead_until: dict[str, int] = {}

    def choose(self, request: Request, names: Sequence[str]) -> str:
        self._turn += 1
        alive = [name for name in names if self._dead_until.get(name, 0) <= self._turn] or list(names)
        two = self._random.sample(alive, min(2, len(alive)))
        chosen = min(
            two, key=lambda name: self._latency_ms(name) * (self._pending.count(name, request.at) + 1)
        )
        self._pending.begin(chosen, request.at)
        return chosen

    def learn(self, report: Report) -> None:
        name = report.backend_id
        self._pending.end(name)
        self._failed[name] = 0 if report.success else self._failed[name] + 1
        if self._failed[name] >= self.FAILURES:
            self._dead_until[name] = self._turn + self.DEAD_FOR
        before = self._latency_ms(name)
        kept = math.exp(-(self._turn - self._seen.get(name, self._turn - 1)) / self.TURNS)
        self._seen[name] = self._turn
        took = float(report.duration_ms)
        self._ewma_ms[name] = took if took > before else kept * before + (1.0 - kept) * took

    def _latency_ms(self, name: str) -> float:
        known = self._ewma_ms.get(name)
        return (
            prior_duration(self._sums.profile(name), ASSUMED_SIZE_BYTES, None)[0] if known is None else known
        )


class LeastTime:
    """The least expected completion time: the EWMA of a backend's latencies × (in flight + 1),
    over all backends (as `least_time` of NGINX Plus, and Envoy's peak-EWMA without the peak).

    Each outcome moves the average by WEIGHT; the first replaces the profile's latency. A failure
    counts as PENALTY times the average, at least, so that failing fast attracts no traffic.
    Tuned on other seeds: in the scenarios queues and busy-queues the mean time is 68 and 86 ms
    with a WEIGHT of 0.02, 68 and 89 with 0.05, 85 and 97 with 0.1, 139 and 147 with 0.3.
    """

    WEIGHT = 0.05
    PENALTY = 2.0

    def __init__(self, play: Play, random: Random) -> None:  # noqa: ARG002 - as the others
        self._sums = ProfileScores(play)
        self._ewma_ms: dict[str, float] = {}
        self._inflight = OperationsInFlight()

    def choose(self, request: Request, names: Sequence[str]) -> str:
        chosen = min(
            names,
            key=lambda name: self._latency_ms(name) * (self._inflight.count(name, request.at) + 1),
        )
        self._inflight.begin(chosen, request.at)
        return chosen

    def learn(self, report: Report) -> None:
        name = report.backend_id
        self._inflight.end(name)
        before = self._latency_ms(name)
        took = float(report.duration_ms)
        if not report.success:
            took = max(took, before * self.PENALTY)
        weight = self.WEIGHT if name in self._ewma_ms else 1.0
        self._ewma_ms[name] = before + weight * (took - before)

    def _latency_ms(self, name: str) -> float:
        known = self._ewma_ms.get(name)
        return self._sums.profile(name).latency_ms if known is None else known


class OutlierEjection:
    """Weighted least request among the backends with the best static scores, without ejected
    ones (Envoy: `least_request`, `outlier_detection`).

    The scores of Static are the priorities that an operator could configure: backends within
    NEAR of the best score share the load by their active requests. Envoy ejects a host after
    5 consecutive failures, for 30 seconds times the number of ejections, and hosts whose
    success rate is far below the others'; here an ejection lasts EJECTED decisions times
    their number, and at most MOST_EJECTED. At most MOST_SHARE of the backends are ejected, though
    always one; Envoy's 10 % is for large clusters. With 19 of 20 dead the limit costs 0.33 of
    regret, since two stay. Tuned on other seeds: 3 failures or 5 give the
    same regret; a NEAR of 0.05 spreads the load over worse backends (mean regret 0.36 instead
    of 0.21).
    """

    NEAR = 0.01
    FAILURES = 3
    EJECTED, MOST_EJECTED = 40, 400
    MOST_SHARE = 0.9
    OBSERVED, LEAST_SUCCESS = 20, 0.7

    def __init__(self, play: Play, random: Random) -> None:  # noqa: ARG002 - as the others
        self._sums = ProfileScores(play)
        self._turn = 0
        self._active = OperationsInFlight()
        self._known = len(play.world.profiles)
        self._failed: Counter[str] = Counter()
        self._ejections: Counter[str] = Counter()
        self._until: dict[str, int] = {}
        self._last: dict[str, deque[bool]] = {}

    def choose(self, request: Request, names: Sequence[str]) -> str:
        self._turn += 1
        healthy = [name for name in names if self._until.get(name, 0) <= self._turn] or list(names)
        active = {name: self._active.count(name, request.at) for name in healthy}
        scores = {name: self._sums.score(request, name, inflight=active[name]) for name in healthy}
        best = max(scores.values())
        preferred = [name for name in healthy if scores[name] >= best - self.NEAR]
        chosen = min(preferred, key=lambda name: (active[name] + 1) / scores[name])
        self._active.begin(chosen, request.at)
        return chosen

    def learn(self, report: Report) -> None:
        name = report.backend_id
        self._active.end(name)
        last = self._last.setdefault(name, deque(maxlen=self.OBSERVED))
        last.append(report.success)
        self._failed[name] = 0 if report.success else self._failed[name] + 1
        poor = len(last) == self.OBSERVED and sum(last) < self.LEAST_SUCCESS * self.OBSERVED
        if (self._failed[name] >= self.FAILURES or poor) and self._may_eject():
            # As in Envoy, the multiplier falls again with every interval without an ejection.
            calm = (self._turn - self._until.get(name, 0)) // self.EJECTED
            self._ejections[name] = max(self._ejections[name] - calm, 0) + 1
            lasting = min(self.EJECTED * self._ejections[name], self.MOST_EJECTED)
            self._until[name] = self._turn + lasting
            self._failed[name] = 0
            last.clear()

    def _may_eject(self) -> bool:
        ejected = sum(until > self._turn for until in self._until.values())
        return ejected + 1 <= max(self.MOST_SHARE * self._known, 1)


class ProfileScores:
    """The contract's weighted sum, computed from the profiles."""

    def __init__(self, play: Play) -> None:
        self._profiles = {one.id: one for one in play.world.profiles}
        self._weights = dict(zip(FACTORS, play.world.weights, strict=True))
        # Cache by request and backend: an outcome needs what its decision needed.
        self._promises: dict[tuple[int, str], tuple[Candidate, float]] = {}

    def profile(self, name: str) -> Backend:
        """The profile; for an unknown name the contract's neutral one."""
        known = self._profiles.get(name)
        if known is None:
            known = self._profiles[name] = Backend(name, discovered=True)
        return known

    def promised_ms(self, request: Request, name: str) -> float:
        """The duration that the profile implies."""
        return self._promise(request, name)[0].estimate.expected_ms

    def score(
        self,
        request: Request,
        name: str,
        *,
        slower: float = 1.0,
        success: float | None = None,
        inflight: int = 0,
    ) -> float:
        """The weighted sum with learned values in place of the profile's: the factor on the
        duration, the probability of success (None: the profile's), operations in flight."""
        candidate, score = self._promise(request, name)
        if slower == 1.0 and success is None and not inflight:
            return score
        promised = candidate.estimate
        chance = promised.success_probability if success is None else success
        estimate = promised._replace(expected_ms=promised.expected_ms * slower, success_probability=chance)
        learned = candidate._replace(estimate=estimate, inflight=inflight)
        return score + sum(
            self._weights[name] * (factor(request.query, learned) - factor(request.query, candidate))
            for name, factor in _LEARNED.items()
        )

    def _promise(self, request: Request, name: str) -> tuple[Candidate, float]:
        known = self._promises.get((request.index, name))
        if known is None:
            candidate = self._candidate(request, name)
            score = sum(
                self._weights[factor.name] * factor.score(request.query, candidate)
                for factor in FACTORS.values()
            )
            known = self._promises[request.index, name] = candidate, score
        return known

    def _candidate(self, request: Request, name: str) -> Candidate:
        profile, here = self.profile(name), request.query.location
        distance = None
        if (
            profile.latitude is not None
            and profile.longitude is not None
            and here is not None
            and here.latitude is not None
            and here.longitude is not None
        ):
            distance = distance_km(
                place(here.latitude, here.longitude), place(profile.latitude, profile.longitude)
            )
        expected_ms = prior_duration(profile, request.query.assumed_bytes, distance)[0]
        estimate = Estimate(expected_ms, profile.success_rate, expected_ms, profile.success_rate)
        return Candidate(profile, estimate, 0, distance)


_LEARNED = {name: FACTORS[name].score for name in ("performance", "reliability", "load")}
"""The factors that depend on what is learned or in flight."""
