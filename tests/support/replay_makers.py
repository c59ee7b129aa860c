"""Valid rows and traces for the tests of the replay: each test changes the one field that matters."""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from routing.replay.columns import TraceRow, read_row
from routing.replay.source import Source
from routing.replay.trace import Trace

NOON = 1_772_625_600
"""2026-03-04T12:00:00Z"""

ROW: Mapping[str, Any] = {"timestamp": NOON, "backend_id": "a", "success": True, "duration_ms": 100}


def logged(line: int = 2, **fields: Any) -> TraceRow:
    """A row with these fields changed; None takes one out."""
    return read_row(line, {**ROW, **fields}, {})


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as JSON lines, each a valid one with these fields changed."""
    return "".join(json.dumps({**ROW, **row}) + "\n" for row in rows)


def csv_lines(header: str, *rows: str) -> str:
    return "\n".join((header, *rows)) + "\n"


def written(folder: Path, content: str | bytes, name: str = "trace") -> str:
    """The path of a file with this content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


class Text(Source):
    """A trace in memory."""

    def __init__(self, content: str | bytes) -> None:
        super().__init__("text")
        self._file = io.BufferedReader(io.BytesIO(content.encode() if isinstance(content, str) else content))


def trace_of(content: str | bytes, *, skip_invalid: bool = False, sorted_rows: int = 1000) -> Trace:
    return Trace(Text(content), {}, skip_invalid=skip_invalid, sorted_rows=sorted_rows)
