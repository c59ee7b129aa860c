"""The factors that score a backend: one function for each, and the table FACTORS.

A factor is a function of one query and one candidate and of nothing else; its value is in
[0, 1], higher is better. The formulas are the contract's. A function takes several
candidates, so that what depends on the query alone is computed once; the score of each
is independent of the others and of their order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from routing.core.geography import MAX_DISTANCE_KM
from routing.core.model import REFERENCE_LATENCY_MS, REFERENCE_THROUGHPUT_MBPS, Backend, Candidate, Query

REFERENCE_MS_PER_BYTE = 8e-3 / REFERENCE_THROUGHPUT_MBPS

REFERENCE = Backend("reference")
"""A backend with the reference latency, throughput and prices, which scores 0.5 on `performance`
and on `cost`."""

BYTES_PER_GB = 1e9

MAX_MONTHS_AND_READS = 1e12
"""Above it `cost` scales its terms down. More than any real query asks for, and far below where
price × size × this overflows."""

UNKNOWN_PROXIMITY = 0.5
UNKNOWN_AFFINITY = 0.5
"""The score where nothing is known: neither an advantage nor a disadvantage."""


Scores = list[float]
"""One for each candidate, in their order."""


@dataclass(frozen=True, slots=True)
class Factor:
    """A row of FACTORS: the function, its default weight, and one line of help."""

    name: str
    scores: Callable[[Query, Sequence[Candidate]], Scores]
    weight: float
    help: str

    def score(self, query: Query, candidate: Candidate) -> float:
        """The score of one candidate."""
        return self.scores(query, (candidate,))[0]


def performance(query: Query, candidates: Sequence[Candidate]) -> Scores:
    """The expected duration compared with the reference transfer of the same size."""
    reference_ms = REFERENCE_LATENCY_MS + query.assumed_bytes * REFERENCE_MS_PER_BYTE
    return [reference_ms / (reference_ms + candidate.estimate.expected_ms) for candidate in candidates]


def cost(query: Query, candidates: Sequence[Candidate]) -> Scores:
    """The cost of this object compared with its cost at the reference prices."""
    months, reads, requests = query.retention_months, query.expected_reads, 1.0
    if months + reads > MAX_MONTHS_AND_READS:
        # Only the proportions matter, so all terms are scaled down: no sum overflows.
        scale = max(months, reads)
        months, reads, requests = months / scale, reads / scale, requests / scale
    gigabytes = query.assumed_bytes / BYTES_PER_GB
    reference_usd = _cost_usd(REFERENCE, gigabytes, months, reads, requests)
    # `_cost_usd` is written out: calling it for each of a hundred candidates takes twice as long.
    return [
        reference_usd
        / (
            reference_usd
            + (
                requests * backend.request_usd_per_1000 / 1000
                + gigabytes * (backend.storage_usd_per_gb_month * months + backend.egress_usd_per_gb * reads)
            )
        )
        for candidate in candidates
        for backend in (candidate.backend,)
    ]


def cost_usd(query: Query, backend: Backend) -> float:
    """The cost of this object on a backend in US dollars, by the contract's formula: one request,
    the storage for `retention_months`, and `expected_reads` reads."""
    gigabytes = query.assumed_bytes / BYTES_PER_GB
    return _cost_usd(backend, gigabytes, query.retention_months, query.expected_reads, 1.0)


def _cost_usd(backend: Backend, gigabytes: float, months: float, reads: float, requests: float) -> float:
    per_gb = backend.storage_usd_per_gb_month * months + backend.egress_usd_per_gb * reads
    return requests * backend.request_usd_per_1000 / 1000 + gigabytes * per_gb


def reliability(query: Query, candidates: Sequence[Candidate]) -> Scores:  # noqa: ARG001 - a factor takes both
    """The probability that this operation succeeds."""
    return [candidate.estimate.success_probability for candidate in candidates]


def geo_proximity(query: Query, candidates: Sequence[Candidate]) -> Scores:
    """Nearness by coordinates, or by the region's name if coordinates are missing."""
    region = "" if query.location is None else query.location.region
    return [
        1.0 - candidate.distance_km / MAX_DISTANCE_KM
        if candidate.distance_km is not None
        else (1.0 if region and region == candidate.backend.region else UNKNOWN_PROXIMITY)
        for candidate in candidates
    ]


def content_affinity(query: Query, candidates: Sequence[Candidate]) -> Scores:
    """The profile's affinity for this MIME type: exact before `type/*` before `*/*`."""
    exact = query.content_type
    family = exact.partition("/")[0] + "/*"
    return [
        _affinity(candidate.backend.content_affinity, exact, family)
        if candidate.backend.content_affinity
        else UNKNOWN_AFFINITY
        for candidate in candidates
    ]


def _affinity(affinity: Mapping[str, float], exact: str, family: str) -> float:
    if exact in affinity:
        return affinity[exact]
    return affinity[family] if family in affinity else affinity.get("*/*", UNKNOWN_AFFINITY)


def load(query: Query, candidates: Sequence[Candidate]) -> Scores:  # noqa: ARG001 - a factor takes both
    """The share of the backend's `max_inflight` that is free; 1 if it has no limit."""
    return [
        1.0
        if (limit := candidate.backend.max_inflight) is None
        else (1.0 - candidate.inflight / limit if candidate.inflight < limit else 0.0)
        for candidate in candidates
    ]


FACTORS: Mapping[str, Factor] = MappingProxyType(
    {
        factor.name: factor
        for factor in (
            Factor("performance", performance, 0.30, "expected time against 150 ms and 200 Mbit/s"),
            Factor("cost", cost, 0.20, "dollars for the object against S3 us-east-1 list price"),
            Factor("reliability", reliability, 0.25, "probability that the operation succeeds"),
            Factor("geo_proximity", geo_proximity, 0.10, "nearness of the backend to the client"),
            Factor("content_affinity", content_affinity, 0.10, "how well the backend suits the type"),
            Factor("load", load, 0.05, "room left under the backend's in-flight limit"),
        )
    }
)
"""The factors. Every tuple of weights or of scores has their order."""
