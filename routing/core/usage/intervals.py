"""The cells of many intervals of one width: those under way open, those that are over packed."""

from collections.abc import Iterator, Mapping

from routing.core.usage.cell import Cell
from routing.core.usage.packing import LARGEST_SEGMENT, Names, Segment, pack, unpack

MOST_SEGMENTS = 16
"""Of one interval, before small ones are put together: late outcomes may add one every five
minutes for a week, and each has some hundred bytes of its own."""

Open = dict[str, dict[str, Cell]]
"""{content type: {backend: cell}}"""

_NONE: Open = {}


class Intervals:
    """{interval: its cells}. An interval may be both packed and open, where something was
    told late: then it is the sum of both."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._open: dict[int, Open] = {}
        self._packed: dict[int, list[Segment]] = {}
        # Intervals that are over and have open cells.
        self._over: list[int] = []

    def __repr__(self) -> str:
        return f"Intervals(open={len(self._open)}, packed={len(self._packed)})"

    def __len__(self) -> int:
        return len(self._open.keys() | self._packed.keys())

    def numbers(self) -> list[int]:
        """The intervals in which something was counted, the oldest first."""
        return sorted(self._open.keys() | self._packed.keys())

    def cell(self, number: int, content_type: str, backend_id: str) -> Cell:
        """Where an event of this interval is counted."""
        by_type = self._open.get(number)
        if by_type is None:
            by_type = self._open[number] = {}
        cells = by_type.get(content_type)
        if cells is None:
            cells = by_type[content_type] = {}
        cell = cells.get(backend_id)
        if cell is None:
            cell = cells[backend_id] = Cell()
        return cell

    def open(self, number: int) -> Open:
        """The open cells of an interval."""
        return self._open.get(number, _NONE)

    def packed(self, number: int) -> list[Segment]:
        """The packed cells of an interval."""
        return self._packed.get(number, [])

    def read(self, number: int, wanted: str | None = None) -> Iterator[tuple[str, Mapping[str, Cell]]]:
        """(content type, {backend: cell}) of an interval, of one type only where it is given.
        The same type may come several times."""
        for segment in self.packed(number):
            yield from unpack(segment, self._names, wanted)
        for content_type, cells in self.open(number).items():
            if wanted in (None, content_type):
                yield content_type, cells

    def whole(self, number: int) -> Open:
        """All cells of an interval, each once; copies."""
        by_type: Open = {}
        for content_type, cells in self.read(number):
            _merge(by_type, content_type, cells)
        return by_type

    def close_before(self, number: int) -> None:
        """All earlier intervals are over, and are packed from now on."""
        self._over = sorted((each for each in self._open if each < number), reverse=True)

    def pack_some(self) -> None:
        """Packs about LARGEST_SEGMENT cells of an interval that is over, if there is one."""
        if not self._over:
            return
        number = self._over[-1]
        by_type = self._open.get(number, {})
        some: Open = {}
        size = 0
        while by_type and size < LARGEST_SEGMENT:
            content_type, cells = by_type.popitem()
            some[content_type] = cells
            size += len(cells)
        if not by_type:
            self._over.pop()
            self._open.pop(number, None)
        segments = self._packed.setdefault(number, [])
        if len(segments) >= MOST_SEGMENTS and sum(segments[-1].types.values()) + size <= LARGEST_SEGMENT:
            for content_type, cells in unpack(segments.pop(), self._names):
                _merge(some, content_type, cells)
        segments.append(pack(some, self._names))

    def drop(self, oldest: int) -> None:
        """Lets go of all earlier intervals."""
        for number in [number for number in self._open if number < oldest]:
            del self._open[number]
        for number in [number for number in self._packed if number < oldest]:
            del self._packed[number]


def _merge(by_type: Open, content_type: str, cells: Mapping[str, Cell]) -> None:
    mine = by_type.setdefault(content_type, {})
    for backend_id, cell in cells.items():
        kept = mine.get(backend_id)
        if kept is None:
            kept = mine[backend_id] = Cell()
        kept.merge(cell)
