"""Counts per five minutes, backend and content type, and sums of them over hours.

Whatever happens is counted in three places: in its five minutes, by type and backend; in
its hour, by backend, and for decisions also by type; and in every running sum whose window
it falls into. A running sum is what somebody asks for again and again: everything since
some hours ago. It grows with each event, and every five minutes lets go of those that have
become too old; so an answer adds nothing up. Two are always kept, others for a while. One
that is not kept adds up hours, and five minutes before the first full hour.

What is over is packed (see `packed`), a little with each event, so that nobody waits for
it. An outcome that is told late is counted beside what is packed, and packed in its turn.
"""

import zlib
from base64 import b85decode, b85encode
from collections.abc import Iterator, Mapping
from json import dumps, loads
from typing import Any, TypeVar

from routing.core.usage.cell import Cell
from routing.core.usage.extremes import FIVES_PER_HOUR, Extremes
from routing.core.usage.intervals import Intervals
from routing.core.usage.packing import Names
from routing.core.usage.sketch import bin_of
from routing.core.usage.sliding import COMPLETE, Distribution, Sum, Totals

HOUR_S = 3600.0
WIDTH_S = 300
"""Five minutes: the contract's granularity."""

KEPT_HOURS = 24
"""What is asked where nothing is said, and by every stream of metrics: always at hand, as
is the whole retention."""

MAX_SUMS = 4
"""Sums kept between questions, the two that always are among them. Each costs up to 40 MB,
with a thousand busy backends and all types."""

MOST_SLIDES = 12
"""Five minutes that a sum lets go of one by one. One that nobody asked for an hour is
added up anew, by hours."""

BEFORE_ALL = -(10**9)
"""The number of a five minutes that is older than any: some 9,500 years before 1970."""

UNTYPED = "unknown"
"""Where a request names no content type. No MIME type looks like this."""

FOLDED = "other"
"""Where content types past the limit are counted together."""

_Row = TypeVar("_Row")

_ALL = ""
"""In an hour, the place of what a backend did with all types. No type is called so."""


class Windows:
    """The counts of the last `retention_hours`.

    Bounded by backends × content types × intervals: past `max_content_types`, what
    is new is counted as `other` until an old type has not been seen for the whole
    retention. What is answered is to be read at once, and not to be changed.
    """

    def __init__(self, *, retention_hours: int, max_content_types: int) -> None:
        self._retention_hours = retention_hours
        self._max_content_types = max_content_types
        # Backends that were ever counted; grows with those that the router knows.
        self._names = Names()
        # Intervals of both widths and their extremes; _begin drops what is too old.
        self._fives = Intervals(self._names)
        self._hours = Intervals(self._names)
        self._extremes = Extremes()
        # {content type: five-minute interval in which it was last seen}.
        self._types: dict[str, int] = {}
        self._newest = BEFORE_ALL
        # {(hours, content type): sum}, those asked for last at the end; MAX_SUMS of them.
        self._sums: dict[tuple[int, str], Sum] = {}

    def __repr__(self) -> str:
        return f"Windows(intervals={len(self._fives)}, content_types={len(self._types)})"

    @property
    def retention_hours(self) -> int:
        """How far back the counts reach."""
        return self._retention_hours

    def note_decision(self, backend_id: str, content_type: str, size_bytes: int, *, now: float) -> None:
        """Counts a decision; `size_bytes` 0 means unknown."""
        number = self._admit(now)
        if number is not None:
            name = self._type_name(content_type or UNTYPED, number)
            for cell in self._cells(number, name, backend_id):
                cell.note_decision(size_bytes)
            self._note_decisions(number, name, backend_id, 1)
            self._tidy()

    def note_outcome(
        self, backend_id: str, content_type: str, *, success: bool, duration_ms: int | None, at: float
    ) -> None:
        """Counts an outcome in the interval in which it happened, if that is still kept."""
        number = self._admit(at)
        if number is None:
            return
        cells = self._cells(number, self._type_name(content_type or UNTYPED, number), backend_id)
        for cell in cells:
            cell.note_outcome(success)
        if duration_ms is not None:
            index = bin_of(duration_ms)
            for cell in cells:
                cell.note_duration(index, duration_ms)
            self._extremes.note(number, self._names.number(backend_id), duration_ms, duration_ms)
        self._tidy()

    def totals(self, hours: int, *, backend_id: str = "", content_type: str = "", now: float) -> Totals:
        """{backend: everything in the window}, narrowed to one backend or type where given.

        The window begins with the five minutes that `hours` ago falls in.
        """
        found = self._sum(hours, content_type, now)
        for name in found.doubtful & found.totals.keys():
            durations = found.totals[name].durations
            if durations is not None:
                extremes = self._extremes.since(found.first, self._names.number(name))
                durations.min_ms, durations.max_ms = extremes
        found.doubtful.clear()
        return _only(found.totals, backend_id)

    def distribution(
        self, hours: int, *, backend_id: str = "", content_type: str = "", now: float
    ) -> Distribution:
        """{content type: {backend: decisions in the window}}, without zeros."""
        rows = _only(self._sum(hours, "", now).distribution, content_type)
        if not backend_id:
            return rows
        return {name: {backend_id: row[backend_id]} for name, row in rows.items() if backend_id in row}

    def gather(self, hours: int, *, content_type: str = "", now: float) -> Iterator[None]:
        """Gets an answer ready, in steps of some milliseconds; whoever asks next need not wait.

        Events may come between two steps. Without a type this makes both answers ready.
        """
        for each in dict.fromkeys(("", content_type)):
            # Not `yield from`: whoever gives up in between would end the building for all.
            for _ in self._ready(hours, each, now).building:
                yield

    def snapshot(self) -> dict[str, Any]:
        """The five-minute counts, the oldest first, each packed into a string."""
        return {
            str(number): _packed_text(
                {
                    content_type: {backend: cell.as_row() for backend, cell in sorted(cells.items())}
                    for content_type, cells in sorted(self._fives.whole(number).items())
                }
            )
            for number in self._fives.numbers()
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Adds the counts of a snapshot."""
        for text, packed in sorted(snapshot.items(), key=lambda item: int(item[0])):
            for content_type, backends in _unpacked(packed).items():
                for backend_id, row in backends.items():
                    self._merge_cell(int(text), content_type, backend_id, Cell.from_row(row))

    def _merge_cell(self, number: int, content_type: str, backend_id: str, other: Cell) -> None:
        if self._admit(number * WIDTH_S) is None:
            return
        name = self._type_name(content_type, number)
        for cell in self._cells(number, name, backend_id):
            cell.merge(other)
        if other.decisions:
            self._note_decisions(number, name, backend_id, other.decisions)
        if other.durations is not None:
            durations, backend = other.durations, self._names.number(backend_id)
            self._extremes.note(number, backend, durations.min_ms, durations.max_ms)
        self._tidy()

    def _admit(self, at: float) -> int | None:
        """The number of the five minutes in which this time lies; None where that is too old."""
        number = int(at // WIDTH_S)
        if number > self._newest:
            self._begin(number)
        return number if number >= self._oldest() else None

    def _cells(self, number: int, name: str, backend_id: str) -> list[Cell]:
        """Where an event is counted: its five minutes, its hour, and sums."""
        cells = [
            self._fives.cell(number, name, backend_id),
            self._hours.cell(number // FIVES_PER_HOUR, _ALL, backend_id),
        ]
        cells += [each.total(backend_id) for each in self._sums.values() if each.counts(number, name)]
        return cells

    def _note_decisions(self, number: int, name: str, backend_id: str, decisions: int) -> None:
        """Counts decisions by type in all that is wider than five minutes."""
        self._hours.cell(number // FIVES_PER_HOUR, name, backend_id).decisions += decisions
        for each in self._sums.values():
            if each.counts(number, name):
                each.decided(name, backend_id, decisions)

    def _oldest(self) -> int:
        return self._newest - self._retention_hours * FIVES_PER_HOUR

    def _begin(self, number: int) -> None:
        """A new five minutes: what has become too old is dropped, and what is over gets packed."""
        if self._newest == BEFORE_ALL:
            for hours in (KEPT_HOURS, self._retention_hours):
                first = number - min(hours, self._retention_hours) * FIVES_PER_HOUR
                self._sums[min(hours, self._retention_hours), ""] = Sum(first, "", built=COMPLETE)
        self._newest = number
        oldest = self._oldest()
        for (hours, content_type), each in list(self._sums.items()):
            if not self._slid(each, number - hours * FIVES_PER_HOUR):
                del self._sums[hours, content_type]
        self._fives.drop(oldest)
        self._hours.drop(oldest // FIVES_PER_HOUR)
        self._extremes.drop(oldest)
        # The five minutes before stay open: most outcomes that are told late belong there.
        self._fives.close_before(number - 1)
        self._hours.close_before((number - 1) // FIVES_PER_HOUR)
        for name in [name for name, last in self._types.items() if last < oldest]:
            del self._types[name]

    def _tidy(self) -> None:
        """A little of the work that is put off: each event does about as much as it makes."""
        self._fives.pack_some()
        self._hours.pack_some()
        for each in self._sums.values():
            if each.leaving:
                each.let_go_some(self._names)

    def _type_name(self, content_type: str, number: int) -> str:
        last = self._types.get(content_type)
        if last is None and len(self._types) >= self._max_content_types:
            return FOLDED
        if (last is None or number > last) and content_type != FOLDED:
            # `other` is there whether or not there is room.
            self._types[content_type] = number
        return content_type

    def _sum(self, hours: int, content_type: str, now: float) -> Sum:
        """The sum of this question, complete."""
        found = self._ready(hours, content_type, now)
        for _ in found.building:
            pass
        while found.leaving:
            found.let_go_some(self._names)
        return found

    def _ready(self, hours: int, content_type: str, now: float) -> Sum:
        """The sum of this question, which may still have to be added up."""
        hours = min(hours, self._retention_hours)
        key = (hours, content_type)
        first = int((now - hours * HOUR_S) // WIDTH_S)
        found = self._sums.pop(key, None)
        if found is None or first < found.first or not self._slid(found, first):
            found = Sum(first, content_type, built=first)
            found.building = self._build(found)
        self._sums[key] = found
        if len(self._sums) > MAX_SUMS:
            kept = {(KEPT_HOURS, ""), (self._retention_hours, "")}
            del self._sums[next(each for each in self._sums if each not in kept)]
        return found

    def _slid(self, found: Sum, first: int) -> bool:
        """Moves the beginning of a sum; False where it is easier to add up a new one."""
        if first <= found.first:
            return True
        if found.content_type or found.built < COMPLETE or first - found.first > MOST_SLIDES:
            return False
        for number in range(found.first, first):
            found.leaving.extend(self._fives.packed(number))
            found.let_go(self._fives.open(number).items())
        found.first = first
        return True

    def _build(self, found: Sum) -> Iterator[None]:
        """Adds up what a sum is of, the oldest first. What happens meanwhile in an interval
        that was added already is counted by `_cells`."""
        first_hour = COMPLETE if found.content_type else -(-found.first // FIVES_PER_HOUR)
        wanted = found.content_type or None
        while found.built <= self._newest and found.built < first_hour * FIVES_PER_HOUR:
            for name, cells in self._fives.read(found.built, wanted):
                for backend_id, cell in cells.items():
                    found.add(name, backend_id, cell)
            found.built += 1
            yield
        while found.built <= self._newest:
            for name, cells in self._hours.read(found.built // FIVES_PER_HOUR):
                _add_hour(found, name, cells)
            found.built += FIVES_PER_HOUR
            yield
        found.built = COMPLETE


def _add_hour(found: Sum, name: str, cells: Mapping[str, Cell]) -> None:
    for backend_id, cell in cells.items():
        if name == _ALL:
            found.total(backend_id).merge(cell)
        else:
            found.decided(name, backend_id, cell.decisions)


def _only(rows: dict[str, _Row], name: str) -> dict[str, _Row]:
    """All of them, or the one of this name where one is given."""
    return rows if not name else {name: rows[name]} if name in rows else {}


def _packed_text(rows: Mapping[str, Mapping[str, list[int]]]) -> str:
    return b85encode(zlib.compress(dumps(rows, separators=(",", ":")).encode())).decode()


def _unpacked(packed: Any) -> Mapping[str, Mapping[str, list[int]]]:
    """The rows of a snapshot's interval; before they were packed, they stood there as they are."""
    rows: Mapping[str, Mapping[str, list[int]]] = packed
    if isinstance(packed, str):
        rows = loads(zlib.decompress(b85decode(packed)))
    return rows
