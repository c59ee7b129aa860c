"""Counts per five minutes, backend and content type, and sums of them over hours.

Time is cut into intervals of three widths: five minutes, an hour, a day. Whatever
happens is counted once in each width. A question about the last h hours is then a
sum of few intervals: five-minute ones up to the first full hour, hours up to the
first full day, and days. At most 11 + 23 + days intervals are added, however much
happened in them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from routing.core.sketch import Sketch, bin_of

HOUR_S = 3600.0
WIDTHS_S = (300, 3600, 86_400)
"""Five minutes is the contract's granularity; each width divides the next one."""

BEFORE_ALL = -(10**9)
"""The number of a five minutes that is older than any: some 9,500 years before 1970."""

UNTYPED = "unknown"
"""Where a request names no content type. No MIME type looks like this."""

FOLDED = "other"
"""Where content types past the limit are counted together."""


class Cell:
    """What happened on one backend with one content type in one interval; all of it adds."""

    __slots__ = ("bytes_total", "decisions", "durations", "outcomes", "successes")

    def __init__(self) -> None:
        self.decisions = 0
        self.bytes_total = 0
        self.outcomes = 0
        self.successes = 0
        self.durations: Sketch | None = None

    def __repr__(self) -> str:
        return f"Cell(decisions={self.decisions}, outcomes={self.outcomes}, successes={self.successes})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.as_row() == other.as_row()

    __hash__ = None  # type: ignore[assignment]  # it changes with every event

    def note_decision(self, size_bytes: int) -> None:
        self.decisions += 1
        self.bytes_total += size_bytes

    def note_outcome(self, success: bool) -> None:
        self.outcomes += 1
        self.successes += success

    def note_duration(self, index: int, duration_ms: int) -> None:
        if self.durations is None:
            self.durations = Sketch()
        self.durations.add_to(index, duration_ms)

    def merge(self, other: "Cell") -> None:
        self.decisions += other.decisions
        self.bytes_total += other.bytes_total
        self.outcomes += other.outcomes
        self.successes += other.successes
        if other.durations is not None:
            if self.durations is None:
                self.durations = Sketch()
            self.durations.merge(other.durations)

    def as_row(self) -> list[int]:
        """All of it as whole numbers."""
        row = [self.decisions, self.bytes_total, self.outcomes, self.successes]
        return row if self.durations is None else row + self.durations.as_row()

    @classmethod
    def from_row(cls, row: list[int]) -> "Cell":
        """The cell that `as_row` wrote."""
        cell = cls()
        cell.decisions, cell.bytes_total, cell.outcomes, cell.successes = row[:4]
        if len(row) > 4:
            cell.durations = Sketch.from_row(row[4:])
        return cell


class Interval:
    """One stretch of time: a cell for each backend, and one for each content type and backend.

    The first are the sums of the second, kept because most questions are about them.
    """

    __slots__ = ("by_backend", "by_type")

    def __init__(self) -> None:
        self.by_backend: dict[str, Cell] = {}
        self.by_type: dict[str, dict[str, Cell]] = {}

    def cells(self, backend_id: str, content_type: str) -> tuple[Cell, Cell]:
        """The two cells in which one event is counted."""
        total = self.by_backend.get(backend_id)
        if total is None:
            total = self.by_backend[backend_id] = Cell()
        typed = self.by_type.get(content_type)
        if typed is None:
            typed = self.by_type[content_type] = {}
        cell = typed.get(backend_id)
        if cell is None:
            cell = typed[backend_id] = Cell()
        return total, cell


class Windows:
    """The counts of the last `retention_hours`.

    Bounded by backends × content types × intervals: past `max_content_types`, what
    is new is counted as `other` until an old type has not been seen for the whole
    retention.
    """

    def __init__(self, *, retention_hours: int, max_content_types: int) -> None:
        self._retention_hours = retention_hours
        self._max_content_types = max_content_types
        # {interval number: Interval} for each width; _admit drops what is too old.
        # A width beyond the retention would answer nothing, and keep types that are long gone.
        widths = [width for width in WIDTHS_S if width <= retention_hours * HOUR_S]
        self._levels: dict[int, dict[int, Interval]] = {width: {} for width in widths}
        # {content type: five-minute interval in which it was last seen}.
        self._types: dict[str, int] = {}
        # The number of the newest five minutes, and the intervals of each width that hold them.
        self._newest = BEFORE_ALL
        self._latest: list[Interval] = []

    def __repr__(self) -> str:
        return f"Windows(intervals={len(self._levels[WIDTHS_S[0]])}, content_types={len(self._types)})"

    @property
    def retention_hours(self) -> int:
        """How far back the counts reach."""
        return self._retention_hours

    def note_decision(self, backend_id: str, content_type: str, size_bytes: int, *, now: float) -> None:
        """Counts a decision; `size_bytes` 0 means unknown."""
        for cell in self._cells(backend_id, content_type, now):
            cell.note_decision(size_bytes)

    def note_outcome(
        self, backend_id: str, content_type: str, *, success: bool, duration_ms: int | None, at: float
    ) -> None:
        """Counts an outcome in the interval in which it happened, if that is still kept."""
        cells = self._cells(backend_id, content_type, at)
        for cell in cells:
            cell.note_outcome(success)
        if duration_ms is not None:
            index = bin_of(duration_ms)
            for cell in cells:
                cell.note_duration(index, duration_ms)

    def totals(
        self, hours: int, *, backend_id: str = "", content_type: str = "", now: float
    ) -> dict[str, Cell]:
        """{backend: everything in the window}, narrowed to one backend or type where given.

        The window begins with the five minutes that `hours` ago falls in.
        """
        sums: dict[str, Cell] = {}
        for interval in self._covering(hours, now):
            cells = interval.by_type.get(content_type, {}) if content_type else interval.by_backend
            if backend_id:
                cells = {backend_id: cells[backend_id]} if backend_id in cells else {}
            for name, cell in cells.items():
                total = sums.get(name)
                if total is None:
                    total = sums[name] = Cell()
                total.merge(cell)
        return sums

    def distribution(
        self, hours: int, *, backend_id: str = "", content_type: str = "", now: float
    ) -> dict[str, dict[str, int]]:
        """{content type: {backend: decisions in the window}}, without zeros."""
        sums: dict[str, dict[str, int]] = {}
        for interval in self._covering(hours, now):
            for name, cells in interval.by_type.items():
                if content_type and name != content_type:
                    continue
                for backend, cell in cells.items():
                    if cell.decisions and (not backend_id or backend == backend_id):
                        row = sums.setdefault(name, {})
                        row[backend] = row.get(backend, 0) + cell.decisions
        return sums

    def snapshot(self) -> dict[str, Any]:
        """The five-minute counts, the oldest first; the wider ones are their sums."""
        return {
            str(number): {
                content_type: {backend: cell.as_row() for backend, cell in cells.items()}
                for content_type, cells in interval.by_type.items()
            }
            for number, interval in sorted(self._levels[WIDTHS_S[0]].items())
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Adds the counts of a snapshot."""
        for number, types in sorted(snapshot.items(), key=lambda item: int(item[0])):
            for content_type, backends in types.items():
                for backend_id, row in backends.items():
                    other = Cell.from_row(row)
                    for cell in self._cells(backend_id, content_type, int(number) * WIDTHS_S[0]):
                        cell.merge(other)

    def _cells(self, backend_id: str, content_type: str, at: float) -> list[Cell]:
        """The cells in which an event of this time is counted; none where that is too old."""
        number = int(at // WIDTHS_S[0])
        if number > self._newest:
            self._begin(number)
        elif number < self._newest and number < self._oldest():
            return []
        name = self._type_name(content_type or UNTYPED, number)
        intervals = self._latest if number == self._newest else self._intervals(at)
        return [cell for interval in intervals for cell in interval.cells(backend_id, name)]

    def _intervals(self, at: float) -> list[Interval]:
        """The one of each width in which this time lies."""
        return [level.setdefault(int(at // width), Interval()) for width, level in self._levels.items()]

    def _oldest(self) -> int:
        return self._newest - self._retention_hours * WIDTHS_S[1] // WIDTHS_S[0]

    def _begin(self, number: int) -> None:
        """A new five minutes: what has become too old is dropped, in every width."""
        self._newest = number
        oldest = self._oldest()
        for width, level in self._levels.items():
            limit = oldest * WIDTHS_S[0] // width
            for index in [index for index in level if index < limit]:
                del level[index]
        for name in [name for name, last in self._types.items() if last < oldest]:
            del self._types[name]
        self._latest = self._intervals(number * WIDTHS_S[0])

    def _type_name(self, content_type: str, number: int) -> str:
        last = self._types.get(content_type)
        if last is None and len(self._types) >= self._max_content_types:
            return FOLDED
        if (last is None or number > last) and content_type != FOLDED:
            # `other` is there whether or not there is room.
            self._types[content_type] = number
        return content_type

    def _covering(self, hours: int, now: float) -> Iterator[Interval]:
        """The fewest intervals that cover the last hours, the oldest first.

        It walks up from the window's first five minutes: at each place it takes the
        widest interval that begins there. The last one may reach past now, where
        nothing has happened yet.
        """
        span = WIDTHS_S[0]
        place = int((now - min(hours, self._retention_hours) * HOUR_S) // span) * span
        while place <= now:
            width = max(width for width in self._levels if place % width == 0)
            interval = self._levels[width].get(place // width)
            if interval is not None:
                yield interval
            place += width
