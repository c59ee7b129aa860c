"""Counts per five minutes, backend and content type, and sums of them over hours.

Time is cut into intervals of three widths: five minutes, an hour, a day. Whatever
happens is counted once in each width. A question about the last h hours is then a
sum of few intervals: five-minute ones up to the first full hour, hours up to the
first full day, days, and hours and five minutes again up to now. At most 11 + 23 + days
+ 23 + 11 intervals are added, however much happened in them; and what lies before the
newest five minutes is added only once for all who ask the same.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from routing.core.counts import Cell, Interval
from routing.core.sketch import bin_of

HOUR_S = 3600.0
WIDTHS_S = (300, 3600, 86_400)
"""Five minutes is the contract's granularity; each width divides the next one."""

MAX_SUMS = 4
"""Sums kept between questions: what a stream of metrics and one dashboard ask. More cost
up to 20 MB each, with a thousand busy backends."""

BEFORE_ALL = -(10**9)
"""The number of a five minutes that is older than any: some 9,500 years before 1970."""

UNTYPED = "unknown"
"""Where a request names no content type. No MIME type looks like this."""

FOLDED = "other"
"""Where content types past the limit are counted together."""


class Question(NamedTuple):
    """Which events to sum; empty names narrow nothing."""

    hours: int
    backend_id: str
    content_type: str


Totals = dict[str, Cell]
Distribution = dict[str, dict[str, int]]

_Sums = TypeVar("_Sums", Totals, Distribution)


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
        # Sums of all but the newest five minutes, with the state of things that they are of:
        # they change when five minutes are over, or something happened before. The last
        # MAX_SUMS of them.
        self._sums: dict[object, tuple[tuple[int, int, int], Any]] = {}
        self._late_events = 0

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

    def totals(self, hours: int, *, backend_id: str = "", content_type: str = "", now: float) -> Totals:
        """{backend: everything in the window}, narrowed to one backend or type where given.

        The window begins with the five minutes that `hours` ago falls in.
        """
        question = Question(min(hours, self._retention_hours), backend_id, content_type)
        return self._summed(_add_totals, _copy_totals, question, now)

    def distribution(
        self, hours: int, *, backend_id: str = "", content_type: str = "", now: float
    ) -> Distribution:
        """{content type: {backend: decisions in the window}}, without zeros."""
        question = Question(min(hours, self._retention_hours), backend_id, content_type)
        return self._summed(_add_distribution, _copy_distribution, question, now)

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
        elif number < self._newest:
            if number < self._oldest():
                return []
            self._late_events += 1
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

    def _summed(
        self,
        add: Callable[[_Sums, Interval, Question], None],
        copy: Callable[[_Sums], _Sums],
        question: Question,
        now: float,
    ) -> _Sums:
        """What `add` adds up over the window: the newest five minutes, and the sums before them."""
        span = WIDTHS_S[0]
        first = int((now - question.hours * HOUR_S) // span)
        state = (first, self._newest, self._late_events)
        before: _Sums
        known_state, before = self._sums.pop((add, question), (None, {}))
        if known_state != state:
            before = {}
            for interval in self._covering(first * span, self._newest * span):
                add(before, interval, question)
        self._sums[add, question] = (state, before)
        if len(self._sums) > MAX_SUMS:
            del self._sums[next(iter(self._sums))]
        sums = copy(before)
        if self._newest >= first and self._latest:
            add(sums, self._latest[0], question)
        return sums

    def _covering(self, place: int, end: int) -> Iterator[Interval]:
        """The fewest intervals that cover the time from `place` up to `end`.

        It walks up: at each place it takes the widest interval that begins there and does
        not reach past the end.
        """
        while place < end:
            width = max(width for width in self._levels if place % width == 0 and place + width <= end)
            interval = self._levels[width].get(place // width)
            if interval is not None:
                yield interval
            place += width


def _add_totals(sums: Totals, interval: Interval, question: Question) -> None:
    cells = interval.by_backend
    if question.content_type:
        cells = interval.by_type.get(question.content_type, {})
    if question.backend_id:
        cells = {name: cell for name, cell in cells.items() if name == question.backend_id}
    for name, cell in cells.items():
        total = sums.get(name)
        if total is None:
            total = sums[name] = Cell()
        total.merge(cell)


def _copy_totals(sums: Totals) -> Totals:
    copies = {name: Cell() for name in sums}
    for name, cell in sums.items():
        copies[name].merge(cell)
    return copies


def _copy_distribution(sums: Distribution) -> Distribution:
    return {content_type: {**row} for content_type, row in sums.items()}


def _add_distribution(sums: Distribution, interval: Interval, question: Question) -> None:
    for content_type, cells in interval.by_type.items():
        if question.content_type in ("", content_type):
            for backend_id, cell in cells.items():
                if cell.decisions and question.backend_id in ("", backend_id):
                    row = sums.setdefault(content_type, {})
                    row[backend_id] = row.get(backend_id, 0) + cell.decisions
