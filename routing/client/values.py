"""The client's results: frozen values of plain Python types."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from routing.core.model import SystemStatus


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another backend that could have been chosen."""

    backend_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected backend: `score` is the weighted sum of `factor_scores`, both in [0, 1].

    `request_id` links outcomes to this decision, `at` is the server's time, and
    `explanation` is None unless the request asked for it.
    """

    backend_id: str
    score: float
    factor_scores: Mapping[str, float]
    alternatives: tuple[Alternative, ...]
    request_id: str
    at: datetime
    explanation: Mapping[str, Any] | None = None

    @property
    def backend_ids(self) -> tuple[str, ...]:
        """The chosen backend, then the alternatives, best first."""
        return (self.backend_id, *(other.backend_id for other in self.alternatives))


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Whether an outcome was recorded; not whether the operation succeeded."""

    recorded: bool
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """One backend's decisions and outcomes; sizes in bytes."""

    request_count: int
    total_size: int
    avg_content_size: float
    outcome_count: int
    success_count: int
    failure_count: int


@dataclass(frozen=True, slots=True)
class Latency:
    """One backend's durations, over `count` outcomes that have one; quantiles within 2 %."""

    count: int
    min_ms: float
    max_ms: float
    avg_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Insights:
    """Aggregates over a window; a backend without outcomes has no success rate and no latency.

    `content_type_distribution` counts decisions: {content type: {backend: count}}.
    """

    factor_weights: Mapping[str, float]
    backend_scores: Mapping[str, float]
    backend_success_rates: Mapping[str, float]
    content_type_distribution: Mapping[str, Mapping[str, int]]
    backend_usage_stats: Mapping[str, Usage]
    latency_stats: Mapping[str, Latency]
    at: datetime


@dataclass(frozen=True, slots=True)
class Activity:
    """The server itself: counts since its start, and the open StreamMetrics calls."""

    uptime_seconds: float
    decisions_total: int
    outcomes_total: int
    decisions_per_second: float
    active_streams: int
    version: str


@dataclass(frozen=True, slots=True)
class BackendSummary:
    """A summary of one backend; None means that there is no data yet.

    `state` is "ok", "suspended" or "disabled".
    `origin` is "configured", or "discovered" for a name that only clients have used; None from
    a server that does not say.
    """

    score: float | None
    success_rate: float | None
    latency_ms: float | None
    state: str
    decisions: int
    outcomes: int
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """The current estimates for one backend, for an object of unknown type and a client at an
    unknown location: `small` is 64 KiB, `large` 1 GiB.

    `low` to `high` is the 90 % credible interval; `prior` is the estimate from the profile
    alone, and the evidence shares, in [0, 1), say how much comes from outcomes.
    """

    state: str
    outcomes: int
    small_ms: float
    small_low_ms: float
    small_high_ms: float
    small_prior_ms: float
    large_ms: float
    large_low_ms: float
    large_high_ms: float
    large_prior_ms: float
    speed_evidence: float
    success_probability: float
    success_low: float
    success_high: float
    prior_success: float
    success_evidence: float
    seconds_since_failure: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """One update. A section that was not requested is None.

    `other` has the sections that this client does not know, as plain values.
    """

    status: SystemStatus
    at: datetime
    factor_weights: Mapping[str, float] | None = None
    backend_scores: Mapping[str, float] | None = None
    success_rates: Mapping[str, float] | None = None
    latency_stats: Mapping[str, Latency] | None = None
    content_distribution: Mapping[str, Mapping[str, int]] | None = None
    usage_stats: Mapping[str, Usage] | None = None
    system: Activity | None = None
    backends: Mapping[str, BackendSummary] | None = None
    learned: Mapping[str, Learned] | None = None
    other: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
