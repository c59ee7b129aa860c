"""Draws each backend's share of the traffic over time, as a self-contained SVG or HTML page."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, pairwise

from routing.simulation.play import Play

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Distinguishable with any colour vision (Okabe and Ito, "Color universal design", 2008)."""

OTHERS, OTHERS_COLOUR = "others", "#BBBBBB"
"""The least used backends share this series when there are more backends than colours."""

COLUMNS = 60
"""Points on the x axis; with 5,000 requests each covers 83."""

WIDTH, PANEL, PLOT, LEFT, RIGHT, TOP = 930, 230, 150, 60, 220, 40
"""Pixels: total width, height of a panel and of its plot, and the margins."""

MOST_LABELS = 3
"""With more disturbances than this, only the first gets a label above the plot."""


@dataclass(frozen=True, slots=True)
class Span:
    """A disturbance between two shares of the run, with its label."""

    begins: float
    ends: float
    label: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One play: for each column, each backend's share of the requests. Panels of the same
    `world` use the same colour for a backend."""

    world: str
    title: str
    hours: float
    columns: tuple[Mapping[str, float], ...]
    spans: tuple[Span, ...]


def panel(play: Play, policy: str, regret: float) -> Panel:
    """Prepares a play for drawing. The play needs at least one decision."""
    choices = play.decisions
    count = min(COLUMNS, len(choices))
    edges = [len(choices) * index // count for index in range(count + 1)]
    counts = [Counter(choice.backend_id for choice in choices[first:last]) for first, last in pairwise(edges)]
    columns = tuple(
        {name: each / sum(column.values()) for name, each in sorted(column.items())} for column in counts
    )
    spans = tuple(
        Span(effect.first / len(choices), effect.last / len(choices), f"{effect.backend_id} {effect.summary}")
        for effect in play.world.disturbances
        if effect.whole and effect.backend_id not in play.world.newcomers
    )
    arrivals = tuple(
        Span(first / len(choices), 1.0, f"{name} joins") for name, first in play.world.newcomers.items()
    )
    return Panel(
        play.world.key,
        f"{play.world.scenario.title}, seed {play.world.seed}: {policy}, simulated, regret {regret:.3f}",
        (choices[-1].request.at - choices[0].request.at) / 3600.0,
        columns,
        (*(span for span in spans if span.ends - span.begins < 1.0), *arrivals),
    )


def drawn(panels: Sequence[Panel], *, page: bool) -> str:
    """All panels below each other, as SVG or, with `page`, as an HTML page."""
    height = PANEL * len(panels)
    body = "\n".join(
        line
        for index, one in enumerate(panels)
        for line in _panel(
            one, _ranked([other for other in panels if other.world == one.world]), PANEL * index
        )
    )
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="11">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
        f"{body}\n</svg>\n"
    )
    if not page:
        return picture
    return (
        '<!DOCTYPE html>\n<html lang="en">\n'
        '<head><meta charset="utf-8"><title>routing simulate</title></head>\n'
        f"<body>\n<h1>Who got the traffic (simulated)</h1>\n{picture}</body></html>\n"
    )


def _ranked(panels: Sequence[Panel]) -> Sequence[str]:
    """The backends of these panels by falling traffic."""
    total = sum((Counter(column) for one in panels for column in one.columns), Counter[str]())
    return sorted(total, key=lambda name: (-total[name], name))


def _panel(one: Panel, ranked: Sequence[str], top: float) -> Iterator[str]:
    shown = ranked[: len(COLOURS)]
    others = len(ranked) > len(shown)
    names = [*shown, OTHERS] if others else shown
    colours = dict(zip(shown, COLOURS, strict=False)) | {OTHERS: OTHERS_COLOUR}
    yield f'<g transform="translate({LEFT},{top + TOP})">'
    yield f'<text x="0" y="-22" font-size="13" font-weight="bold">{escape(one.title)}</text>'
    below = [0.0] * len(one.columns)
    for name in names:
        share = [
            1.0 - under if name == OTHERS else column.get(name, 0.0)
            for under, column in zip(below, one.columns, strict=True)
        ]
        above = [under + more for under, more in zip(below, share, strict=True)]
        yield f'<path d="{_area(below, above)}" fill="{colours[name]}"><title>{escape(name)}</title></path>'
        below = above
    yield from _spans(one.spans)
    yield from _axes(one.hours)
    for row, name in enumerate(names):
        at = 12 * row * 1.3
        yield f'<rect x="{_plot_width() + 14}" y="{at:.1f}" width="11" height="11" fill="{colours[name]}"/>'
        yield f'<text x="{_plot_width() + 30}" y="{at + 9.5:.1f}">{escape(name)}</text>'
    yield "</g>"


def _area(below: Sequence[float], above: Sequence[float]) -> str:
    """SVG path: along the upper edge, back along the lower; all columns have equal width."""
    points = [*_steps(above), *reversed(list(_steps(below)))]
    return f"M{' L'.join(points)}Z"


def _steps(heights: Sequence[float]) -> Iterator[str]:
    edges = accumulate([_plot_width() / len(heights)] * len(heights), initial=0.0)
    for (left, right), height in zip(pairwise(edges), heights, strict=True):
        for x in (left, right):
            yield f"{x:.1f},{PLOT * (1.0 - height):.1f}"


def _spans(spans: Sequence[Span]) -> Iterator[str]:
    for index, span in enumerate(spans):
        left, width = _plot_width() * span.begins, _plot_width() * (span.ends - span.begins)
        label = escape(span.label)
        yield (
            f'<rect x="{left:.1f}" y="0" width="{width:.1f}" height="{PLOT}" fill="black" fill-opacity="0.22"'
            f' stroke="black" stroke-dasharray="3 2"><title>{label}</title></rect>'
        )
        # With many spans the labels would overlap.
        if index == 0 or len(spans) <= MOST_LABELS:
            yield f'<text x="{left:.1f}" y="-5" font-size="10">{label}</text>'


def _axes(hours: float) -> Iterator[str]:
    width = _plot_width()
    yield f'<rect x="0" y="0" width="{width}" height="{PLOT}" fill="none" stroke="#333"/>'
    for percent in (0, 25, 50, 75, 100):
        y = PLOT * (1 - percent / 100)
        yield f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>'
    for part in range(7):
        x = width * part / 6
        yield f'<line x1="{x:.1f}" y1="{PLOT}" x2="{x:.1f}" y2="{PLOT + 4}" stroke="#333"/>'
        yield f'<text x="{x:.1f}" y="{PLOT + 15}" text-anchor="middle">{100 * part // 6} %</text>'
    yield (
        f'<text x="{width / 2:.1f}" y="{PLOT + 29}" text-anchor="middle">'
        f"requests so far (the run lasts {hours:.1f} simulated hours)</text>"
    )
    turned = f'transform="rotate(-90 -46 {PLOT / 2})" text-anchor="middle"'
    yield f'<text x="-46" y="{PLOT / 2}" {turned}>share of requests</text>'


def _plot_width() -> int:
    return WIDTH - LEFT - RIGHT
