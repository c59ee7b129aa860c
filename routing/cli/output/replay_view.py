"""The outcome of a replay as tables, and how to read them."""

from collections.abc import Iterator
from textwrap import wrap
from types import MappingProxyType

from routing.cli.output.formats import Values, count_text, grid, share_text
from routing.cli.output.tables import Block, Table, TableRow

_WIDTH = 100
"""Characters of a line of prose; with its first column it fits the narrowest of our tables."""

_FEW_OUTCOMES = 100
"""With fewer, the standard error of a success rate near 0.95 is two percent, and the 99th percentile is
one or two of the outcomes."""

_FAR_ERRORS = 4.0
"""Standard errors between a mean weight and 1 that occur by chance once in 16,000 traces."""

_WHY_NONE = "unknown, not eligible or suspended"

_BACKENDS = MappingProxyType(
    {
        "logged": ">logged",
        "logged_share": ">share",
        "success_rate": ">success",
        "mean_ms": ">mean",
        "p50_ms": ">p50",
        "p99_ms": ">p99",
        "router": ">router",
        "router_share": ">share",
        "agreed": ">agreed",
    }
)
_SEEN = MappingProxyType(
    {
        "outcomes": ">outcomes",
        "effective_outcomes": ">worth",
        "success_rate": ">success",
        "success_rate_error": ">±",
        "mean_ms": ">mean",
        "mean_ms_error": ">±",
        "p50_ms": ">p50",
        "p99_ms": ">p99",
    }
)
_MODELLED = MappingProxyType(
    {"usd": ">dollars", "expected_ms": ">expected time", "success_probability": ">success"}
)


def replay_view(values: Values) -> tuple[Block, ...]:
    """The trace and the router, traffic by backend, outcomes seen and modelled, and how to read them."""
    seen, modelled = values["seen"], values["modelled"]
    router = "router, weighted" if values["weighted"] else "router, where it agreed"
    lines = {"logged, all": seen["logged"], router: seen["router"]}
    sides = {"as logged": modelled["logged"], "router's choice": modelled["router"]}
    return (
        *_headings(values),
        grid("by backend", "backend", values["backends"], _BACKENDS),
        grid("seen", "rows", lines, _SEEN),
        grid(f"modelled, {count_text(modelled['rows'])} rows", "choice", sides, _MODELLED),
        Table("how to read it", ("line", "what it can tell"), tuple(_prose(values))),
    )


def _headings(values: Values) -> Iterator[TableRow]:
    trace, router = values["trace"], values["router"]
    first, last = (f"{trace[key]:%Y-%m-%d %H:%M:%S}" for key in ("first_at", "last_at"))
    yield trace["name"], f"{count_text(values['rows'])} rows", f"{first} to {last} UTC"
    yield (
        f"router {router['target'] or 'in this process'}",
        f"strategy {router['strategy'] or 'as in the trace, or hybrid'}",
        *([f"priority {router['priority']}"] if router["priority"] else []),
        f"taught {count_text(values['taught'])} outcomes ({router['teach']})",
        f"agreed {count_text(values['agreed'])} ({_share(values['agreed_share'])})",
    )
    yield from ((text,) for text in _complaints(values))


def _complaints(values: Values) -> Iterator[str]:
    """Notices about rows that were skipped, refused or put in order."""
    trace = values["trace"]
    notices = (
        ("rows that stood behind later ones, put in order", trace["out_of_order"], ""),
        ("rows skipped", trace["skipped"], trace["first_skipped"]),
        ("rows for which no backend was eligible", values["refused"], values["first_refusal"]),
        (
            f"rows whose logged backend was no candidate for the router ({_WHY_NONE})",
            values["not_offered"],
            "",
        ),
        ("outcomes that were not taken in", values["untaught"], values["first_untaught"]),
    )
    for what, count, first in notices:
        if count:
            yield f"{what}: {count_text(count)}" + (f"; the first: {first}" if first else "")
    if trace["unknown_columns"]:
        yield f"ignored columns: {', '.join(trace['unknown_columns'])}"


def _prose(values: Values) -> Iterator[TableRow]:
    for name, text in _readings(values):
        for index, line in enumerate(wrap(text, _WIDTH)):
            yield ("" if index else name), line


def _readings(values: Values) -> Iterator[tuple[str, str]]:
    if values["weighted"]:
        yield (
            "seen",
            "The router's line has the outcomes of rows where its choice was the logged one, each weighted "
            "by 1 / propensity: what its choices would have led to, if the propensities are right.",
        )
    else:
        yield (
            "seen",
            "The router's line has the outcomes of rows where its choice was the logged one. It tells what "
            "the router's choices would have led to only if the logged ones were drawn from equally many "
            "candidates, each alike, whatever the request. Otherwise these rows are a selection, and so "
            "may be the difference.",
        )
    yield from _doubts(values)
    if values["router"]["teach"] == "all":
        yield (
            "taught",
            "The router heard the outcome of every row, also where it would have chosen otherwise: it is as "
            "warm as if it had watched.",
        )
    else:
        yield (
            "taught",
            f"The router heard {count_text(values['taught'])} outcomes. One that hears of all of its own "
            "choices knows more.",
        )
    yield (
        "modelled",
        "Dollars are list prices; time and success are what the router believed of both choices at that "
        "moment. It believes well of what it chooses, so its line is too good by some of that.",
    )


def _doubts(values: Values) -> Iterator[tuple[str, str]]:
    effective = values["seen"]["router"]["effective_outcomes"]
    if effective < _FEW_OUTCOMES:
        worth = count_text(effective)
        yield "few", f"The router's line is worth {worth} outcomes: hardly more than an anecdote."
    mean, error = values["mean_weight"], values["mean_weight_error"]
    if mean is not None and error is not None and abs(mean - 1.0) > _FAR_ERRORS * error:
        yield (
            "doubtful",
            f"The weights have a mean of {mean:.2f} ± {error:.2f}, where right propensities give 1: they are "
            "wrong, or the router chooses what the logged policy never did.",
        )


def _share(share: float | None) -> str:
    return "-" if share is None else share_text(share)
