"""Balancers as others build them, each after its source, to compare ours with."""

from collections.abc import Sequence
from random import Random

from routing.core.factors import FACTORS
from routing.core.geography import distance_km, place
from routing.core.learning import promise
from routing.core.model import Backend, Candidate, Estimate
from routing.simulation.harness import Play, Report
from routing.simulation.workload import Request


class Uniform:
    """Any backend as likely as any other."""

    def __init__(self, play: Play, random: Random) -> None:  # noqa: ARG002 - as the others
        self._random = random

    def choose(self, request: Request, names: Sequence[str]) -> str:  # noqa: ARG002
        return names[self._random.randrange(len(names))]

    def learn(self, report: Report) -> None:
        """Nothing."""


class RoundRobin:
    """One after the other."""

    def __init__(self, play: Play, random: Random) -> None:  # noqa: ARG002 - as the others
        self._turn = -1

    def choose(self, request: Request, names: Sequence[str]) -> str:  # noqa: ARG002
        self._turn += 1
        return names[self._turn % len(names)]

    def learn(self, report: Report) -> None:
        """Nothing."""


class Static:
    """Rules that somebody wrote from the profiles: the contract's weighted sum, nothing learned."""

    def __init__(self, play: Play, random: Random) -> None:  # noqa: ARG002 - as the others
        self._sums = Sums(play)

    def choose(self, request: Request, names: Sequence[str]) -> str:
        return max(names, key=lambda name: self._sums.score(request, name))

    def learn(self, report: Report) -> None:
        """Nothing."""


class Sums:
    """The contract's weighted sum as anybody can reckon it, from the profiles."""

    def __init__(self, play: Play) -> None:
        self._profiles = {one.id: one for one in play.world.profiles}
        self._weights = play.world.weights
        self._places = {
            one.id: place(one.latitude, one.longitude)
            for one in play.world.profiles
            if one.latitude is not None and one.longitude is not None
        }

    def profile(self, name: str) -> Backend:
        """The profile; of an unknown name the contract's neutral one."""
        known = self._profiles.get(name)
        if known is None:
            known = self._profiles[name] = Backend(name)
        return known

    def promised_ms(self, request: Request, name: str) -> float:
        """What the profile says that the operation takes."""
        return promise(self.profile(name), request.query.assumed_bytes, self._distance_km(request, name))[0]

    def score(
        self,
        request: Request,
        name: str,
        *,
        slower: float = 1.0,
        success: float | None = None,
        inflight: int = 0,
    ) -> float:
        """With what was learned put in: how many times slower than promised, and the
        probability of success (None: the profile's)."""
        profile = self.profile(name)
        expected_ms = self.promised_ms(request, name) * slower
        chance = profile.success_rate if success is None else success
        estimate = Estimate(expected_ms, chance, expected_ms, chance)
        candidate = Candidate(profile, estimate, inflight, self._distance_km(request, name))
        scores = (factor.score(request.query, candidate) for factor in FACTORS.values())
        return sum(weight * score for weight, score in zip(self._weights, scores, strict=True))

    def _distance_km(self, request: Request, name: str) -> float | None:
        here, there = request.query.location, self._places.get(name)
        if there is None or here is None or here.latitude is None or here.longitude is None:
            return None
        return distance_km(place(here.latitude, here.longitude), there)
