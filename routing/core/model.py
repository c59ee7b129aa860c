"""The domain's types: Backend, Query, Candidate, Decision, Outcome and their parts.

Types that are created for each decision, or for each of its candidates, are named
tuples: three times faster to create than a frozen dataclass, and as immutable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import NamedTuple

ASSUMED_SIZE_BYTES = 1 << 20
"""The size assumed for an object of unknown size (the contract's 1 MiB)."""

REFERENCE_STORAGE_USD_PER_GB_MONTH = 0.023
REFERENCE_EGRESS_USD_PER_GB = 0.09
REFERENCE_REQUEST_USD_PER_1000 = 0.005
"""Reference prices (S3 us-east-1 list). A backend with a missing price gets the reference
price, so that its `cost` is 0.5: neither an advantage nor a disadvantage."""

REFERENCE_LATENCY_MS = 150.0
REFERENCE_THROUGHPUT_MBPS = 200.0
"""Reference speed. A backend with a missing speed gets it, so that `performance` starts at 0.5."""

DEFAULT_SUCCESS_RATE = 0.95
"""The success rate of a backend without one. It is below every profile that we ship (0.97 and
up), so that a known backend wins a tie against an unknown one. If it were lower, new
backends would be avoided before they were tried."""


NEVER = -1.0
"""A time before all others, where a snapshot needs a number."""


class Operation(StrEnum):
    """What the client is about to do with the object."""

    STORE = "store"
    RETRIEVE = "retrieve"


class Fault(StrEnum):
    """Whose failure a failed operation was.

    CALLER is the caller's own code, credentials or network. CONTENT means that the backend
    answered, but does not have or does not take this content.
    """

    BACKEND = "backend"
    CALLER = "caller"
    CONTENT = "content"


class State(StrEnum):
    """Whether a backend takes part in decisions, and if not, why."""

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
    """The profile of one backend: what is known about it before any outcome.

    Prices in US dollars; `throughput_mbps` in megabits per second; `latency_ms` is
    the time to the first byte, without the client's distance; rates and affinities are
    in [0, 1]. None means no limit, or unknown coordinates (both or neither are None).
    `discovered` marks a backend that is not configured and that a client has named.
    """

    id: str
    enabled: bool = True
    region: str = ""
    latitude: float | None = None
    longitude: float | None = None
    storage_usd_per_gb_month: float = REFERENCE_STORAGE_USD_PER_GB_MONTH
    egress_usd_per_gb: float = REFERENCE_EGRESS_USD_PER_GB
    request_usd_per_1000: float = REFERENCE_REQUEST_USD_PER_1000
    latency_ms: float = REFERENCE_LATENCY_MS
    throughput_mbps: float = REFERENCE_THROUGHPUT_MBPS
    success_rate: float = DEFAULT_SUCCESS_RATE
    max_object_bytes: int | None = None
    max_inflight: int | None = None
    tags: frozenset[str] = frozenset()
    content_affinity: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    discovered: bool = False

    @property
    def origin(self) -> str:
        """Where its profile comes from: "configured", or "discovered" for a neutral one."""
        return "discovered" if self.discovered else "configured"


@dataclass(frozen=True, slots=True)
class SuspensionRules:
    """When a failing backend is suspended, when it is probed, and what lifts the suspension:
    the contract's numbers, each a setting."""

    failures_in_a_row: int = 5
    least_success: float = 0.5
    least_outcomes: int = 10
    window_seconds: float = 600.0
    probe_decisions: int = 200
    probe_seconds: float = 1.0
    least_decisions: int = 20
    first_wait_seconds: float = 30.0
    longest_wait_seconds: float = 600.0
    successes_to_lift: int = 3


class Query(NamedTuple):
    """A request to choose a backend for one object, with every field validated.

    `size_bytes` 0 means unknown; `available_backends` empty means every enabled one; a limit
    of None is none.
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
    max_cost_usd: float | None = None
    max_ms: float | None = None
    min_success: float | None = None

    @property
    def assumed_bytes(self) -> int:
        """The size to calculate with: the given one, or ASSUMED_SIZE_BYTES if unknown."""
        return self.size_bytes or ASSUMED_SIZE_BYTES


class Evidence(NamedTuple):
    """How much of an estimate comes from outcomes rather than the profile: shares in [0, 1)."""

    speed: float = 0.0
    success: float = 0.0


class Estimate(NamedTuple):
    """The estimate for one operation on one backend.

    `expected_ms` > 0 and `success_probability` in (0, 1) include what was learned;
    `prior_ms` and `prior_success` follow from the profile alone.
    """

    expected_ms: float
    success_probability: float
    prior_ms: float
    prior_success: float
    evidence: Evidence = Evidence()


class Candidate(NamedTuple):
    """One eligible backend, with everything that a factor may use.

    `distance_km` None means that the client's or the backend's location is unknown.
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

    `others` are the best of the remaining eligible backends, best first; `weights` are in
    the order of FACTORS and sum to 1; `probe` means that the chosen backend is suspended,
    or does not meet a limit, and that this operation probes it; `passed_over` are the other
    backends that wait for a probe and could have had this decision; `ineligible` is
    {candidate: why it was not eligible}; `limits_gave_way` means that no candidate met the
    server's own limits; `discovered` are the candidates that are not configured.
    """

    query: Query
    chosen: Ranked
    others: tuple[Ranked, ...]
    weights: tuple[float, ...]
    decided_at: float
    probe: bool = False
    passed_over: tuple[str, ...] = ()
    ineligible: Mapping[str, str] = MappingProxyType({})
    limits_gave_way: bool = False
    discovered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one operation on one backend went.

    `duration_ms` None means not measured, `size_bytes` 0 unknown, `happened_at` None just now.
    `fault` is one of Fault, and has no meaning beside success.
    `caller` identifies who reports it, as a digest; "" where the caller is not known.
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
    fault: str = Fault.BACKEND
    caller: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Whether an outcome was recorded, and a sentence about it for the caller."""

    recorded: bool
    message: str


class SystemStatus(IntEnum):
    """The health of all backends together; the numbers are those of the wire."""

    NORMAL = 0
    WARNING = 1
    CRITICAL = 2
