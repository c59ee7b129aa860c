"""The content of GetInsights and StreamMetrics, as plain values; the table SECTIONS."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from routing.contract import CRITICAL_BELOW, WARNING_BELOW
from routing.core.beliefs import learned
from routing.core.model import State, SystemStatus
from routing.core.router import Router
from routing.core.usage.cell import UsageCell
from routing.core.usage.windows import DEFAULT_HOURS

STATUS_MIN_OUTCOMES = 10
STATUS_LIMITS = ((SystemStatus.CRITICAL, CRITICAL_BELOW), (SystemStatus.WARNING, WARNING_BELOW))
"""The contract's limits of a backend's success rate, the worst first, and from how many outcomes
on they apply."""

BACKENDS_SECTION = "backends"
"""The section that `include_backends` adds; it is not in SECTIONS."""

CONTENT_TYPES_SECTION = "content_distribution"
"""The section that `include_content_types` adds; it is in SECTIONS, too."""

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Insights:
    """The fields of a GetInsightsResponse, in the shapes of the contract."""

    factor_weights: Values
    backend_scores: Values
    backend_success_rates: Values
    content_type_distribution: Values
    backend_usage_stats: Values
    latency_stats: Values


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """Facts about the server that the router does not know."""

    uptime_seconds: float
    active_streams: int
    version: str


@dataclass(frozen=True, slots=True)
class Metrics:
    """One update of StreamMetrics: {section: values}, and the status."""

    values: Values
    status: SystemStatus


@dataclass(frozen=True, slots=True)
class MetricsView:
    """What the sections are computed from; the totals are read once for all of them."""

    router: Router
    totals: Mapping[str, UsageCell]
    scores: Mapping[str, float]
    system: SystemFacts
    now: float


@dataclass(frozen=True, slots=True)
class Section:
    """A row of SECTIONS; clients that name no section get those with `default`."""

    name: str
    values: Callable[[MetricsView], Values]
    default: bool
    help: str


def prepare(router: Router, *, content_type: str = "", hours: int = 0, now: float) -> Iterator[None]:
    """Prepares the sums that `insights` and `metrics` read, in steps of some milliseconds, between
    which the event loop may run other tasks. Usually the sums are kept, and there are no steps."""
    return router.windows.prepare(hours or DEFAULT_HOURS, content_type=content_type, now=router.advance(now))


def insights(
    router: Router, *, backend_id: str = "", content_type: str = "", hours: int = 0, now: float
) -> Insights:
    """Aggregates over the last hours (0 means 24; at most the retention), for one backend or content
    type only if given."""
    now = router.advance(now)
    hours = hours or DEFAULT_HOURS
    totals = _sorted(router.windows.totals(hours, backend_id=backend_id, content_type=content_type, now=now))
    return Insights(
        factor_weights=dict(router.weights),
        backend_scores=dict(router.scores(content_type=content_type, backend_id=backend_id, now=now)),
        backend_success_rates=_success_rates(totals),
        content_type_distribution=dict(
            router.windows.distribution(hours, backend_id=backend_id, content_type=content_type, now=now)
        ),
        backend_usage_stats=_usage(totals),
        latency_stats=_latency(totals),
    )


def metrics(
    router: Router,
    *,
    sections: tuple[str, ...],
    include_backends: bool,
    include_content_types: bool,
    system: SystemFacts,
    now: float,
) -> Metrics:
    """One update with these sections (names in SECTIONS; if empty, the default ones)."""
    now = router.advance(now)
    view = MetricsView(
        router,
        totals=_sorted(router.windows.totals(DEFAULT_HOURS, now=now)),
        scores=router.scores(now=now),
        system=system,
        now=now,
    )
    names = [*(sections or DEFAULT_SECTIONS)]
    if include_content_types and CONTENT_TYPES_SECTION not in names:
        names.append(CONTENT_TYPES_SECTION)
    values: Values = {name: SECTIONS[name].values(view) for name in names}
    if include_backends:
        values[BACKENDS_SECTION] = _backends(view)
    return Metrics(values, status(router, now=now))


def status(router: Router, *, now: float) -> SystemStatus:
    """The status by the worst success rate of the last five minutes, among configured, enabled
    backends with at least STATUS_MIN_OUTCOMES outcomes in them."""
    serving = {backend.id for backend in router.backends if backend.enabled and not backend.discovered}
    rates = [
        rate.successes / rate.outcomes
        for name, rate in router.recent.rates(now=router.advance(now)).items()
        if rate.outcomes >= STATUS_MIN_OUTCOMES and name in serving
    ]
    for verdict, limit in STATUS_LIMITS:
        if any(rate < limit for rate in rates):
            return verdict
    return SystemStatus.NORMAL


def _sorted(totals: Mapping[str, UsageCell]) -> dict[str, UsageCell]:
    """Sorted by backend, as in all answers."""
    return dict(sorted(totals.items()))


def _success_rates(totals: Mapping[str, UsageCell]) -> Values:
    return {name: cell.successes / cell.outcomes for name, cell in totals.items() if cell.outcomes}


def _usage(totals: Mapping[str, UsageCell]) -> Values:
    return {
        name: {
            "request_count": cell.decisions,
            "total_size": cell.bytes_total,
            "avg_content_size": cell.bytes_total / cell.decisions if cell.decisions else 0,
            "outcome_count": cell.outcomes,
            "success_count": cell.successes,
            "failure_count": cell.outcomes - cell.successes,
        }
        for name, cell in totals.items()
    }


def _latency(totals: Mapping[str, UsageCell]) -> Values:
    stats = {}
    for name, cell in totals.items():
        durations = cell.durations
        if durations is not None:
            p50_ms, p90_ms, p99_ms = durations.quantiles((0.5, 0.9, 0.99))
            stats[name] = {
                "count": durations.count,
                "min_ms": durations.min_ms,
                "max_ms": durations.max_ms,
                "avg_ms": durations.mean_ms,
                "p50_ms": p50_ms,
                "p90_ms": p90_ms,
                "p99_ms": p99_ms,
            }
    return stats


def _system(view: MetricsView) -> Values:
    uptime_seconds = view.system.uptime_seconds
    return {
        "uptime_seconds": uptime_seconds,
        "decisions_total": view.router.decisions_total,
        "outcomes_total": view.router.outcomes_total,
        "decisions_per_second": view.router.recent.decisions_per_second(
            now=view.now, uptime_seconds=uptime_seconds
        ),
        "active_streams": view.system.active_streams,
        "version": view.system.version,
    }


def _backends(view: MetricsView) -> Values:
    """The section of all backends; values that are not known yet are None."""
    rows: Values = {}
    for backend in sorted(view.router.backends, key=lambda backend: backend.id):
        cell = view.totals.get(backend.id) or UsageCell()
        state: State = view.router.state(backend.id)
        rows[backend.id] = {
            "score": view.scores.get(backend.id),
            "success_rate": cell.successes / cell.outcomes if cell.outcomes else None,
            "latency_ms": cell.durations.quantile(0.5) if cell.durations else None,
            "state": state.value,
            "origin": backend.origin,
            "decisions": cell.decisions,
            "outcomes": cell.outcomes,
        }
    return rows


def _distribution(view: MetricsView) -> Values:
    return dict(view.router.windows.distribution(DEFAULT_HOURS, now=view.now))


def _learned(view: MetricsView) -> Values:
    return learned(view.router, now=view.now)


SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        section.name: section
        for section in (
            Section("factor_weights", lambda view: dict(view.router.weights), True, "default weights"),
            Section("backend_scores", lambda view: dict(view.scores), True, "default scores now"),
            Section("success_rates", lambda view: _success_rates(view.totals), True, "last 24 hours"),
            Section("latency_stats", lambda view: _latency(view.totals), True, "last 24 hours"),
            Section(CONTENT_TYPES_SECTION, _distribution, False, "decisions by type, last 24 hours"),
            Section("usage_stats", lambda view: _usage(view.totals), False, "last 24 hours"),
            Section("system", _system, True, "uptime, totals, rate, version"),
            Section("learned", _learned, False, "beliefs now, and how sure they are"),
        )
    }
)

DEFAULT_SECTIONS = tuple(section.name for section in SECTIONS.values() if section.default)
