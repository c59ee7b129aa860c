"""Counts of a stretch of time that is over, packed into few bytes.

A cell of a live interval is an object of half a kilobyte; of ten million outcomes over
a thousand backends and 256 types nearly each has a cell of its own. Packed, a cell takes
some five bytes: its numbers are laid out as columns, one for each field of all cells, each
as a difference that is mostly small; of each column come first the lowest bytes of all
numbers, then the second lowest, and so on, so that zlib finds long runs of zeros.
"""

import zlib
from array import array
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final, NamedTuple

from routing.core.usage.cell import Cell
from routing.core.usage.sketch import Sketch, bin_of

LARGEST_SEGMENT = 1_000
"""Cells packed at once: 3 ms of work, which an event waits for. Fewer pack worse, and
more make a question about one type unpack more of the others."""

LEVEL = 1
"""Of zlib: 6 takes three times as long and saves a twentieth."""

_LIMB: Final = (1 << 64) - 1

_COLUMNS = 12

_PLACES: Final = range(8) if array("H", b"\1\0")[0] == 1 else range(7, -1, -1)
"""Of the bytes in a number of eight bytes, the lowest first, on this machine."""


class Segment(NamedTuple):
    """Cells of some content types: how many of each type, and the packed columns."""

    types: Mapping[str, int]
    data: bytes


class Names:
    """Backends by number, in the order in which they were first counted."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.names: list[str] = []

    def number(self, name: str) -> int:
        """The number of this backend, which is a new one where it has none."""
        number = self.index.get(name)
        if number is None:
            number = self.index[name] = len(self.names)
            self.names.append(name)
        return number


def pack(by_type: Mapping[str, Mapping[str, Cell]], names: Names) -> Segment:
    """The cells in few bytes."""
    columns: list[list[int]] = [[] for _ in range(_COLUMNS)]
    for cells in by_type.values():
        before = -1
        for number, cell in sorted((names.number(name), cell) for name, cell in cells.items()):
            _note(columns, number - before - 1, cell)
            before = number
    shapes = [(len(column), (max(column, default=0).bit_length() + 7) // 8) for column in columns]
    planes = [_planes(column, width) for column, (_, width) in zip(columns, shapes, strict=True)]
    data = array("I", chain.from_iterable(shapes)).tobytes() + b"".join(planes)
    return Segment({name: len(cells) for name, cells in by_type.items()}, zlib.compress(data, LEVEL))


def unpack(
    segment: Segment, names: Names, content_type: str | None = None
) -> Iterator[tuple[str, dict[str, Cell]]]:
    """(content type, {backend: cell}) as they were packed; of one type only where it is given."""
    if content_type is not None and content_type not in segment.types:
        return
    columns = _columns(zlib.decompress(segment.data))
    steps, decisions, low, high, outcomes, failures, counts, *rest = map(iter, columns)
    sums, spreads, bins, gaps, in_bins = rest
    for name, size in segment.types.items():
        number, cells = -1, {}
        for _ in range(size):
            number += next(steps) + 1
            cell = cells[names.names[number]] = Cell()
            cell.decisions = next(decisions)
            cell.bytes_total = next(low) | next(high) << 64
            cell.outcomes = next(outcomes)
            cell.successes = cell.outcomes - next(failures)
            count = next(counts)
            if count:
                cell.durations = _read_sketch(count, sums, spreads, bins, gaps, in_bins)
        if content_type in (None, name):
            yield name, cells


def _note(columns: list[list[int]], step: int, cell: Cell) -> None:
    steps, decisions, low, high, outcomes, failures, counts, *rest = columns
    steps.append(step)
    decisions.append(cell.decisions)
    # Sizes are int64, and sums of them may be larger.
    low.append(cell.bytes_total & _LIMB)
    high.append(cell.bytes_total >> 64)
    outcomes.append(cell.outcomes)
    failures.append(cell.outcomes - cell.successes)
    if cell.durations is None:
        counts.append(0)
    else:
        counts.append(cell.durations.count)
        _note_sketch(rest, cell.durations)


def _note_sketch(columns: list[list[int]], sketch: Sketch) -> None:
    """Of a lone duration only itself: all else follows from it."""
    sums, spreads, bins, gaps, in_bins = columns
    if sketch.count == 1:
        sums.append(sketch.min_ms)
        return
    sums.append(sketch.min_ms)
    spreads.append(sketch.max_ms - sketch.min_ms)
    spreads.append(sketch.sum_ms - sketch.min_ms * sketch.count)
    bins.append(len(sketch.bins))
    before = bin_of(sketch.min_ms)
    for index, count in sorted(sketch.bins.items()):
        gaps.append(index - before)
        in_bins.append(count)
        before = index


def _read_sketch(
    count: int,
    sums: Iterator[int],
    spreads: Iterator[int],
    bins: Iterator[int],
    gaps: Iterator[int],
    in_bins: Iterator[int],
) -> Sketch:
    min_ms = next(sums)
    index = bin_of(min_ms)
    if count == 1:
        return Sketch.of((1, min_ms, min_ms, min_ms), {index: 1})
    max_ms, sum_ms = min_ms + next(spreads), next(spreads) + min_ms * count
    counts = {}
    for _ in range(next(bins)):
        index += next(gaps)
        counts[index] = next(in_bins)
    return Sketch.of((count, sum_ms, min_ms, max_ms), counts)


def _planes(column: list[int], width: int) -> bytes:
    """The lowest bytes of all numbers, then the second lowest, and so on up to `width`."""
    data = array("Q", column).tobytes()
    return b"".join(data[place::8] for place in _PLACES[:width])


def _columns(data: bytes) -> "list[array[int]]":
    shapes = array("I", data[: array("I").itemsize * 2 * _COLUMNS])
    start = len(shapes) * shapes.itemsize
    columns = []
    for size, width in zip(shapes[::2], shapes[1::2], strict=True):
        plain = bytearray(size * 8)
        for place in _PLACES[:width]:
            plain[place::8] = data[start : start + size]
            start += size
        column = array("Q", bytes(plain))
        columns.append(column)
    return columns
