"""Counts per five minutes, backend and content type, and their sums over hours.

Each event is counted in three places: in its five-minute interval, by type and backend;
in its hour, by backend, and for decisions also by type; and in every sliding sum whose
window it falls into. A sliding sum covers everything since some hours ago. It grows with
each event, and subtracts an interval once that is too old, so an answer adds nothing up.
Two sums are always kept, others for a while. A new sum is added up from hours, and from
the intervals before the first full hour.

Closed intervals are packed (see `packing`), a little with each event, so that no event
waits for it. The counts of a late outcome are kept unpacked at first, and packed later.
"""

import zlib
from base64 import b85decode, b85encode
from collections.abc import Iterator, Mapping
from json import dumps, loads
from typing import Any, TypeVar

from routing.core.usage.cell import UsageCell
from routing.core.usage.extremes import INTERVALS_PER_HOUR, Extremes
from routing.core.usage.intervals import Intervals
from routing.core.usage.packing import BackendNumbers
from routing.core.usage.sketch import bin_of
from routing.core.usage.sliding import BUILT, Distribution, SlidingSum, Totals

HOUR_S = 3600.0
INTERVAL_S = 300
"""The contract's granularity."""

DEFAULT_HOURS = 24
"""The contract's window if a request names none, which every stream of metrics uses too. Its sum
is always kept, as is that of the whole retention."""

MAX_SUMS = 4
"""Sliding sums that are kept, including the two that always are. Each takes up to 40 MB, with a
thousand busy backends and all types."""

MAX_SLIDES = 12
"""Intervals that a sum subtracts one by one. A sum that was not used for an hour is added up
again from hours instead."""

NO_INTERVAL = -(10**9)
"""An interval that is older than any: some 9,500 years before 1970."""

UNKNOWN_TYPE = "unknown"
"""The type of requests that name none. It is not a MIME type, so it cannot collide with one."""

OTHER_TYPES = "other"
"""The type under which content types beyond the limit are counted together."""

_Row = TypeVar("_Row")

_ALL_TYPES = ""
"""The key of an hour's counts over all types; no type has this name."""


class Windows:
    """The counts of the last `retention_hours`.

    Bounded by backends × content types × intervals: beyond `max_content_types`, new types
    are counted as `other` until a known type has not been seen for the whole retention.
    Callers read answers at once and do not change them: the sums go on counting.
    """

    def __init__(self, *, retention_hours: int, max_content_types: int) -> None:
        self._retention_hours = retention_hours
        self._max_content_types = max_content_types
        # Numbers of the backends that were counted; bounded by those that the router knows.
        self._names = BackendNumbers()
        # Intervals, hours and their extremes; _start_interval drops those that are too old.
        self._intervals = Intervals(self._names)
        self._hours = Intervals(self._names)
        self._extremes = Extremes()
        # {content type: interval in which it was last seen}.
        self._types: dict[str, int] = {}
        self._newest = NO_INTERVAL
        # {(hours, content type): sum}, most recently used last; at most MAX_SUMS.
        self._sums: dict[tuple[int, str], SlidingSum] = {}

    def __repr__(self) -> str:
        return f"Windows(intervals={len(self._intervals)}, content_types={len(self._types)})"

    @property
    def retention_hours(self) -> int:
        """How many hours the counts are kept."""
        return self._retention_hours

    def note_decision(self, backend_id: str, content_type: str, size_bytes: int, *, now: float) -> None:
        """Counts a decision; `size_bytes` 0 means unknown."""
        number = self._interval_of(now)
        if number is not None:
            name = self._type_name(content_type or UNKNOWN_TYPE, number)
            for cell in self._cells(number, name, backend_id):
                cell.note_decision(size_bytes)
            self._note_decisions(number, name, backend_id, 1)
            self._work_off_some()

    def note_outcome(
        self, backend_id: str, content_type: str, *, success: bool, duration_ms: int | None, at: float
    ) -> None:
        """Counts an outcome in the interval in which it happened, unless that is too old.

        Only durations of successes are counted: a refused connection takes a millisecond, and a
        failing backend would look the fastest.
        """
        number = self._interval_of(at)
        if number is None:
            return
        cells = self._cells(number, self._type_name(content_type or UNKNOWN_TYPE, number), backend_id)
        for cell in cells:
            cell.note_outcome(success)
        if success and duration_ms is not None:
            index = bin_of(duration_ms)
            for cell in cells:
                cell.note_duration(index, duration_ms)
            self._extremes.note(number, self._names.number(backend_id), duration_ms, duration_ms)
        self._work_off_some()

    def totals(self, hours: int, *, backend_id: str = "", content_type: str = "", now: float) -> Totals:
        """{backend: its counts in the window}, of one backend or type only if given.

        The window begins with the interval that contains the time `hours` ago.
        """
        sliding = self._sum(hours, content_type, now)
        for name in sliding.stale_extremes & sliding.totals.keys():
            durations = sliding.totals[name].durations
            if durations is not None:
                extremes = self._extremes.since(sliding.first, self._names.number(name))
                durations.min_ms, durations.max_ms = extremes
        sliding.stale_extremes.clear()
        return _only(sliding.totals, backend_id)

    def distribution(
        self, hours: int, *, backend_id: str = "", content_type: str = "", now: float
    ) -> Distribution:
        """{content type: {backend: decisions in the window}}, without zeros."""
        rows = _only(self._sum(hours, "", now).distribution, content_type)
        if not backend_id:
            return rows
        return {name: {backend_id: row[backend_id]} for name, row in rows.items() if backend_id in row}

    def prepare(self, hours: int, *, content_type: str = "", now: float) -> Iterator[None]:
        """Prepares the sum over all types and, if one is given, that of the type, in steps of some
        milliseconds, so that the next question does not wait. Events may come between steps.
        """
        for each in dict.fromkeys(("", content_type)):
            # Not `yield from`: a caller that closes this generator would close the sum's too.
            for _ in self._sum_in_progress(hours, each, now).build_steps:
                yield

    def snapshot(self) -> dict[str, Any]:
        """{interval: its counts as a compressed string}, oldest first."""
        return {
            str(number): _packed_text(
                {
                    content_type: {backend: cell.as_row() for backend, cell in sorted(cells.items())}
                    for content_type, cells in sorted(self._intervals.merged(number).items())
                }
            )
            for number in self._intervals.numbers()
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Adds the counts of a snapshot."""
        for text, packed in sorted(snapshot.items(), key=lambda item: int(item[0])):
            for content_type, backends in _unpacked(packed).items():
                for backend_id, row in backends.items():
                    self._merge_cell(int(text), content_type, backend_id, UsageCell.from_row(row))

    def _merge_cell(self, number: int, content_type: str, backend_id: str, other: UsageCell) -> None:
        if self._interval_of(number * INTERVAL_S) is None:
            return
        name = self._type_name(content_type, number)
        for cell in self._cells(number, name, backend_id):
            cell.merge(other)
        if other.decisions:
            self._note_decisions(number, name, backend_id, other.decisions)
        if other.durations is not None:
            durations, backend = other.durations, self._names.number(backend_id)
            self._extremes.note(number, backend, durations.min_ms, durations.max_ms)
        self._work_off_some()

    def _interval_of(self, at: float) -> int | None:
        """The number of the interval that contains this time; None if that is too old."""
        number = int(at // INTERVAL_S)
        if number > self._newest:
            self._start_interval(number)
        return number if number >= self._oldest() else None

    def _cells(self, number: int, name: str, backend_id: str) -> list[UsageCell]:
        """The cells in which an event is counted: its interval's, its hour's and those of sums."""
        cells = [
            self._intervals.cell(number, name, backend_id),
            self._hours.cell(number // INTERVALS_PER_HOUR, _ALL_TYPES, backend_id),
        ]
        cells += [each.total(backend_id) for each in self._sums.values() if each.includes(number, name)]
        return cells

    def _note_decisions(self, number: int, name: str, backend_id: str, decisions: int) -> None:
        """Counts decisions by type in the hour and in the sums."""
        self._hours.cell(number // INTERVALS_PER_HOUR, name, backend_id).decisions += decisions
        for each in self._sums.values():
            if each.includes(number, name):
                each.add_decisions(name, backend_id, decisions)

    def _oldest(self) -> int:
        return self._newest - self._retention_hours * INTERVALS_PER_HOUR

    def _start_interval(self, number: int) -> None:
        """Starts an interval: drops those that are now too old, and closes the earlier ones."""
        if self._newest == NO_INTERVAL:
            for hours in (DEFAULT_HOURS, self._retention_hours):
                first = number - min(hours, self._retention_hours) * INTERVALS_PER_HOUR
                self._sums[min(hours, self._retention_hours), ""] = SlidingSum(first, "", built_until=BUILT)
        self._newest = number
        oldest = self._oldest()
        for (hours, content_type), each in list(self._sums.items()):
            if not self._slide(each, number - hours * INTERVALS_PER_HOUR):
                del self._sums[hours, content_type]
        self._intervals.drop(oldest)
        self._hours.drop(oldest // INTERVALS_PER_HOUR)
        self._extremes.drop(oldest)
        # The previous interval stays open: most late outcomes belong to it.
        self._intervals.close_before(number - 1)
        self._hours.close_before((number - 1) // INTERVALS_PER_HOUR)
        for name in [name for name, last in self._types.items() if last < oldest]:
            del self._types[name]

    def _work_off_some(self) -> None:
        """Does a little of the deferred work: each event does about as much as it causes."""
        self._intervals.pack_some()
        self._hours.pack_some()
        for each in self._sums.values():
            if each.expiring:
                each.subtract_some(self._names)

    def _type_name(self, content_type: str, number: int) -> str:
        last = self._types.get(content_type)
        if last is None and len(self._types) >= self._max_content_types:
            return OTHER_TYPES
        if (last is None or number > last) and content_type != OTHER_TYPES:
            # `other` takes no room.
            self._types[content_type] = number
        return content_type

    def _sum(self, hours: int, content_type: str, now: float) -> SlidingSum:
        """The sum for this question, complete."""
        sliding = self._sum_in_progress(hours, content_type, now)
        for _ in sliding.build_steps:
            pass
        while sliding.expiring:
            sliding.subtract_some(self._names)
        return sliding

    def _sum_in_progress(self, hours: int, content_type: str, now: float) -> SlidingSum:
        """The sum for this question, which may still have to be built."""
        hours = min(hours, self._retention_hours)
        key = (hours, content_type)
        first = int((now - hours * HOUR_S) // INTERVAL_S)
        sliding = self._sums.pop(key, None)
        if sliding is None or first < sliding.first or not self._slide(sliding, first):
            sliding = SlidingSum(first, content_type, built_until=first)
            sliding.build_steps = self._build(sliding)
        self._sums[key] = sliding
        if len(self._sums) > MAX_SUMS:
            always_kept = {(DEFAULT_HOURS, ""), (self._retention_hours, "")}
            del self._sums[next(each for each in self._sums if each not in always_kept)]
        return sliding

    def _slide(self, sliding: SlidingSum, first: int) -> bool:
        """Moves the beginning of a sum's window; False if building a new sum is cheaper."""
        if first <= sliding.first:
            return True
        if sliding.content_type or sliding.built_until < BUILT or first - sliding.first > MAX_SLIDES:
            return False
        for number in range(sliding.first, first):
            sliding.expiring.extend(self._intervals.packed(number))
            sliding.subtract(self._intervals.open(number).items())
        sliding.first = first
        return True

    def _build(self, sliding: SlidingSum) -> Iterator[None]:
        """Adds up a sum, oldest first, one interval or hour a step. Events that happen meanwhile
        in an interval that was already added are counted by `_cells`."""
        first_hour = BUILT if sliding.content_type else -(-sliding.first // INTERVALS_PER_HOUR)
        wanted = sliding.content_type or None
        while sliding.built_until <= self._newest and sliding.built_until < first_hour * INTERVALS_PER_HOUR:
            for name, cells in self._intervals.read(sliding.built_until, wanted):
                for backend_id, cell in cells.items():
                    sliding.add(name, backend_id, cell)
            sliding.built_until += 1
            yield
        while sliding.built_until <= self._newest:
            for name, cells in self._hours.read(sliding.built_until // INTERVALS_PER_HOUR):
                _add_hour(sliding, name, cells)
            sliding.built_until += INTERVALS_PER_HOUR
            yield
        sliding.built_until = BUILT


def _add_hour(sliding: SlidingSum, name: str, cells: Mapping[str, UsageCell]) -> None:
    for backend_id, cell in cells.items():
        if name == _ALL_TYPES:
            sliding.total(backend_id).merge(cell)
        else:
            sliding.add_decisions(name, backend_id, cell.decisions)


def _only(rows: dict[str, _Row], name: str) -> dict[str, _Row]:
    """All rows, or the one of this name if one is given."""
    if not name:
        return rows
    return {name: rows[name]} if name in rows else {}


def _packed_text(rows: Mapping[str, Mapping[str, list[int]]]) -> str:
    return b85encode(zlib.compress(dumps(rows, separators=(",", ":")).encode())).decode()


def _unpacked(packed: Any) -> Mapping[str, Mapping[str, list[int]]]:
    """The rows of an interval in a snapshot; older versions stored them uncompressed."""
    rows: Mapping[str, Mapping[str, list[int]]] = packed
    if isinstance(packed, str):
        rows = loads(zlib.decompress(b85decode(packed)))
    return rows
