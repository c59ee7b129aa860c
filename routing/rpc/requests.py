"""Reads request messages into the core's types, and validates every field.

No later code checks a caller's input again. Sizes of strings are in bytes of UTF-8. A name may
contain any character: names are opaque here, and code that prints one escapes it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Any

from routing import wire
from routing.contract import METADATA_KEYS
from routing.core.model import Fault, Location, Operation, Outcome, Query
from routing.core.report import SECTIONS
from routing.core.scoring import priority_named, strategy_named
from routing.errors import InvalidArgument, listed

MAX_IDENTIFIER_BYTES = 256
MAX_CONTENT_TYPE_BYTES = 255
MAX_CONTENT_HASH_BYTES = 1024
MAX_ERROR_BYTES = 1024
MAX_AVAILABLE_BACKENDS = 1024
MAX_UPDATE_INTERVAL_S = 3600
DEFAULT_UPDATE_INTERVAL_S = 1
"""Limits and defaults of the contract."""


@dataclass(frozen=True, slots=True)
class InsightsRequest:
    """Which aggregates to return. An empty name does not filter; 0 hours mean the default window."""

    backend_id: str
    content_type: str
    hours: int


@dataclass(frozen=True, slots=True)
class MetricsRequest:
    """Which updates to send, and how often. No sections mean the default ones.

    Hashable, because equal requests share their updates.
    """

    interval_s: int
    sections: tuple[str, ...]
    include_backends: bool
    include_content_types: bool


# --- Validation of fields ---


def _text(field: str, value: str, limit_bytes: int) -> str:
    size = len(value) if value.isascii() else len(value.encode())
    if size > limit_bytes:
        raise InvalidArgument(field, value, f"at most {limit_bytes:,} bytes, not {size:,}")
    return value


def _identifier(field: str, value: str) -> str:
    return _text(field, value, MAX_IDENTIFIER_BYTES)


def _content_type(field: str, value: str) -> str:
    """The type in lower case, without parameters: it is case-insensitive (RFC 9110, section
    8.3.1), and a parameter such as a boundary would make each upload a separate type."""
    return _text(field, value, MAX_CONTENT_TYPE_BYTES).partition(";")[0].strip().lower()


def _whole(field: str, value: int, highest: float = inf) -> int:
    """An integer from 0 to `highest`."""
    if not 0 <= value <= highest:
        valid = "0 or more" if highest == inf else f"0 to {highest:,}"
        raise InvalidArgument(field, value, valid)
    return value


def _degrees(field: str, value: float, highest: float) -> float:
    # NaN fails every comparison, so this also refuses numbers that are not finite.
    if not -highest <= value <= highest:
        raise InvalidArgument(field, value, f"degrees from -{highest:g} to {highest:g}")
    return value


def _location(message: wire.SelectBackendRequestGeoLocation | None) -> Location | None:
    if message is None:
        return None
    latitude = _degrees("client_location.latitude", message.latitude, 90.0)
    longitude = _degrees("client_location.longitude", message.longitude, 180.0)
    region = _identifier("client_location.region", message.region)
    if latitude == longitude == 0.0:
        # proto3 does not send zeros: a message without coordinates looks like this.
        return Location(region=region) if region else None
    return Location(latitude, longitude, region)


_FAULTS: Mapping[str, Fault] = MappingProxyType({one.value: one for one in Fault})


def _fault(word: str) -> Fault:
    fault = _FAULTS.get(word)
    if fault is None:
        raise InvalidArgument("fault", word, f"one of {listed(Fault)}, or nothing")
    return fault


def _available(names: list[str]) -> tuple[str, ...]:
    if len(names) > MAX_AVAILABLE_BACKENDS:
        raise InvalidArgument("available_backends", len(names), f"at most {MAX_AVAILABLE_BACKENDS:,} names")
    for name in names:
        _identifier("available_backends", name)
    if "" in names:
        raise InvalidArgument("available_backends", "", "names that are not empty")
    return tuple(dict.fromkeys(names))


# --- Validation of metadata values, which are a caller's JSON of any type ---


_OPERATIONS: Mapping[str, Operation] = MappingProxyType({each.value: each for each in Operation})


def _operation(field: str, value: object) -> Operation:
    operation = _OPERATIONS.get(value) if isinstance(value, str) else None
    if operation is None:
        raise InvalidArgument(field, value, f"one of {listed(Operation)}")
    return operation


def _amount(field: str, value: object) -> float:
    # A bool is an int in Python, but not a number in JSON.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < inf:
        raise InvalidArgument(field, value, "a finite number, 0 or more")
    return float(value)


def _share(field: str, value: object) -> float:
    share = _amount(field, value)
    if share > 1.0:
        raise InvalidArgument(field, value, "a number from 0 to 1")
    return share


def _names(field: str, value: object) -> frozenset[str]:
    if not isinstance(value, list):
        raise InvalidArgument(field, value, "a list of strings")
    for name in value:
        if not isinstance(name, str):
            raise InvalidArgument(field, name, "only strings in the list")
        _identifier(field, name)
    return frozenset(value)


_READERS: Mapping[object, Callable[[str, object], Any]] = MappingProxyType(
    {Operation: _operation, float: _amount, float | None: _amount, frozenset[str]: _names}
)
"""How the value of a metadata key is read, by the type of the field of Query that it becomes."""

METADATA: Mapping[str, Callable[[str, object], Any]] = MappingProxyType(
    {key: _READERS[Query.__annotations__[key]] for key in METADATA_KEYS} | {"min_success": _share}
)
"""The metadata keys that are understood, and how the value of each is read."""


# --- Messages to the core's types ---


def read_query(message: wire.SelectBackendRequest) -> Query:
    """The query of a SelectBackend call; InvalidArgument names an invalid field."""
    # Unknown keys are not read: they belong to other software and may be megabytes.
    metadata = message.metadata.fields if message.metadata is not None else {}
    return Query(
        content_hash=_text("content_hash", message.content_hash, MAX_CONTENT_HASH_BYTES),
        content_type=_content_type("content_type", message.content_type),
        size_bytes=_whole("content_size", message.content_size),
        strategy=strategy_named(message.strategy),
        priority=priority_named(message.priority),
        available_backends=_available(message.available_backends),
        location=_location(message.client_location),
        request_id=_identifier("request_id", message.request_id),
        **{
            key: read(f"metadata.{key}", wire.read_value(metadata[key]))
            for key, read in METADATA.items()
            if key in metadata
        },
    )


def read_outcome(
    message: wire.RecordOutcomeRequest, *, caller: str = "", clock_ahead_s: float = 0.0
) -> Outcome:
    """The outcome of a RecordOutcome call; a long error text is truncated at a character boundary.

    Timestamps are `clock_ahead_s` ahead of the router's time.
    """
    happened_at = wire.read_time(message.timestamp)
    if not message.backend_id:
        raise InvalidArgument("backend_id", "", "the name of a backend")
    return Outcome(
        backend_id=_identifier("backend_id", message.backend_id),
        success=message.success,
        content_hash=_text("content_hash", message.content_hash, MAX_CONTENT_HASH_BYTES),
        content_type=_content_type("content_type", message.content_type),
        size_bytes=_whole("content_size", message.content_size),
        duration_ms=_whole("duration_ms", message.duration_ms) or None,
        error=message.error.encode()[:MAX_ERROR_BYTES].decode(errors="ignore"),
        happened_at=None if happened_at is None else happened_at - clock_ahead_s,
        request_id=_identifier("request_id", message.request_id),
        fault=_fault(message.fault) if message.fault else Fault.BACKEND,
        caller=caller,
    )


def read_insights_request(message: wire.GetInsightsRequest) -> InsightsRequest:
    """The filters of a GetInsights call."""
    return InsightsRequest(
        backend_id=_identifier("backend_id", message.backend_id),
        content_type=_content_type("content_type", message.content_type),
        hours=_whole("time_window_hours", message.time_window_hours),
    )


def read_metrics_request(message: wire.StreamMetricsRequest) -> MetricsRequest:
    """The options of a StreamMetrics call, its sections without duplicates in the order of SECTIONS."""
    requested = frozenset(message.metrics_types)
    for name in message.metrics_types:
        if name not in SECTIONS:
            raise InvalidArgument("metrics_types", name, f"any of {listed(SECTIONS)}")
    interval_s = _whole("update_interval_seconds", message.update_interval_seconds, MAX_UPDATE_INTERVAL_S)
    return MetricsRequest(
        interval_s=interval_s or DEFAULT_UPDATE_INTERVAL_S,
        sections=tuple(name for name in SECTIONS if name in requested),
        include_backends=message.include_backends,
        include_content_types=message.include_content_types,
    )
