"""Yields the rows of a trace in order of time, and counts invalid ones."""

import heapq
from collections.abc import Iterator

from routing.errors import BadTrace
from routing.replay.columns import COLUMNS, BadField, Fields, TraceRow, read_row
from routing.replay.source import Source

REORDER_WINDOW_ROWS = 50_000
"""Rows buffered for sorting, about 60 MB. With fewer, traces merged from the logs of several
machines would have to be sorted first."""

MAX_UNKNOWN_COLUMNS = 20
"""Unknown columns that are listed: JSON may have a different one in every row."""


class Trace:
    """Iterates over a source once. An invalid row raises BadTrace, or is skipped and counted.

    `out_of_order` counts rows that follow a later one, `skipped` invalid rows; `first_skipped` is
    the first one's error, `unknown` the columns that are ignored.
    """

    def __init__(
        self, source: Source, asked: Fields, *, skip_invalid: bool, sorted_rows: int = REORDER_WINDOW_ROWS
    ) -> None:
        self._source = source
        self._asked = asked
        self._skip_invalid = skip_invalid
        self._sorted_rows = sorted_rows
        self._first: TraceRow | None = None
        self.out_of_order = 0
        self.skipped = 0
        self.first_skipped = ""
        self.unknown: list[str] = []

    @property
    def name(self) -> str:
        """The name for messages."""
        return self._source.name

    @property
    def share_read(self) -> float | None:
        """Share of the file that was read; None if unknown."""
        return self._source.share_read

    @property
    def has_propensity(self) -> bool:
        """Whether rows have propensities; decided by the first row."""
        return self._first is not None and self._first.propensity is not None

    def __iter__(self) -> Iterator[TraceRow]:
        """The rows by time; rows of equal time in the order of the file."""
        buffered: list[tuple[float, int, TraceRow]] = []
        latest = done = float("-inf")
        for row in self._read():
            if row.at < done:
                late = (
                    f"expected rows out of order by at most {self._sorted_rows:,} rows: sort the file first"
                )
                self.reject(row.line, f"timestamp: {late}")
                continue
            self.out_of_order += row.at < latest
            latest = max(latest, row.at)
            heapq.heappush(buffered, (row.at, row.line, row))
            if len(buffered) > self._sorted_rows:
                done, _, first = heapq.heappop(buffered)
                yield first
        while buffered:
            yield heapq.heappop(buffered)[2]

    def reject(self, line: int, expected: str) -> None:
        """Counts an invalid row, or raises BadTrace."""
        self._reject(BadTrace(self.name, line, expected))

    def _reject(self, error: BadTrace) -> None:
        if not self._skip_invalid:
            raise error
        self.skipped += 1
        self.first_skipped = self.first_skipped or error.message

    def _read(self) -> Iterator[TraceRow]:
        for given in self._source.rows():
            if isinstance(given, BadTrace):
                self._reject(given)
                continue
            line, fields = given
            self._note_names(fields)
            try:
                row = read_row(line, fields, self._asked)
                self._check_propensity(row)
            except BadField as error:
                self.reject(line, str(error))
                continue
            yield row

    def _note_names(self, fields: Fields) -> None:
        for name in fields:
            if name not in COLUMNS and name not in self.unknown and len(self.unknown) < MAX_UNKNOWN_COLUMNS:
                self.unknown.append(name)

    def _check_propensity(self, row: TraceRow) -> None:
        """Either all rows have a propensity or none: estimates cannot be weighted for some rows only."""
        self._first = self._first or row
        if (row.propensity is None) != (self._first.propensity is None):
            has = "none" if self._first.propensity is None else "one"
            raise BadField("propensity", f"expected {has}, as in line {self._first.line}")
