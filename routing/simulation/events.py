"""Disturbances: which backend becomes slower or fails, when, and for which requests."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from routing.simulation.scenario import EventRules, Range
from routing.simulation.workload import CONTENT_CLASSES, Request, Workload


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One backend is slower or fails for a while.

    It affects the requests with indices from `first` up to but not including `last`;
    `begins_at` and `ends_at` are the same bounds in Unix seconds. Empty `cities` or `types`
    mean all.
    """

    backend_id: str
    title: str
    first: int
    last: int
    begins_at: float
    ends_at: float
    slower: float = 1.0
    fails: float = 0.0
    gradually: bool = False
    cities: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """Whether it affects all requests, at full strength from the start."""
        return not (self.gradually or self.cities or self.types)

    @property
    def summary(self) -> str:
        """Short description for pictures."""
        words = [f"{self.slower:.1f} times as long"] if self.slower != 1.0 else []
        return ", ".join([*words, f"{self.fails:.0%} fail"] if self.fails else words)

    def affects(self, request: Request) -> bool:
        """Whether this request is affected."""
        return (
            self.first <= request.index < self.last
            and (not self.cities or request.city in self.cities)
            and (not self.types or request.query.content_type in self.types)
        )

    def strength(self, request: Request) -> tuple[float, float]:
        """Factor on the duration, and the share of successes that become failures."""
        if not self.gradually:
            return self.slower, self.fails
        grown = (request.index - self.first) / (self.last - self.first)
        return self.slower**grown, self.fails * grown


def disturbances(
    rules: EventRules, title: str, backend_id: str, workload: Workload, random: Random
) -> Iterator[Disturbance]:
    """Draws the event's disturbances of this backend, in order of time."""
    requests = workload.requests
    cities = _some(workload.cities, round(drawn(rules.cities, random) * len(workload.cities)), random)
    types = _some(
        [kind.content_type for kind in CONTENT_CLASSES], rules.types or len(CONTENT_CLASSES), random
    )
    begins = drawn(rules.starts, random)
    while begins < 1.0:
        ends = min(begins + drawn(rules.lasts, random), 1.0)
        first, last = (round(share * len(requests)) for share in (begins, ends))
        # Uniform in the logarithm: twice as slow and twice as fast are equally likely.
        slower = math.exp(drawn((math.log(rules.slower[0]), math.log(rules.slower[1])), random))
        fails = drawn(rules.fails, random)
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
                rules.gradually,
                cities,
                types,
            )
        if rules.pauses is None:
            break
        begins = ends + max(drawn(rules.pauses, random), 1.0 / len(requests))


def drawn(span: Range, random: Random) -> float:
    """Draws a number from the range."""
    return random.uniform(*span)


def _some(names: Sequence[str], count: int, random: Random) -> frozenset[str]:
    """Draws `count` of the names; the empty set stands for all."""
    return frozenset() if count >= len(names) else frozenset(random.sample(names, max(count, 1)))
