"""The server's answers as tables; each view takes the plain values that --json prints."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from routing.cli.output.formats import (
    STATUSES,
    Values,
    count_text,
    duration_text,
    grid,
    score_text,
    share_text,
)
from routing.cli.output.tables import Block, Table, TableCell, TableRow

_NONE: Values = MappingProxyType({})

MOST_SHARES = 4
"""Backends named for each content type; a line with twenty is not readable."""

_ESTIMATES = MappingProxyType(
    {
        "expected_ms": ">expected",
        "prior_ms": ">by profile",
        "speed_evidence": ">learned",
        "success_probability": ">success",
        "prior_success": ">by profile",
        "success_evidence": ">learned",
    }
)
_USAGE = MappingProxyType(
    {
        "request_count": ">decisions",
        "outcome_count": ">outcomes",
        "failure_count": ">failed",
        "total_size": ">volume",
        "avg_content_size": ">avg size",
    }
)
_INSIGHTS = MappingProxyType({"score": ">score", "success_rate": ">success", **_USAGE})
_LATENCY = MappingProxyType(
    {
        "count": ">measured",
        "min_ms": ">min",
        "avg_ms": ">avg",
        "p50_ms": ">p50",
        "p90_ms": ">p90",
        "p99_ms": ">p99",
        "max_ms": ">max",
    }
)
_LIVE = MappingProxyType(
    {
        "state": "state",
        "score": ">score",
        "success_rate": ">success",
        "latency_ms": ">latency",
        "decisions": ">decisions",
        "outcomes": ">outcomes",
    }
)
_BELIEVED_TIMES = MappingProxyType(
    {
        "small_ms": ">64 KiB",
        "small_low_ms": ">from",
        "small_high_ms": ">to",
        "large_ms": ">1 GiB",
        "large_low_ms": ">from",
        "large_high_ms": ">to",
        "speed_evidence": ">learned",
    }
)
_BELIEVED_SUCCESS = MappingProxyType(
    {
        "state": "state",
        "outcomes": ">outcomes",
        "success_probability": ">success",
        "success_low": ">from",
        "success_high": ">to",
        "success_evidence": ">learned",
        "seconds_since_failure": ">last failure",
    }
)
_SPEEDS = MappingProxyType(
    {
        "region": "region",
        "latency_ms": ">latency",
        "throughput_mbps": ">Mbit/s",
        "success_rate": ">success",
        "max_object_bytes": ">largest",
        "max_inflight": ">in flight",
    }
)
_PRICES = MappingProxyType(
    {
        "storage_usd_per_gb_month": ">$/GB·month",
        "egress_usd_per_gb": ">$/GB read",
        "request_usd_per_1000": ">$/1,000 requests",
        "tags": "tags",
    }
)
"""The columns of each table: a value's key → its heading."""


def decision_view(values: Values) -> tuple[Block, ...]:
    """The choice, its factors, and the candidates side by side.

    A server that sends no explanation leaves the factors' scores and the alternatives' alone.
    """
    explanation: Values = values.get("explanation") or _NONE
    heading: TableRow = (TableCell(values["backend_id"], "strong"), f"score {score_text(values['score'])}")
    if values.get("request_id"):
        heading += (f"request {values['request_id']}",)
    if explanation.get("probe"):
        heading += (TableCell("a probe: suspended, or short of a limit, and tried again", "warn"),)
    if explanation.get("limits_gave_way"):
        heading += (TableCell("no backend meets the server's own limits", "warn"),)
    return (heading, *_decision_tables(values, explanation))


def _decision_tables(values: Values, explanation: Values) -> Iterable[Table]:
    weights: Values = explanation.get("weights") or _NONE
    candidates = _labelled(explanation.get("candidates") or _NONE)
    yield _factors(values, weights)
    if candidates:
        yield _contributions(candidates, weights)
        yield grid("what each is expected to do", "backend", candidates, _ESTIMATES)
    elif values["alternatives"]:
        rows = ((each["backend_id"], score_text(each["score"])) for each in values["alternatives"])
        yield Table("alternatives", ("backend", ">score"), tuple(rows))
    if explanation.get("ineligible"):
        yield Table("not eligible", ("backend", "why"), tuple(explanation["ineligible"].items()))


def _labelled(rows: Mapping[str, Values]) -> Mapping[str, Values]:
    """The rows by name; a discovered backend is marked, since its name may be a typing error."""
    return {
        f"{name} (discovered)" if row.get("origin") == "discovered" else name: row
        for name, row in rows.items()
    }


def _factors(values: Values, weights: Values) -> Table:
    scores: Values = values["factor_scores"]
    if not weights:
        return _flat("why", "factor", "score", scores)
    rows = [
        (name, score_text(score), score_text(weights[name]), score_text(score * weights[name]))
        for name, score in scores.items()
    ]
    sums = score_text(sum(weights.values())), TableCell(score_text(values["score"]), "strong")
    return Table(
        "why",
        ("factor", ">score", ">weight", ">contribution"),
        (*rows, (TableCell("sum", "strong"), "", *sums)),
    )


def _contributions(candidates: Mapping[str, Values], weights: Values) -> Table:
    rows: tuple[TableRow, ...] = tuple(
        (
            name,
            TableCell(score_text(each["score"]), "strong"),
            *(score_text(each["factor_scores"][factor] * weight) for factor, weight in weights.items()),
        )
        for name, each in candidates.items()
    )
    headings = ("backend", ">score", *(f">{name}" for name in _short(weights)))
    return Table("contributions to the score", headings, rows)


def _short(names: Iterable[str]) -> Collection[str]:
    """The first word of each name if those are distinct: all must fit into a line."""
    whole = tuple(names)
    words = dict.fromkeys(name.split("_")[0] for name in whole)
    return words if len(words) == len(whole) else whole


def insights_view(values: Values) -> tuple[Block, ...]:
    """The backends, their speed, the weights, and which types went where."""
    usage: Mapping[str, Values] = values["backend_usage_stats"]
    scores, rates = values["backend_scores"], values["backend_success_rates"]
    rows = {
        name: {**usage.get(name, _NONE), "score": scores.get(name), "success_rate": rates.get(name)}
        for name in sorted({*scores, *rates, *usage})
    }
    return (
        grid("backends", "backend", rows, _INSIGHTS),
        *_latency(values["latency_stats"]),
        _flat("default weights", "factor", "weight", values["factor_weights"]),
        *_distribution(values["content_type_distribution"]),
    )


def _latency(rows: Mapping[str, Values]) -> Iterable[Table]:
    return [grid("durations", "backend", rows, _LATENCY)] if rows else []


def _flat(title: str, first: str, key: str, values: Values) -> Table:
    return grid(title, first, {name: {key: value} for name, value in values.items()}, {key: f">{key}"})


def _distribution(types: Mapping[str, Values]) -> Iterable[Table]:
    if types:
        rows = tuple(
            (name, count_text(sum(counts.values())), _shares(counts)) for name, counts in types.items()
        )
        yield Table("content types", ("type", ">decisions", "went to"), rows)


def _shares(counts: Values) -> str:
    total = sum(counts.values()) or 1
    best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{name} {share_text(count / total)}" for name, count in best[:MOST_SHARES]]
    rest = len(best) - len(named)
    return ", ".join([*named, f"{rest} more"] if rest else named)


def _learned(rows: Mapping[str, Values]) -> Iterable[Table]:
    yield grid("expected times", "backend", rows, _BELIEVED_TIMES)
    yield grid("reliability", "backend", rows, _BELIEVED_SUCCESS)


SECTION_VIEWS: Mapping[str, Callable[[Mapping[str, Values]], Iterable[Table]]] = MappingProxyType(
    {
        "backends": lambda rows: [grid("backends", "backend", _labelled(rows), _LIVE)],
        "factor_weights": lambda values: [_flat("default weights", "factor", "weight", values)],
        "backend_scores": lambda values: [_flat("scores", "backend", "score", values)],
        "success_rates": lambda values: [_flat("success", "backend", "success_rate", values)],
        "latency_stats": _latency,
        "usage_stats": lambda rows: [grid("usage", "backend", rows, _USAGE)],
        "content_distribution": _distribution,
        "learned": _learned,
    }
)
"""How each section of an update is drawn; `system` is the heading, not a table."""


def update_view(values: Values) -> tuple[Block, ...]:
    """One update of StreamMetrics: the heading, then its sections."""
    metrics: Values = values["metrics"]
    sections = [(view, metrics[name]) for name, view in SECTION_VIEWS.items() if metrics.get(name)]
    tables = (table for view, rows in sections for table in view(rows))
    return (_heading(values, metrics.get("system") or _NONE), *tables)


def _heading(values: Values, system: Values) -> TableRow:
    status = values["status"]
    heading: TableRow = (
        f"{values['timestamp']:%Y-%m-%d %H:%M:%S} UTC",
        TableCell(status, STATUSES.get(status, "")),
    )
    if system:
        heading += (
            f"up {duration_text(system['uptime_seconds'] * 1000)}",
            f"decisions {system['decisions_total']:,.0f} ({system['decisions_per_second']:,.1f}/s)",
            f"outcomes {system['outcomes_total']:,.0f}",
            f"watching {system['active_streams']:,.0f}",
            f"version {system['version']}",
        )
    return heading


def learned_view(values: Values) -> tuple[Block, ...]:
    """The estimates for each backend, with their intervals."""
    rows: Mapping[str, Values] = values["backends"]
    heading = (
        f"{values['timestamp']:%Y-%m-%d %H:%M:%S} UTC",
        "from and to: where the truth lies in 9 cases of 10",
    )
    return (heading, *_learned(rows))


def profiles_view(backends: Sequence[Values]) -> tuple[Block, ...]:
    """The profiles: speeds and limits, then prices."""
    rows = {each["id"]: each for each in backends}
    disabled = [each["id"] for each in backends if not each["enabled"]]
    said = "1 backend" if len(backends) == 1 else f"{len(backends)} backends"
    said += f", disabled: {', '.join(disabled)}" if disabled else ""
    return (
        grid("profiles", "backend", rows, _SPEEDS),
        grid("prices", "backend", rows, _PRICES),
        (said,),
    )
