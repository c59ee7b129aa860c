"""The table of policies: our strategies, the peers and the clairvoyant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from routing.core.factors import FACTORS
from routing.core.model import Decision, Outcome
from routing.core.router import Router
from routing.core.scoring import STRATEGIES
from routing.errors import InvalidArgument, listed
from routing.simulation.bandits import DiscountedUcb, LinUcb
from routing.simulation.peers import LeastTime, OutlierEjection, PeakEwma, RoundRobin, Static, Uniform
from routing.simulation.play import Play, Policy, PolicyFactory, Report
from routing.simulation.workload import Request


class LocalStrategy:
    """One of our strategies, in a router in this process. `decision` is the latest one."""

    def __init__(self, play: Play, random: Random, strategy: str) -> None:
        world = play.world
        self.router = Router(
            world.profiles, random=random, weights=dict(zip(FACTORS, world.weights, strict=True))
        )
        self.decision: Decision | None = None
        self._strategy = strategy
        self._names_matter = bool(world.newcomers)

    def choose(self, request: Request, names: Sequence[str]) -> str:
        query = request.query._replace(
            strategy=self._strategy,
            available_backends=tuple(names) if self._names_matter else (),
        )
        self.decision = self.router.select(query, now=request.at)
        return self.decision.chosen.backend_id

    def learn(self, report: Report) -> None:
        outcome = Outcome(
            report.backend_id,
            report.success,
            duration_ms=report.duration_ms,
            request_id=report.request.query.request_id,
        )
        self.router.record(outcome, now=report.ended_at)


class Clairvoyant:
    """Knows the truth of the moment but not the luck; regret is measured against it."""

    def __init__(self, play: Play, random: Random) -> None:  # noqa: ARG002 - as the others
        self._play = play

    def choose(self, request: Request, names: Sequence[str]) -> str:
        utilities = self._play.utilities(request)
        return names[max(range(len(names)), key=utilities.__getitem__)]

    def learn(self, report: Report) -> None:
        """Learns nothing: it knows the truth."""


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A row of POLICIES."""

    name: str
    help: str
    make: PolicyFactory


def _strategy(name: str) -> PolicyFactory:
    return lambda play, random: LocalStrategy(play, random, name)


STRATEGY_POLICIES = tuple(
    PolicyRow(strategy.name, f"ours: {strategy.help}", _strategy(strategy.name))
    for strategy in STRATEGIES.values()
)

POLICIES: Mapping[str, PolicyRow] = MappingProxyType(
    {
        row.name: row
        for row in (
            *STRATEGY_POLICIES,
            PolicyRow("static", "static rules from the profiles", Static),
            PolicyRow("peak-ewma", "the faster of two at random, as Finagle", PeakEwma),
            PolicyRow("least-time", "EWMA latency times operations in flight", LeastTime),
            PolicyRow("ejection", "least request and outlier ejection, as Envoy", OutlierEjection),
            PolicyRow("ducb", "discounted UCB on what the rules leave unexplained", DiscountedUcb),
            PolicyRow("linucb", "LinUCB on the same residuals, from MABWiser; needs the extra peers", LinUcb),
            PolicyRow("round-robin", "one after the other", RoundRobin),
            PolicyRow("random", "uniformly random", Uniform),
            PolicyRow("clairvoyant", "knows the truth of the moment, but not the luck", Clairvoyant),
        )
    }
)
"""All policies: our strategies, then the peers."""


def make(name: str, play: Play, random: Random) -> Policy:
    """Makes the policy of this name for this play."""
    if name not in POLICIES:
        raise InvalidArgument("policy", name, f"one of {listed(POLICIES)}")
    return POLICIES[name].make(play, random)
