"""The columns of a trace, and one row of it as what was asked, done and seen."""

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
"""The last second of the year 9999, which is the last that the wire's Timestamp has."""

LINE_NUMBER_SUFFIX_BYTES = 16
"""Digits and a colon, which follow the name of a request."""

SEPARATOR = "|"
"""Between the names of a list in a CSV field: a comma would have to be quoted, and names hold spaces."""

Fields = Mapping[str, Any]
"""A row as it was read: text from CSV, any value from JSON."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One row: what was asked, which backend was chosen, and what came of it.

    `at` is in Unix seconds, to the microsecond. `outcome` None means that none is known;
    `propensity` is the probability with which this choice was made, None where the trace
    does not tell.
    """

    line: int
    at: float
    query: Query
    backend_id: str
    outcome: Outcome | None = None
    propensity: float | None = None

    @property
    def outcome_known_at(self) -> float:
        """When the outcome was known: a router cannot have heard of it any earlier."""
        happened_at = None if self.outcome is None else self.outcome.happened_at
        return self.at if happened_at is None else happened_at


@dataclass(frozen=True, slots=True)
class TraceColumn:
    """A row of COLUMNS: what a field may hold, and what it means."""

    validator: Validator
    help: str
    required: bool = False


class BadField(Exception):
    """A field that does not hold what it should: which column, and what was expected."""

    def __init__(self, column: str, expected: str) -> None:
        super().__init__(f"{column}: {expected}" if column else expected)


def _validator(expected: str, read: Callable[[Any], Any], parse: Callable[[str], object] = str) -> Validator:
    """A validator from a function that raises ValueError for what does not fit."""

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
    """Whole numbers, also written as 5.0: tools that have no empty whole number write them so."""

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
    """Microseconds are what the wire has: any finer, a server would see another time than we."""

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
        "timestamp": TraceColumn(_moment(), "when it was asked", required=True),
        "backend_id": TraceColumn(_IDENTIFIER, "the backend that was chosen", required=True),
        "success": TraceColumn(switch(), "whether the operation succeeded; empty: not known"),
        "duration_ms": TraceColumn(
            number(0, LARGEST_INT32), "how long all of it took; empty or 0: not measured"
        ),
        "error": TraceColumn(_text(1 << 20), f"what went wrong; its first {MAX_ERROR_BYTES:,} bytes count"),
        "propensity": TraceColumn(
            _propensity(), "the probability with which the logged choice was made; in every row or in none"
        ),
        "available_backends": TraceColumn(_names(), "who could be chosen; empty: every enabled backend"),
        "request_id": TraceColumn(
            _text(MAX_IDENTIFIER_BYTES - LINE_NUMBER_SUFFIX_BYTES),
            "a name to find it by; the line number is added",
        ),
        "content_hash": TraceColumn(_text(MAX_CONTENT_HASH_BYTES), "identity of the content"),
        "content_type": TraceColumn(_text(MAX_CONTENT_TYPE_BYTES), "its MIME type"),
        "content_size": TraceColumn(_count(LARGEST_INT64), "bytes; empty or 0: unknown"),
        "latitude": TraceColumn(number(-90, 90), "where the client is; with `longitude` or not at all"),
        "longitude": TraceColumn(number(-180, 180), "likewise; with `latitude` or not at all"),
        "region": TraceColumn(_IDENTIFIER, "its region's name"),
        "operation": TraceColumn(one_of(*(one.value for one in Operation)), "empty: store"),
        "retention_months": TraceColumn(_AMOUNT, "how long it is kept; empty: 1"),
        "expected_reads": TraceColumn(_AMOUNT, "how often it is read; empty: 1"),
        "require_tags": TraceColumn(_names(), "only backends with all of these"),
        "exclude_backends": TraceColumn(_names(), "none of these"),
        "max_cost_usd": TraceColumn(_AMOUNT, "only backends that are expected to cost at most this"),
        "max_ms": TraceColumn(_AMOUNT, "only backends that are expected to take at most this"),
        "min_success": TraceColumn(number(0, 1), "only backends that succeed with this probability"),
        "strategy": TraceColumn(_text(MAX_IDENTIFIER_BYTES), "the request's own, where no flag names one"),
        "priority": TraceColumn(_text(MAX_IDENTIFIER_BYTES), "likewise"),
    }
)
"""What a trace may say. Columns by other names are left alone."""

REQUIRED = tuple(name for name, column in COLUMNS.items() if column.required)


def read_row(line: int, given: Fields, asked: Fields) -> TraceRow:
    """The row of this line; BadField names what is wrong with it.

    `asked` replaces what the row says of `strategy`, `priority` and `available_backends`
    (this one only where the row says nothing).
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
    """What the field holds, None where it holds nothing."""
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
    """What single fields cannot tell."""
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
    """The row as a client would have sent it, so that what holds there holds here."""
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
    """It happened when it was over."""
    duration_ms = fields["duration_ms"]
    if duration_ms:
        duration_ms = max(1, round(duration_ms))  # the wire has no word for less, but for "not measured"
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
    """One of its own, whatever the trace says: what happens to a row must happen to no other."""
    return f"{fields['request_id'] or 'line'}:{line}"
