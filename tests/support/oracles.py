"""Reports as messages: the plain twins of what `routing.rpc.responses` writes straight to bytes."""

from routing import wire
from routing.core.report import Insights, Metrics


def write_insights(insights: Insights, *, now: float) -> wire.GetInsightsResponse:
    """The aggregates."""
    return wire.GetInsightsResponse(
        factor_weights=wire.write_struct(insights.factor_weights),
        backend_scores=wire.write_struct(insights.backend_scores),
        backend_success_rates=wire.write_struct(insights.backend_success_rates),
        content_type_distribution=wire.write_struct(insights.content_type_distribution),
        backend_usage_stats=wire.write_struct(insights.backend_usage_stats),
        latency_stats=wire.write_struct(insights.latency_stats),
        timestamp=wire.write_time(now),
    )


def write_metrics(metrics: Metrics, *, now: float) -> wire.MetricsUpdate:
    """One update."""
    return wire.MetricsUpdate(
        metrics=wire.write_struct(metrics.values),
        status=wire.MetricsUpdateSystemStatus(int(metrics.status)),
        timestamp=wire.write_time(now),
    )
