"""The columns of a trace, and the conversion of a row to query, logged choice and outcome."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from routing import wire
from routing.config.validators import LARGEST_INT64, Mismatch, Validator, number, one_of, switch
from routing.contract import METADATA_KEYS
from routing.core.model import Operation, Outcome, Query
from routing.errors import InvalidArgument
from routing.rpc.requests import (
    MAX_AVAILABLE_BACKENDS,
    MAX_CONTENT_HASH_BYTES,
    MAX_CONTENT_TYPE_BYTES,
    MAX_ERROR_BYTES,
    MAX_IDENTIFIER_BYTES,
    read_outcome,
    read_query,
)
from routing.timestamps import moment_of

LARGEST_INT32 = (1 << 31) - 1
LATEST = 253_402_300_799
"""The last second of the year 9999, the largest value of the wire's Timestamp."""

LINE_NUMBER_SUFFIX_BYTES = 16
"""Room for the colon and line number that are appended to request_id."""

SEPARATOR = "|"
"""Separates the names of a list in a CSV field: commas would need quotes, and names may contain spaces."""

Fields = Mapping[str, Any]
"""The raw fields of a row: text from CSV, any value from JSON."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One row: the request, the logged choice, and its outcome.

    `at` is in Unix seconds, to the microsecond. `outcome` None: unknown. `propensity` is the
    probability with which the logged choice was made; None: not in the trace.
    """

    line: int
    at: float
    query: Query
    backend_id: str
    outcome: Outcome | None = None
    propensity: float | None = None

    @property
    def outcome_known_at(self) -> float:
        """When the outcome became known, the earliest time at which a router can learn from it."""
        happened_at = None if self.outcome is None else self.outcome.happened_at
        return self.at if happened_at is None else happened_at


@dataclass(frozen=True, slots=True)
class TraceColumn:
    """A row of COLUMNS: validator and documentation of one field."""

    validator: Validator
    help: str
    required: bool = False


class BadField(Exception):
    """A field with an invalid value: the column, and the expectation."""

    def __init__(self, column: str, expected: str) -> None:
        super().__init__(f"{column}: {expected}" if column else expected)


def _validator(expected: str, read: Callable[[Any], Any], parse: Callable[[str], object] = str) -> Validator:
    """Makes a validator from a function that raises ValueError for invalid values."""

    def checked(value: object) -> Any:
        try:
            return read(value)
        except (ValueError, TypeError, OverflowError):
            raise Mismatch(expected, value) from None

    return Validator(expected, checked, parse)


def _text(most_bytes: int) -> Validator:
    def read(value: object) -> str:
        if not isinstance(value, str) or len(value.encode()) > most_bytes:
            raise ValueError(value)
        return value

    return _validator(f"at most {most_bytes:,} bytes of UTF-8 text", read)


def _count(most: int) -> Validator:
    """Whole numbers, also written as 5.0: tools without a missing integer value write them so."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or int(value) != value or not 0 <= value <= most:
            raise ValueError(value)
        return int(value)

    def parse(written: str) -> float:
        try:
            return int(written)
        except ValueError:
            return float(written)

    return _validator(f"a whole number from 0 to {most:,}", read, parse)


def _names() -> Validator:
    def read(value: object) -> list[str]:
        if not isinstance(value, list) or len(value) > MAX_AVAILABLE_BACKENDS or not all(value):
            raise ValueError(value)
        if any(not isinstance(name, str) or len(name.encode()) > MAX_IDENTIFIER_BYTES for name in value):
            raise ValueError(value)
        return value

    expected = f"at most {MAX_AVAILABLE_BACKENDS:,} names, in CSV with {SEPARATOR} between them"
    return _validator(expected, read, lambda written: written.split(SEPARATOR))


def _moment() -> Validator:
    """Rounded to microseconds, the resolution of the wire, so that a server sees the same times."""

    def read(value: Any) -> float:
        at = moment_of(value).timestamp() if isinstance(value, str) else float(value)
        if isinstance(value, bool) or not 0 <= at <= LATEST:
            raise ValueError(value)
        return round(at, 6)

    return _validator("a time: ISO 8601, or Unix seconds (UTC where it names no zone)", read)


def _propensity() -> Validator:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not 0 < value <= 1:
            raise ValueError(value)
        return float(value)

    return _validator("a probability, more than 0 and at most 1", read, float)


_IDENTIFIER = _text(MAX_IDENTIFIER_BYTES)
_AMOUNT = number(0, 10**12)

COLUMNS: Mapping[str, TraceColumn] = MappingProxyType(
    {
        "timestamp": TraceColumn(_moment(), "time of the request", required=True),
        "backend_id": TraceColumn(_IDENTIFIER, "the backend that was chosen", required=True),
        "success": TraceColumn(switch(), "whether the operation succeeded; empty: unknown"),
        "duration_ms": TraceColumn(
            number(0, LARGEST_INT32), "duration of the whole operation; empty or 0: not measured"
        ),
        "error": TraceColumn(_text(1 << 20), f"error message; the first {MAX_ERROR_BYTES:,} bytes are used"),
        "propensity": TraceColumn(
            _propensity(), "the probability with which the logged choice was made; in every row or in none"
        ),
        "available_backends": TraceColumn(_names(), "the candidates; empty: every enabled backend"),
        "request_id": TraceColumn(
            _text(MAX_IDENTIFIER_BYTES - LINE_NUMBER_SUFFIX_BYTES),
            "identifies the request; the line number is appended",
        ),
        "content_hash": TraceColumn(_text(MAX_CONTENT_HASH_BYTES), "hash of the content"),
        "content_type": TraceColumn(_text(MAX_CONTENT_TYPE_BYTES), "its MIME type"),
        "content_size": TraceColumn(_count(LARGEST_INT64), "bytes; empty or 0: unknown"),
        "latitude": TraceColumn(number(-90, 90), "the client's latitude; requires `longitude`"),
        "longitude": TraceColumn(number(-180, 180), "the client's longitude; requires `latitude`"),
        "region": TraceColumn(_IDENTIFIER, "name of the client's region"),
        "operation": TraceColumn(one_of(*(one.value for one in Operation)), "empty: store"),
        "retention_months": TraceColumn(_AMOUNT, "months of storage; empty: 1"),
        "expected_reads": TraceColumn(_AMOUNT, "number of reads; empty: 1"),
        "require_tags": TraceColumn(_names(), "only backends with all of these tags"),
        "exclude_backends": TraceColumn(_names(), "backends that are not eligible"),
        "max_cost_usd": TraceColumn(_AMOUNT, "only backends that are expected to cost at most this"),
        "max_ms": TraceColumn(_AMOUNT, "only backends that are expected to take at most this"),
        "min_success": TraceColumn(number(0, 1), "only backends that succeed with this probability"),
        "strategy": TraceColumn(
            _text(MAX_IDENTIFIER_BYTES), "the request's strategy, unless a flag sets one"
        ),
        "priority": TraceColumn(
            _text(MAX_IDENTIFIER_BYTES), "the request's priority, unless a flag sets one"
        ),
    }
)
"""The known columns. Others are ignored."""

REQUIRED = tuple(name for name, column in COLUMNS.items() if column.required)


def read_row(line: int, given: Fields, asked: Fields) -> TraceRow:
    """Validates and converts a row; raises BadField if a field is invalid.

    `asked` overrides `strategy` and `priority` of the row, and is the default for
    `available_backends`.
    """
    fields = {name: _read(name, given.get(name)) for name in COLUMNS}
    _check_together(fields)
    try:
        return TraceRow(
            line,
            fields["timestamp"],
            read_query(_request(line, fields, asked)),
            fields["backend_id"],
            None if fields["success"] is None else _outcome(line, fields),
            fields["propensity"],
        )
    except InvalidArgument as error:
        raise BadField("", error.message) from None


def _read(name: str, value: Any) -> Any:
    """The field's value; None if it is empty."""
    column = COLUMNS[name]
    if value is None or value == "":
        if column.required:
            raise BadField(name, f"expected {column.validator.expected}, got nothing")
        return None
    try:
        return column.validator.read_text(value) if isinstance(value, str) else column.validator.read(value)
    except Mismatch as mismatch:
        raise BadField(name, str(mismatch)) from None


def _check_together(fields: Fields) -> None:
    """Checks that involve several fields."""
    for one, other in (("latitude", "longitude"), ("longitude", "latitude")):
        if fields[one] is not None and fields[other] is None:
            raise BadField(other, f"expected a number, because {one} is given")
    for one in ("duration_ms", "error"):
        if fields[one] and fields["success"] is None:
            raise BadField("success", f"expected true or false, because {one} is given")
    available = fields["available_backends"]
    if available and fields["backend_id"] not in available:
        raise BadField("backend_id", f"expected one of available_backends, got {fields['backend_id']!r}")


def _request(line: int, fields: Fields, asked: Fields) -> wire.SelectBackendRequest:
    """The row as a request message, so that the same checks apply as on the wire."""
    wishes = {name: fields[name] for name in METADATA_KEYS if fields[name] is not None}
    location = None
    if fields["latitude"] is not None or fields["region"]:
        location = wire.SelectBackendRequestGeoLocation(
            fields["latitude"] or 0.0, fields["longitude"] or 0.0, fields["region"] or ""
        )
    return wire.SelectBackendRequest(
        content_hash=fields["content_hash"] or "",
        content_type=fields["content_type"] or "",
        content_size=fields["content_size"] or 0,
        metadata=wire.write_struct(wishes),
        strategy=asked.get("strategy") or fields["strategy"] or "",
        priority=asked.get("priority") or fields["priority"] or "",
        available_backends=fields["available_backends"] or list(asked.get("available_backends") or ()),
        client_location=location,
        request_id=_request_id(line, fields),
    )


def _outcome(line: int, fields: Fields) -> Outcome:
    """The outcome, with the end of the operation as its time."""
    duration_ms = fields["duration_ms"]
    if duration_ms:
        duration_ms = max(1, round(duration_ms))  # 0 means "not measured" on the wire
    return read_outcome(
        wire.RecordOutcomeRequest(
            backend_id=fields["backend_id"],
            success=fields["success"],
            content_hash=fields["content_hash"] or "",
            content_type=fields["content_type"] or "",
            content_size=fields["content_size"] or 0,
            duration_ms=duration_ms or 0,
            error=fields["error"] or "",
            timestamp=wire.write_time(min(fields["timestamp"] + (duration_ms or 0) / 1e3, LATEST)),
            request_id=_request_id(line, fields),
        )
    )


def _request_id(line: int, fields: Fields) -> str:
    """A unique id, even if the trace repeats its own: an outcome must link to one row only."""
    return f"{fields['request_id'] or 'line'}:{line}"
