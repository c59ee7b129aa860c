"""Disturbances: which backend becomes slower or fails, when, and for which requests."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from routing.core.model import Operation
from routing.simulation.scenario import EventRules, Range
from routing.simulation.workload import CONTENT_CLASSES, Request, Workload

MOST_COMMON = 3
"""With `where_best`, a city or type is drawn from this many: each then has enough requests to judge
by, and a seed still has a choice."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which requests a disturbance affects. Empty sets and None mean all."""

    cities: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    operation: Operation | None = None
    min_bytes: float = 0.0

    def holds(self, request: Request) -> bool:
        """Whether the request is among them."""
        return (
            (not self.cities or request.city in self.cities)
            and (not self.types or request.query.content_type in self.types)
            and self.operation in (None, request.query.operation)
            and request.query.size_bytes >= self.min_bytes
        )


EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One backend is slower or fails for a while.

    It affects requests in its scope with indices from `first` up to but not including `last`;
    `begins_at` and `ends_at` are the same bounds in Unix seconds.
    """

    backend_id: str
    title: str
    first: int
    last: int
    begins_at: float
    ends_at: float
    slower: float = 1.0
    fails: float = 0.0
    adds_ms: float = 0.0
    gradually: bool = False
    scope: Scope = EVERYTHING

    @property
    def whole(self) -> bool:
        """Whether it affects all requests, at full strength from the start."""
        return not (self.gradually or self.partial)

    @property
    def partial(self) -> bool:
        """Whether it spares some requests: a gray failure."""
        return self.scope != EVERYTHING

    @property
    def harmless(self) -> bool:
        """Whether it changes nothing."""
        return self.slower == 1.0 and self.fails <= 0.0 and self.adds_ms <= 0.0

    @property
    def summary(self) -> str:
        """Short description for pictures."""
        words = [f"{self.slower:.1f} times as long"] if self.slower != 1.0 else []
        words += [f"{self.adds_ms / 1e3:.1f} s longer"] if self.adds_ms else []
        return ", ".join([*words, f"{self.fails:.0%} fail"] if self.fails else words)

    def affects(self, request: Request) -> bool:
        """Whether this request is affected."""
        return self.first <= request.index < self.last and self.scope.holds(request)

    def strength(self, request: Request) -> tuple[float, float, float]:
        """Factor on the duration, added delay in ms, and the share of successes that become failures."""
        if not self.gradually:
            return self.slower, self.adds_ms, self.fails
        grown = (request.index - self.first) / (self.last - self.first)
        return self.slower**grown, self.adds_ms * grown, self.fails * grown


def disturbances(
    rules: EventRules,
    title: str,
    backend_id: str,
    workload: Workload,
    best_for: Sequence[Request],
    random: Random,
) -> Iterator[Disturbance]:
    """Draws the event's disturbances of this backend, in order of time.

    `best_for` is a sample of the requests for which the backend is best.
    """
    requests = workload.requests
    scope = _scope(rules, workload, best_for if rules.where_best else (), random)
    begins = drawn(rules.starts, random)
    while begins < 1.0:
        ends = min(begins + drawn(rules.lasts, random), 1.0)
        first, last = (round(share * len(requests)) for share in (begins, ends))
        # Uniform in the logarithm: twice as slow and twice as fast are equally likely.
        slower = math.exp(drawn((math.log(rules.slower[0]), math.log(rules.slower[1])), random))
        fails = drawn(rules.fails, random)
        adds_ms = drawn(rules.adds_ms, random) if rules.adds_ms[1] else 0.0
        if first < last:
            ends_at = requests[last].at if last < len(requests) else requests[-1].at
            yield Disturbance(
                backend_id,
                title,
                first,
                last,
                requests[first].at,
                ends_at,
                slower,
                fails,
                adds_ms,
                rules.gradually,
                scope,
            )
        if rules.pauses is None:
            break
        begins = ends + max(drawn(rules.pauses, random), 1.0 / len(requests))


def drawn(span: Range, random: Random) -> float:
    """Draws a number from the range."""
    return random.uniform(*span)


def _scope(rules: EventRules, workload: Workload, best_for: Sequence[Request], random: Random) -> Scope:
    types = [one.content_type for one in CONTENT_CLASSES]
    cities = round(drawn(rules.cities, random) * len(workload.cities))
    return Scope(
        _some(workload.cities, cities, (request.city for request in best_for), random),
        _some(types, rules.types or len(types), (one.query.content_type for one in best_for), random),
        None if rules.operation == "any" else Operation(rules.operation),
        drawn(rules.min_bytes, random) if rules.min_bytes[1] else 0.0,
    )


def _some(names: Sequence[str], count: int, often: Iterable[str], random: Random) -> frozenset[str]:
    """Draws `count` of the names, from the MOST_COMMON in `often` if there are any; the empty set
    stands for all."""
    common = [name for name, _ in Counter(often).most_common(max(MOST_COMMON, count))]
    if common and count < len(names):
        return frozenset(random.sample(common, min(max(count, 1), len(common))))
    return frozenset() if count >= len(names) else frozenset(random.sample(names, max(count, 1)))
