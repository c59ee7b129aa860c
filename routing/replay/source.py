"""Reads a trace file as rows with line numbers: CSV or JSON lines, with or without gzip."""

import csv
import gzip
import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from io import BufferedReader, TextIOWrapper
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NoReturn, Self, cast

from routing.config.toml import place
from routing.config.validators import described
from routing.errors import BadTrace, listed, shown
from routing.replay.columns import REQUIRED

STANDARD_INPUT = "-"
_GZIP = b"\x1f\x8b"
MAX_LINE_CHARACTERS = 4 << 20
"""The maximum size of a request. Without a limit, a file without line ends would fill the memory."""

_READ_ERRORS = (OSError, EOFError, zlib.error)
"""Errors of reading from the disk or from a gzip file."""

SourceRow = tuple[int, Mapping[str, Any]] | BadTrace
"""The number of the row's last line and its fields, or the error."""


class Source:
    """An open trace. `rows` can be iterated once and holds one row at a time.

    The content determines the format: gzip by its first two bytes, JSON lines by an opening
    brace; anything else is CSV with a header.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == STANDARD_INPUT else place(path)
        self._path = path
        self._open = ExitStack()
        self._file: BinaryIO | None = None
        self._size = 0

    def __enter__(self) -> Self:
        if self._path == STANDARD_INPUT:
            self._file = getattr(sys.stdin, "buffer", None)
            if self._file is None:
                raise BadTrace(self.name, 0, "expected one that is open")
            return self
        try:
            path = Path(self._path)
            self._file = self._open.enter_context(path.open("rb"))
            self._size = path.stat().st_size
        except (OSError, ValueError) as error:  # ValueError: a path with a null byte
            self._fail(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def share_read(self) -> float | None:
        """Share of the file that was read; None if the size is unknown."""
        if self._file is None or not self._size:
            return None
        return min(1.0, self._file.tell() / self._size)

    def rows(self) -> Iterator[SourceRow]:
        """All rows. Raises BadTrace for errors after which reading cannot go on."""
        try:
            yield from self._rows()
        except _READ_ERRORS as error:
            self._fail(error)

    def _rows(self) -> Iterator[SourceRow]:
        lines, blank = self._lines(), 0
        for first in lines:
            if not first.strip():
                blank += 1
                continue
            read = self._json_rows if first.lstrip().startswith("{") else self._csv_rows
            return read(chain((first,), lines), blank)
        raise BadTrace(self.name, 0, "expected rows, got nothing")

    def _lines(self) -> Iterator[str]:
        text = self._text()
        for line, content in enumerate(iter(lambda: text.readline(MAX_LINE_CHARACTERS + 1), ""), 1):
            if len(content) > MAX_LINE_CHARACTERS:
                raise BadTrace(
                    self.name, line, f"expected at most {MAX_LINE_CHARACTERS:,} characters in a line"
                )
            yield content

    def _text(self) -> TextIOWrapper:
        assert self._file is not None, "rows are read inside the with block"
        buffered = cast(BufferedReader, self._file)
        if buffered.peek(2)[:2] == _GZIP:
            buffered = cast(BufferedReader, self._open.enter_context(gzip.GzipFile(fileobj=buffered)))
        # Invalid UTF-8 is reported by the field's validator, which knows line and column.
        text = TextIOWrapper(buffered, "utf-8-sig", errors="surrogateescape", newline="")
        self._open.callback(text.detach)
        return text

    def _csv_rows(self, lines: Iterator[str], blank: int) -> Iterator[SourceRow]:
        rows = self._csv_fields(lines, blank)
        header = next(rows)
        if isinstance(header, BadTrace):
            raise header
        line, names = header
        self._check_header(line, names)
        for row in rows:
            if isinstance(row, BadTrace):
                yield row
                continue
            line, fields = row
            if len(fields) == len(names):
                yield line, dict(zip(names, fields, strict=True))
            else:
                expected = f"expected {len(names)} fields as in the header, got {len(fields)}"
                yield BadTrace(self.name, line, expected)

    def _csv_fields(self, lines: Iterator[str], blank: int) -> Iterator[tuple[int, list[str]] | BadTrace]:
        """The fields of each non-empty row, or the error."""
        reader = csv.reader(lines, strict=True)
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                yield BadTrace(self.name, blank + reader.line_num, f"expected CSV: {error}")
                continue
            if fields is None:
                return
            if fields:
                yield blank + reader.line_num, fields

    def _check_header(self, line: int, names: list[str]) -> None:
        (most_often, times), *_ = Counter(names).most_common(1)
        if times > 1:
            raise BadTrace(self.name, line, f"expected each column once, got {shown(most_often)} again")
        missing = [name for name in REQUIRED if name not in names]
        if missing:
            expected = f"expected a header with the columns {listed(missing)}, or one JSON object a line"
            raise BadTrace(self.name, line, expected)

    def _json_rows(self, lines: Iterator[str], blank: int) -> Iterator[SourceRow]:
        for line, text in enumerate(lines, blank + 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text, parse_constant=_refused)
            except (ValueError, RecursionError) as error:
                reason = str(error) or type(error).__name__
                yield BadTrace(self.name, line, f"expected a JSON object: {reason}")
                continue
            if isinstance(row, dict):
                yield line, row
            else:
                yield BadTrace(self.name, line, f"expected a JSON object, got {described(row)}")

    def _fail(self, error: Exception) -> NoReturn:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadTrace(self.name, 0, f"expected a file that can be read: {reason}") from None


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
