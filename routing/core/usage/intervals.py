"""The cells of many intervals of one width: open while events arrive, packed once closed."""

from collections.abc import Iterator, Mapping

from routing.core.usage.cell import UsageCell
from routing.core.usage.packing import SEGMENT_CELLS, BackendNumbers, Segment, pack, unpack

MAX_SEGMENTS = 16
"""Segments of one interval before small ones are put together: late outcomes may add one every
five minutes for a week, and each has an overhead of some hundred bytes."""

Open = dict[str, dict[str, UsageCell]]
"""{content type: {backend: cell}}"""

_NONE: Open = {}


class Intervals:
    """{interval: its cells}. An interval with late outcomes may be both packed and open: its
    counts are then the sum of both."""

    def __init__(self, names: BackendNumbers) -> None:
        self._names = names
        self._open: dict[int, Open] = {}
        self._packed: dict[int, list[Segment]] = {}
        # Closed intervals with open cells, which are still to be packed; the oldest last.
        self._closed: list[int] = []

    def __repr__(self) -> str:
        return f"Intervals(open={len(self._open)}, packed={len(self._packed)})"

    def __len__(self) -> int:
        return len(self._open.keys() | self._packed.keys())

    def numbers(self) -> list[int]:
        """The intervals that have cells, oldest first."""
        return sorted(self._open.keys() | self._packed.keys())

    def cell(self, number: int, content_type: str, backend_id: str) -> UsageCell:
        """The open cell in which an event of this interval is counted."""
        by_type = self._open.get(number)
        if by_type is None:
            by_type = self._open[number] = {}
        cells = by_type.get(content_type)
        if cells is None:
            cells = by_type[content_type] = {}
        cell = cells.get(backend_id)
        if cell is None:
            cell = cells[backend_id] = UsageCell()
        return cell

    def open(self, number: int) -> Open:
        """The open cells of an interval."""
        return self._open.get(number, _NONE)

    def packed(self, number: int) -> list[Segment]:
        """The packed cells of an interval."""
        return self._packed.get(number, [])

    def read(self, number: int, wanted: str | None = None) -> Iterator[tuple[str, Mapping[str, UsageCell]]]:
        """(content type, {backend: cell}) of an interval, of one type only if `wanted` is given.
        A type may occur several times."""
        for segment in self.packed(number):
            yield from unpack(segment, self._names, wanted)
        for content_type, cells in self.open(number).items():
            if wanted in (None, content_type):
                yield content_type, cells

    def merged(self, number: int) -> Open:
        """Copies of an interval's cells, each with all its counts."""
        by_type: Open = {}
        for content_type, cells in self.read(number):
            _merge(by_type, content_type, cells)
        return by_type

    def close_before(self, number: int) -> None:
        """Closes all earlier intervals, which are packed from now on."""
        self._closed = sorted((each for each in self._open if each < number), reverse=True)

    def pack_some(self) -> None:
        """Packs about SEGMENT_CELLS open cells of the oldest closed interval, if there is one."""
        if not self._closed:
            return
        number = self._closed[-1]
        by_type = self._open.get(number, {})
        some: Open = {}
        size = 0
        while by_type and size < SEGMENT_CELLS:
            content_type, cells = by_type.popitem()
            some[content_type] = cells
            size += len(cells)
        if not by_type:
            self._closed.pop()
            self._open.pop(number, None)
        segments = self._packed.setdefault(number, [])
        if len(segments) >= MAX_SEGMENTS and sum(segments[-1].types.values()) + size <= SEGMENT_CELLS:
            for content_type, cells in unpack(segments.pop(), self._names):
                _merge(some, content_type, cells)
        segments.append(pack(some, self._names))

    def drop(self, oldest: int) -> None:
        """Removes all earlier intervals."""
        for number in [number for number in self._open if number < oldest]:
            del self._open[number]
        for number in [number for number in self._packed if number < oldest]:
            del self._packed[number]


def _merge(by_type: Open, content_type: str, cells: Mapping[str, UsageCell]) -> None:
    mine = by_type.setdefault(content_type, {})
    for backend_id, cell in cells.items():
        kept = mine.get(backend_id)
        if kept is None:
            kept = mine[backend_id] = UsageCell()
        kept.merge(cell)
