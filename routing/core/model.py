"""The nouns: what a backend is, what is asked, what was decided, what happened.

What is made anew for each decision, or each of its candidates, is a named tuple: three
times quicker to make than a frozen dataclass, and as fixed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import NamedTuple

ASSUMED_SIZE_BYTES = 1 << 20
"""What an object of unknown size is taken to be (the contract's 1 MiB)."""

NEUTRAL_STORAGE_USD_PER_GB_MONTH = 0.023
NEUTRAL_EGRESS_USD_PER_GB = 0.09
NEUTRAL_REQUEST_USD_PER_1000 = 0.005
"""A price that nobody told is the reference price (S3 us-east-1 list), so that
`cost` scores 0.5: neither a reason for the backend nor against it."""

NEUTRAL_LATENCY_MS = 150.0
NEUTRAL_THROUGHPUT_MBPS = 200.0
"""A speed that nobody told is the reference speed, so that `performance` starts at 0.5."""

NEUTRAL_SUCCESS_RATE = 0.95
"""Below every profile that we ship (0.97 and up), so that what is known wins a tie
against what is not; any lower and a new name would be avoided before it was tried."""


class Operation(StrEnum):
    """What the client is about to do with the object."""

    STORE = "store"
    RETRIEVE = "retrieve"


class State(StrEnum):
    """What may currently be expected of a backend."""

    OK = "ok"
    SUSPENDED = "suspended"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a client is: degrees (both or neither), a region's name, or all three."""

    latitude: float | None = None
    longitude: float | None = None
    region: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """The profile of one backend: what is known before any outcome.

    Prices in US dollars; `throughput_mbps` in megabits per second; `latency_ms` is
    the time to the first byte, without the client's distance; rates and affinities
    in [0, 1]. None means no limit, or an unknown place (coordinates come in pairs).
    `discovered` marks a name that only clients have used.
    """

    id: str
    enabled: bool = True
    region: str = ""
    latitude: float | None = None
    longitude: float | None = None
    storage_usd_per_gb_month: float = NEUTRAL_STORAGE_USD_PER_GB_MONTH
    egress_usd_per_gb: float = NEUTRAL_EGRESS_USD_PER_GB
    request_usd_per_1000: float = NEUTRAL_REQUEST_USD_PER_1000
    latency_ms: float = NEUTRAL_LATENCY_MS
    throughput_mbps: float = NEUTRAL_THROUGHPUT_MBPS
    success_rate: float = NEUTRAL_SUCCESS_RATE
    max_object_bytes: int | None = None
    max_inflight: int | None = None
    tags: frozenset[str] = frozenset()
    content_affinity: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    discovered: bool = False


class Query(NamedTuple):
    """One piece of content that looks for a backend, every field checked.

    `size_bytes` 0 means unknown; `available_backends` empty means every enabled one.
    """

    content_hash: str = ""
    content_type: str = ""
    size_bytes: int = 0
    operation: Operation = Operation.STORE
    retention_months: float = 1.0
    expected_reads: float = 1.0
    require_tags: frozenset[str] = frozenset()
    exclude_backends: frozenset[str] = frozenset()
    strategy: str = "hybrid"
    priority: str = "balanced"
    available_backends: tuple[str, ...] = ()
    location: Location | None = None
    request_id: str = ""

    @property
    def assumed_bytes(self) -> int:
        """The size to reckon with: the given one, or 1 MiB where none was given."""
        return self.size_bytes or ASSUMED_SIZE_BYTES


class Evidence(NamedTuple):
    """How much of a belief came from outcomes, and not from the profile: shares in [0, 1)."""

    speed: float = 0.0
    success: float = 0.0


class Estimate(NamedTuple):
    """What is believed about one operation on one backend.

    `expected_ms` > 0 and `success_probability` in (0, 1) are the belief;
    `prior_ms` and `prior_success` are what the profile alone says.
    """

    expected_ms: float
    success_probability: float
    prior_ms: float
    prior_success: float
    evidence: Evidence = Evidence()


class Candidate(NamedTuple):
    """One backend that may serve a query, with all that a factor may look at.

    `distance_km` None means that the client's or the backend's place is unknown.
    """

    backend: Backend
    estimate: Estimate
    inflight: int = 0
    distance_km: float | None = None


class Ranked(NamedTuple):
    """One candidate with its score; `factor_scores` in the order of FACTORS."""

    backend_id: str
    score: float
    factor_scores: tuple[float, ...]
    estimate: Estimate


class Decision(NamedTuple):
    """The choice and its reasons.

    `others` are the remaining eligible backends, best first; `weights` in the order
    of FACTORS, summing to 1; `probe` says that the choice re-checks a suspended
    backend; `passed_over` are the suspended that were left out; `ineligible` names all
    candidates that were, and why.
    """

    query: Query
    chosen: Ranked
    others: tuple[Ranked, ...]
    weights: tuple[float, ...]
    decided_at: float
    probe: bool = False
    passed_over: tuple[str, ...] = ()
    ineligible: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one operation on one backend went.

    `duration_ms` None means not measured, `size_bytes` 0 unknown, `happened_at` None now.
    """

    backend_id: str
    success: bool
    content_hash: str = ""
    content_type: str = ""
    size_bytes: int = 0
    duration_ms: int | None = None
    error: str = ""
    happened_at: float | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Whether an outcome was taken in, and how it was understood."""

    recorded: bool
    message: str


class SystemStatus(IntEnum):
    """How well the backends do as a whole; the numbers are the wire's."""

    NORMAL = 0
    WARNING = 1
    CRITICAL = 2
