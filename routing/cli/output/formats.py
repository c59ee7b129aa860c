"""Values as table cells, formatted by the unit that the value's key names."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from routing.cli.output.tables import Table, TableCell
from routing.contract import CRITICAL_BELOW, WARNING_BELOW

Values = Mapping[str, Any]

MISSING = "-"
"""Shown for a missing value; a zero would look like a measurement."""

_SIZES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_DURATIONS_MS = ((86_400_000.0, "d"), (3_600_000.0, "h"), (60_000.0, "min"), (1_000.0, "s"), (1.0, "ms"))


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    """Three significant digits, in the largest unit that gives at least 1."""
    for step, unit in units:
        if value >= step * 0.9995:  # 999.6 kB would otherwise read "1,000 kB"
            scaled = value / step
            digits = 0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2
            return f"{scaled:,.{digits}f} {unit}"
    return f"{value:.2g} {units[-1][1]}"


def size_text(size_bytes: float) -> str:
    """Bytes, for people.

    >>> size_text(0), size_text(10_500_000), size_text(999_999)
    ('0 B', '10.5 MB', '1.00 MB')
    """
    return f"{size_bytes:.0f} B" if size_bytes < 999.5 else _scaled(size_bytes, _SIZES)


def duration_text(duration_ms: float) -> str:
    """Milliseconds, for people.

    >>> duration_text(0.25), duration_text(182), duration_text(5_400_000)
    ('0.25 ms', '182 ms', '1.50 h')
    """
    return _scaled(duration_ms, _DURATIONS_MS)


def ago_text(seconds: float) -> str:
    """A time in the past, for people.

    >>> ago_text(0.2), ago_text(90)
    ('200 ms ago', '1.50 min ago')
    """
    return f"{duration_text(seconds * 1000)} ago"


def share_text(share: float) -> str:
    """A share as percent; 100 only for exactly 1.

    >>> share_text(1), share_text(0.99996), share_text(0.5)
    ('100 %', '99.9 %', '50.0 %')
    """
    if share in (0, 1):
        return f"{share * 100:.0f} %"
    return f"{min(share * 100, 99.9) if share < 1 else share * 100:.1f} %"


def score_text(score: float) -> str:
    return f"{score:.4f}"


def count_text(count: float) -> str:
    return f"{count:,.0f}"


def money_text(dollars: float) -> str:
    """A price, without trailing zeros."""
    return f"{dollars:,.6f}".rstrip("0").rstrip(".")


def usd_text(dollars: float) -> str:
    """An amount of money: three significant digits, from a dollar on two decimals.

    >>> usd_text(1234.5), usd_text(0.000123456), usd_text(0)
    ('1,234.50', '0.000123', '0.00')
    """
    return f"{dollars:,.2f}" if dollars >= 1 or not dollars else f"{dollars:.3g}"


def value_text(form: Callable[[float], str], value: object) -> str:
    """A number formatted by `form`, another value as text, MISSING for none."""
    if value is None or value == "" or value == frozenset():
        return MISSING
    if isinstance(value, frozenset):
        return ", ".join(sorted(map(str, value)))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return form(value)


FORMS: Mapping[str, Callable[[float], str]] = MappingProxyType(
    {
        "score": score_text,
        "weight": score_text,
        "success_rate": share_text,
        "success_rate_error": share_text,
        "logged_share": share_text,
        "router_share": share_text,
        "usd": usd_text,
        "success_probability": share_text,
        "prior_success": share_text,
        "success_evidence": share_text,
        "speed_evidence": share_text,
        "success_low": share_text,
        "success_high": share_text,
        "seconds_since_failure": ago_text,
        "total_size": size_text,
        "avg_content_size": size_text,
        "max_object_bytes": size_text,
        "storage_usd_per_gb_month": money_text,
        "egress_usd_per_gb": money_text,
        "request_usd_per_1000": money_text,
        "throughput_mbps": "{:,.6g}".format,
    }
)
"""Key → format. Other keys are durations (those that end in `_ms`) or counts."""

STATES = MappingProxyType({"ok": "good", "suspended": "bad", "disabled": "dim"})
STATUSES = MappingProxyType({"NORMAL": "good", "WARNING": "warn", "CRITICAL": "bad"})


def cell(key: str, value: object) -> TableCell:
    """One value, formatted by its key; success rates and states have a tone."""
    form = FORMS.get(key) or (duration_text if key.endswith(("_ms", "_ms_error")) else count_text)
    text = value_text(form, value)
    if key == "success_rate" and isinstance(value, int | float):
        return TableCell(
            text, "bad" if value < CRITICAL_BELOW else "warn" if value < WARNING_BELOW else "good"
        )
    return TableCell(text, STATES.get(text, "") if key == "state" else "")


def grid(title: str, first: str, rows: Mapping[str, Values], columns: Mapping[str, str]) -> Table:
    """One row for each name, one column for each key; `columns` maps the key to its heading."""
    return Table(
        title,
        (first, *columns.values()),
        tuple((name, *(cell(key, values.get(key)) for key in columns)) for name, values in rows.items()),
    )
