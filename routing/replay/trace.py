"""A trace in the order of its times, row by row, with what was wrong with it."""

import heapq
from collections.abc import Iterator

from routing.errors import BadTrace
from routing.replay.columns import COLUMNS, BadField, Fields, TraceRow, read_row
from routing.replay.source import Source

REORDER_WINDOW_ROWS = 50_000
"""Rows held back, in some 60 MB, to put them in order. With fewer, a trace that was merged from
the logs of several machines would have to be sorted first."""

MAX_UNKNOWN_COLUMNS = 20
"""Unknown columns that are remembered: JSON may have another in every row."""


class Trace:
    """Goes through a source once. A row that is wrong ends it, or is skipped and counted.

    `out_of_order` counts those that stood behind a later one; `skipped` those that were
    wrong, `first_skipped` saying what was wrong with the first; `unknown` are the columns
    that nobody reads.
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
        """What messages call it."""
        return self._source.name

    @property
    def share_read(self) -> float | None:
        """How much of it was read, if anybody knows."""
        return self._source.share_read

    @property
    def tells_propensity(self) -> bool:
        """Whether its choices have known probabilities; known from the first row on."""
        return self._first is not None and self._first.propensity is not None

    def __iter__(self) -> Iterator[TraceRow]:
        """The rows by time, those of one time as they stand."""
        waiting: list[tuple[float, int, TraceRow]] = []
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
            heapq.heappush(waiting, (row.at, row.line, row))
            if len(waiting) > self._sorted_rows:
                done, _, first = heapq.heappop(waiting)
                yield first
        while waiting:
            yield heapq.heappop(waiting)[2]

    def reject(self, line: int, expected: str) -> None:
        """Counts a row that is wrong, or raises BadTrace about it."""
        self._reject(BadTrace(self.name, line, expected))

    def _reject(self, wrong: BadTrace) -> None:
        if not self._skip_invalid:
            raise wrong
        self.skipped += 1
        self.first_skipped = self.first_skipped or wrong.message

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
            except BadField as wrong:
                self.reject(line, str(wrong))
                continue
            yield row

    def _note_names(self, fields: Fields) -> None:
        for name in fields:
            if name not in COLUMNS and name not in self.unknown and len(self.unknown) < MAX_UNKNOWN_COLUMNS:
                self.unknown.append(name)

    def _check_propensity(self, row: TraceRow) -> None:
        """An estimate cannot be weighted for some rows and not for others."""
        self._first = self._first or row
        if (row.propensity is None) != (self._first.propensity is None):
            has = "none" if self._first.propensity is None else "one"
            raise BadField("propensity", f"expected {has}, as in line {self._first.line}")
