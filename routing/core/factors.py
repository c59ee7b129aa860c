"""What speaks for a backend: one function for each factor, and their table.

A factor looks at one query and one candidate, at nothing else, and answers in
[0, 1], higher is better. The formulas are the contract's. A function answers for several
candidates at once, so that what is the query's alone is reckoned once; none of them
hangs on the others, or on their order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from routing.core.geography import FARTHEST_KM
from routing.core.model import Candidate, Query

REFERENCE_LATENCY_MS = 150.0
REFERENCE_MS_PER_BYTE = 8 / 200e6 * 1e3
"""The transfer that scores 0.5 on `performance`: 150 ms and then 200 Mbit/s."""

BYTES_PER_GB = 1e9
REFERENCE_STORAGE_USD_PER_GB_MONTH = 0.023
REFERENCE_EGRESS_USD_PER_GB = 0.09
REFERENCE_REQUEST_USD = 0.005 / 1000
"""The price that scores 0.5 on `cost`: S3 us-east-1, list."""

MOST_MONTHS_AND_READS = 1e12
"""Beyond all sense, and far below where a price times a size times this overflows."""

UNKNOWN_PROXIMITY = 0.5
UNKNOWN_AFFINITY = 0.5
"""Where nothing is known, neither for nor against."""


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
    """How the expected time compares with the reference transfer of the same size."""
    reference_ms = REFERENCE_LATENCY_MS + query.assumed_bytes * REFERENCE_MS_PER_BYTE
    return [reference_ms / (reference_ms + candidate.estimate.expected_ms) for candidate in candidates]


def cost(query: Query, candidates: Sequence[Candidate]) -> Scores:
    """How the dollars for this object compare with the same object at the reference price."""
    gigabytes = query.assumed_bytes / BYTES_PER_GB
    months, reads = query.retention_months, query.expected_reads
    requests = 1.0
    if months + reads > MOST_MONTHS_AND_READS:
        # Only the proportions matter: made smaller together, no sum passes the largest float.
        scale = max(months, reads)
        months, reads, requests = months / scale, reads / scale, requests / scale
    reference_usd = requests * REFERENCE_REQUEST_USD + gigabytes * (
        REFERENCE_STORAGE_USD_PER_GB_MONTH * months + REFERENCE_EGRESS_USD_PER_GB * reads
    )
    return [
        reference_usd
        / (
            reference_usd
            + (
                requests * backend.request_usd_per_1000 / 1000
                + gigabytes * (backend.storage_usd_per_gb_month * months + backend.egress_usd_per_gb * reads)
            )
        )
        for backend, _, _, _ in candidates
    ]


def reliability(query: Query, candidates: Sequence[Candidate]) -> Scores:  # noqa: ARG001 - a factor takes both
    """The probability that this operation succeeds."""
    return [candidate.estimate.success_probability for candidate in candidates]


def geo_proximity(query: Query, candidates: Sequence[Candidate]) -> Scores:
    """Nearness by coordinates, or by the region's name where coordinates are missing."""
    region = "" if query.location is None else query.location.region
    return [
        1.0 - candidate.distance_km / FARTHEST_KM
        if candidate.distance_km is not None
        else (1.0 if region and region == candidate.backend.region else UNKNOWN_PROXIMITY)
        for candidate in candidates
    ]


def content_affinity(query: Query, candidates: Sequence[Candidate]) -> Scores:
    """The profile's word on this MIME type: exact before `type/*` before `*/*`."""
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
    """How much room is left under the backend's own limit."""
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
"""The factors in the order in which every tuple of weights or scores holds them."""
