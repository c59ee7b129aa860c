"""Runs a policy through a world, request by request, and records its decisions.

An operation is reported when it ends, so there is always work in flight, and a slow failure
is learned late. A play is a fold: the same world, policy and dice give the same play.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, Protocol

from routing.simulation.queues import Queues
from routing.simulation.workload import Request
from routing.simulation.world import World


class Report(NamedTuple):
    """A client's report of one operation, made when it ended."""

    request: Request
    backend_id: str
    success: bool
    duration_ms: int
    ended_at: float


class Policy(Protocol):
    """Makes the decisions: one of our strategies, or a peer."""

    def choose(self, request: Request, names: Sequence[str]) -> str:
        """Returns one of `names`. The time is `request.at`."""

    def learn(self, report: Report) -> None:
        """Takes in the outcome of an earlier decision."""


class JudgedDecision(NamedTuple):
    """One decision with its true utility in [0, 1] under the contract's weights.

    `best` and `mean` are over the backends present; `best_id` is the clairvoyant's choice.
    """

    request: Request
    backend_id: str
    utility: float
    best: float
    mean: float
    best_id: str
    success: bool
    duration_ms: float


class Play:
    """One policy in one world. `decisions` holds one entry per request, `reports` the outcomes
    that were reported before the last request."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.decisions: list[JudgedDecision] = []
        self.reports: list[Report] = []
        self._inflight: Counter[str] = Counter()
        self._queues = Queues(
            (one.id, one.workers) for one in world.backends.values() if one.workers is not None
        )
        # A heap by end time, then by request index.
        self._running: list[tuple[float, int, Report]] = []

    def utilities(self, request: Request) -> Sequence[float]:
        """The true utility of each present backend, including the load of this policy's own
        operations in flight."""
        prospects = self.world.prospects(request)
        if not self._inflight:
            return prospects.utilities
        return self.world.loaded(prospects, self._inflight, request, self._queues.waits_ms(request.at))

    def run(self, policy: Policy, *, progress: Callable[[int], object] = lambda _: None) -> "Play":
        """Plays all requests; calls `progress` with the number done so far."""
        for request in self.world.workload.requests:
            self._end_by(request.at, policy)
            self._decide(request, policy)
            progress(request.index + 1)
        return self

    def _decide(self, request: Request, policy: Policy) -> None:
        names = self.world.prospects(request).names
        utilities = self.utilities(request)
        chosen = policy.choose(request, names)
        # Ties go to the first name, as in any policy that uses max over the names.
        best = max(range(len(names)), key=utilities.__getitem__)
        result = self.world.carry_out(request, chosen, self._inflight[chosen])
        duration_ms = result.duration_ms + self._queues.add(chosen, result.duration_ms, request.at)
        self.decisions.append(
            JudgedDecision(
                request,
                chosen,
                utilities[names.index(chosen)],
                utilities[best],
                sum(utilities) / len(utilities),
                names[best],
                result.success,
                duration_ms,
            )
        )
        ended_at = request.at + duration_ms / 1e3
        report = Report(request, chosen, result.success, max(round(duration_ms), 1), ended_at)
        self._inflight[chosen] += 1
        heapq.heappush(self._running, (ended_at, request.index, report))

    def _end_by(self, now: float, policy: Policy) -> None:
        while self._running and self._running[0][0] <= now:
            report = heapq.heappop(self._running)[2]
            if self._inflight[report.backend_id] == 1:
                del self._inflight[report.backend_id]
            else:
                self._inflight[report.backend_id] -= 1
            if report.request.reported:
                self.reports.append(report)
                policy.learn(report)


PolicyFactory = Callable[[Play, Random], Policy]
"""Makes a policy for a play. Only the clairvoyant reads more of it than `world.profiles`."""
