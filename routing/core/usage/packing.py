"""Packing: the cells of a closed interval in few bytes.

A cell of an open interval is an object of half a kilobyte, and of ten million outcomes over
a thousand backends and 256 types nearly each has a cell of its own. Packed, a cell takes
about five bytes. The cells are laid out in columns, one for each field; numbers are stored
as differences that are mostly small; and each column is written as byte planes, first the
lowest bytes of all numbers, then the second lowest and so on, so that zlib finds long runs
of zeros.
"""

import zlib
from array import array
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final, NamedTuple

from routing.core.usage.cell import UsageCell
from routing.core.usage.sketch import Sketch, bin_of

SEGMENT_CELLS = 1_000
"""Cells in a segment: packing them takes 3 ms, for which an event waits. Fewer pack worse; with
more, a question about one type unpacks more of the others."""

ZLIB_LEVEL = 1
"""Level 6 takes three times as long and saves a twentieth."""

_LIMB: Final = (1 << 64) - 1

_COLUMNS = 12

_PLACES: Final = range(8) if array("H", b"\1\0")[0] == 1 else range(7, -1, -1)
"""The positions of the bytes of an eight-byte number, lowest byte first, on this machine."""


class Segment(NamedTuple):
    """Packed cells: how many of each content type, and the compressed columns."""

    types: Mapping[str, int]
    data: bytes


class BackendNumbers:
    """Numbers for backends, in the order in which they were first counted."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.names: list[str] = []

    def number(self, name: str) -> int:
        """The number of this backend; a new one if it has none."""
        number = self.index.get(name)
        if number is None:
            number = self.index[name] = len(self.names)
            self.names.append(name)
        return number


def pack(by_type: Mapping[str, Mapping[str, UsageCell]], names: BackendNumbers) -> Segment:
    """Packs cells; the order of types is kept."""
    columns: list[list[int]] = [[] for _ in range(_COLUMNS)]
    for cells in by_type.values():
        before = -1
        for number, cell in sorted((names.number(name), cell) for name, cell in cells.items()):
            _note(columns, number - before - 1, cell)
            before = number
    shapes = [(len(column), (max(column, default=0).bit_length() + 7) // 8) for column in columns]
    planes = [_planes(column, width) for column, (_, width) in zip(columns, shapes, strict=True)]
    data = array("I", chain.from_iterable(shapes)).tobytes() + b"".join(planes)
    return Segment({name: len(cells) for name, cells in by_type.items()}, zlib.compress(data, ZLIB_LEVEL))


def unpack(
    segment: Segment, names: BackendNumbers, content_type: str | None = None
) -> Iterator[tuple[str, dict[str, UsageCell]]]:
    """(content type, {backend: cell}) in the order of packing; of one type only if given."""
    if content_type is not None and content_type not in segment.types:
        return
    columns = _columns(zlib.decompress(segment.data))
    steps, decisions, low, high, outcomes, failures, counts, *rest = map(iter, columns)
    sums, spreads, bins, gaps, in_bins = rest
    for name, size in segment.types.items():
        number, cells = -1, {}
        for _ in range(size):
            number += next(steps) + 1
            cell = cells[names.names[number]] = UsageCell()
            cell.decisions = next(decisions)
            cell.bytes_total = next(low) | next(high) << 64
            cell.outcomes = next(outcomes)
            cell.successes = cell.outcomes - next(failures)
            count = next(counts)
            if count:
                cell.durations = _read_sketch(count, sums, spreads, bins, gaps, in_bins)
        if content_type in (None, name):
            yield name, cells


def _note(columns: list[list[int]], step: int, cell: UsageCell) -> None:
    steps, decisions, low, high, outcomes, failures, counts, *rest = columns
    steps.append(step)
    decisions.append(cell.decisions)
    # A size is an int64, so a sum of sizes may need more than 64 bits.
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
    """A single duration is stored alone: all other fields follow from it."""
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
    """The lowest bytes of all numbers, then the second lowest and so on, `width` planes."""
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
