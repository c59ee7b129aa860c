"""Plays a policy through a world, one request after the other, and notes what it did.

An operation is reported when it ends, so there is always work in flight, and a slow
failure is learned of late. A play is a fold: the same world, policy and dice give the
same play.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, Protocol

from routing.simulation.workload import Request
from routing.simulation.world import World


class Report(NamedTuple):
    """What a client tells about one operation when it has ended, at `ended_at`."""

    request: Request
    backend_id: str
    success: bool
    duration_ms: int
    ended_at: float


class Policy(Protocol):
    """Whoever decides: a strategy of ours, or a peer."""

    def choose(self, request: Request, names: Sequence[str]) -> str:
        """One of these backends, at `request.at`."""

    def learn(self, report: Report) -> None:
        """Takes in what became of an earlier choice."""


class JudgedDecision(NamedTuple):
    """One decision, and how good it was: utilities in [0, 1] under the contract's weights.

    `best` and `mean` are over the backends that there were; `best_id` is the clairvoyant's.
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
    """One policy in one world. `choices` grows with the requests; `reports` with the outcomes
    that were reported before the last of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.decisions: list[JudgedDecision] = []
        self.reports: list[Report] = []
        self._inflight: Counter[str] = Counter()
        # By the time when they end, then by the number of the request.
        self._under_way: list[tuple[float, int, Report]] = []

    def utilities(self, request: Request) -> Sequence[float]:
        """What each backend that is there is worth now, this policy's own work in flight
        counted in."""
        prospects = self.world.prospects(request)
        if not self._inflight:
            return prospects.utilities
        return self.world.loaded(prospects, self._inflight, request)

    def run(self, policy: Policy, *, progress: Callable[[int], object] = lambda _: None) -> "Play":
        """All requests of the world, in turn; `progress` is told how many are done."""
        for request in self.world.workload.requests:
            self._end_by(request.at, policy)
            self._decide(request, policy)
            progress(request.index + 1)
        return self

    def _decide(self, request: Request, policy: Policy) -> None:
        names = self.world.prospects(request).names
        utilities = self.utilities(request)
        chosen = policy.choose(request, names)
        # max takes the first of equals, and so does whoever breaks ties by the order of names.
        best = max(range(len(names)), key=utilities.__getitem__)
        deed = self.world.carry_out(request, chosen, self._inflight[chosen])
        self.decisions.append(
            JudgedDecision(
                request,
                chosen,
                utilities[names.index(chosen)],
                utilities[best],
                sum(utilities) / len(utilities),
                names[best],
                deed.success,
                deed.duration_ms,
            )
        )
        ended_at = request.at + deed.duration_ms / 1e3
        report = Report(request, chosen, deed.success, max(round(deed.duration_ms), 1), ended_at)
        self._inflight[chosen] += 1
        heapq.heappush(self._under_way, (ended_at, request.index, report))

    def _end_by(self, now: float, policy: Policy) -> None:
        while self._under_way and self._under_way[0][0] <= now:
            report = heapq.heappop(self._under_way)[2]
            if self._inflight[report.backend_id] == 1:
                del self._inflight[report.backend_id]
            else:
                self._inflight[report.backend_id] -= 1
            if report.request.reported:
                self.reports.append(report)
                policy.learn(report)


PolicyFactory = Callable[[Play, Random], Policy]
"""Makes a policy for a play. Only the clairvoyant looks at more of it than `world.profiles`."""
