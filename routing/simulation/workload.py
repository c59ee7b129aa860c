"""Generates requests: several content types with heavy-tailed sizes, from clients around the globe."""

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import TypeVar

from routing.core.model import Location, Operation, Query
from routing.simulation.datasets import regions
from routing.simulation.scenario import Range, WorkloadRules

One = TypeVar("One")

START_AT = 1_767_225_600.0
"""Start of every simulated run: 1 January 2026, UTC."""

DAY_S = 86_400.0
DAILY_SWING = 0.6
"""Relative amplitude of the daily cycle: the peak has four times the traffic of the trough, as at
a public site."""

LEAST_BYTES = 200
MOST_BYTES = 5_000_000_000
"""Sizes are clamped to these bounds. 5 GB is the largest object that S3 accepts in one request."""

TAIL_SHARE = 0.02
TAIL_FROM_BYTES = 50_000_000
TAIL_EXPONENT = 1.1
"""One object in fifty is drawn from a Pareto tail. Measured file sizes on the web have exponents
of 1.0 to 1.3 (Crovella and Bestavros, "Self-similarity in World Wide Web traffic", 1997)."""

CITY_SPREAD_DEGREES = 1.0
"""Standard deviation of client positions within a city, about 100 km."""


@dataclass(frozen=True, slots=True)
class ContentClass:
    """A content type with its share of the requests and its lognormal size distribution."""

    content_type: str
    share: float
    median_bytes: float
    sigma: float
    retention_months: float = 1.0
    expected_reads: float = 1.0


CONTENT_CLASSES = (
    ContentClass("image/jpeg", 0.30, 400e3, 1.2, expected_reads=3),
    ContentClass("text/html", 0.12, 20e3, 1.3, expected_reads=5),
    ContentClass("application/json", 0.16, 8e3, 1.5),
    ContentClass("application/pdf", 0.12, 1.2e6, 1.2, retention_months=12),
    ContentClass("video/mp4", 0.12, 30e6, 1.3, expected_reads=2),
    ContentClass("application/gzip", 0.08, 60e6, 1.5, retention_months=12, expected_reads=0.1),
    ContentClass("application/octet-stream", 0.10, 4e6, 2.0),
)
"""An assumption: the mixed content of a web site and its backups."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: arrival time, the client's region, the query, and whether its outcome is reported."""

    index: int
    at: float
    city: str
    query: Query
    reported: bool


@dataclass(frozen=True, slots=True)
class Workload:
    """All requests by arrival time, and the regions of the clients."""

    requests: tuple[Request, ...]
    cities: tuple[str, ...]


def workload(
    rules: WorkloadRules,
    *,
    requests: int,
    random: Random,
    places: Sequence[str] = (),
    rate_per_s: float | None = None,
) -> Workload:
    """Draws `requests` requests from the rules.

    `places` are where clients can be, by default the regions of the tables; `rate_per_s`
    overrides the rules.
    """
    if rate_per_s is None:
        span = rules.interval_s
        rate_per_s = requests / (rules.hours * 3600.0) if span is None else 1.0 / random.uniform(*span)
    cities = tuple(random.sample(places or sorted(regions()), rules.cities))
    # Exponential weights: a few cities send most of the traffic.
    by_city = list(accumulate(random.expovariate(1.0) for _ in cities))
    by_kind = list(accumulate(kind.share for kind in CONTENT_CLASSES))
    arrivals = _arrivals(rate_per_s, random)
    return Workload(
        tuple(
            _request(
                index,
                next(arrivals),
                _drawn(cities, by_city, random),
                _drawn(CONTENT_CLASSES, by_kind, random),
                rules,
                random,
            )
            for index in range(requests)
        ),
        cities,
    )


def _request(
    index: int, at: float, city: str, kind: ContentClass, rules: WorkloadRules, random: Random
) -> Request:
    location = _location(city, rules.location, random)
    retrieves = random.random() < rules.retrieve
    query = Query(
        content_type=kind.content_type,
        size_bytes=_size_bytes(kind, rules.size_bytes, random),
        operation=Operation.RETRIEVE if retrieves else Operation.STORE,
        retention_months=kind.retention_months,
        expected_reads=kind.expected_reads,
        location=location,
        request_id=f"simulated-{index}",
    )
    return Request(index, at, city, query, random.random() >= rules.unreported)


def _location(city: str, given: str, random: Random) -> Location | None:
    """What the request says about its client's place; see LOCATIONS in scenario.py."""
    if given == "none":
        return None
    if given == "region":
        return Location(region=city)
    centre = regions()[city]
    latitude = centre.latitude + random.gauss(0.0, CITY_SPREAD_DEGREES)
    longitude = centre.longitude + random.gauss(0.0, CITY_SPREAD_DEGREES)
    return Location(
        round(latitude, 4),
        round((longitude + 180.0) % 360.0 - 180.0, 4),
        city if given == "both" else "",
    )


def _size_bytes(kind: ContentClass, given: Range | None, random: Random) -> int:
    if given is not None:
        return round(math.exp(random.uniform(math.log(given[0]), math.log(given[1]))))
    if random.random() < TAIL_SHARE:
        size = TAIL_FROM_BYTES * random.paretovariate(TAIL_EXPONENT)
    else:
        size = kind.median_bytes * math.exp(random.gauss(0.0, kind.sigma))
    return int(min(max(size, LEAST_BYTES), MOST_BYTES))


def _arrivals(rate_per_s: float, random: Random) -> Iterator[float]:
    """Arrival times of a Poisson process with a daily cycle, by thinning (Lewis and
    Shedler, "Simulation of nonhomogeneous Poisson processes", 1979)."""
    at = START_AT
    highest = rate_per_s * (1.0 + DAILY_SWING)
    while True:
        at += random.expovariate(highest)
        hour = math.sin(2.0 * math.pi * (at - START_AT) / DAY_S)
        if random.random() * highest < rate_per_s * (1.0 + DAILY_SWING * hour):
            yield at


def _drawn(things: Sequence[One], up_to: Sequence[float], random: Random) -> One:
    """Draws one of `things`; `up_to` are the cumulative weights."""
    return things[bisect(up_to, random.random() * up_to[-1], hi=len(things) - 1)]
