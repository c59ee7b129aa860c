"""The one door to the generated code: messages, plain values for Struct and time, the codec."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

import betterproto2
from grpclib.encoding.base import CodecBase
from routing_pb.google.protobuf import ListValue, NullValue, Struct, Value
from routing_pb.ipfs_kit_py.routing import (
    GetInsightsRequest,
    GetInsightsResponse,
    MetricsUpdate,
    MetricsUpdateSystemStatus,
    RecordOutcomeRequest,
    RecordOutcomeResponse,
    RoutingServiceBase,
    RoutingServiceStub,
    SelectBackendRequest,
    SelectBackendRequestGeoLocation,
    SelectBackendResponse,
    SelectBackendResponseAlternative,
    StreamMetricsRequest,
)

from routing.errors import BadMessage

__all__ = [
    "NO_KIND",
    "Codec",
    "GetInsightsRequest",
    "GetInsightsResponse",
    "MetricsUpdate",
    "MetricsUpdateSystemStatus",
    "RecordOutcomeRequest",
    "RecordOutcomeResponse",
    "RoutingServiceBase",
    "RoutingServiceStub",
    "SelectBackendRequest",
    "SelectBackendRequestGeoLocation",
    "SelectBackendResponse",
    "SelectBackendResponseAlternative",
    "StreamMetricsRequest",
    "Struct",
    "read_struct",
    "read_time",
    "write_struct",
    "write_time",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MAX_STRUCT_DEPTH: Final = 32
"""Structs and lists inside each other. Protobuf refuses messages nested deeper than
100, and one level of Struct costs three (Struct, map entry, Value); with the message
around it, 32 levels are the most that a peer can still read."""


class _NoKind(Enum):
    NO_KIND = "a Value without a kind"

    def __repr__(self) -> str:
        return self.value


NO_KIND: Final = _NoKind.NO_KIND
"""What a google.protobuf.Value that holds nothing reads as; JSON has no such value."""


class Codec(CodecBase):
    """Messages to bytes and back, for grpclib on both sides.

    Bytes that are not the message raise BadMessage; a message of another type than
    the method's is our own mistake and raises TypeError.
    """

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        if not isinstance(message, message_type):
            raise TypeError(f"expected a {message_type.__name__}, not a {type(message).__name__}")
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        parse: type[betterproto2.Message] = message_type
        try:
            return parse.parse(data)
        except Exception as error:
            raise BadMessage(f"not a valid {message_type.__name__}: {error}") from error


def read_time(value: datetime | None) -> float | None:
    """Unix seconds; None where no time was given."""
    return None if value is None else (value - _EPOCH).total_seconds()


def write_time(seconds: float) -> datetime:
    """The time as the messages hold it: aware, UTC, in microseconds."""
    return _EPOCH + timedelta(seconds=seconds)


def read_struct(struct: Struct | None) -> dict[str, Any]:
    """Plain Python values: dict, list, str, float, bool, None, and NO_KIND.

    An absent Struct reads as an empty one. The depth is bounded by the codec.
    """
    return {} if struct is None else {key: _read_value(value) for key, value in struct.fields.items()}


def _read_value(value: Value) -> Any:
    for held in (value.string_value, value.number_value, value.bool_value):
        if held is not None:
            return held
    if value.struct_value is not None:
        return read_struct(value.struct_value)
    if value.list_value is not None:
        return [_read_value(item) for item in value.list_value.values]
    return NO_KIND if value.null_value is None else None


def write_struct(values: Mapping[str, Any]) -> Struct:
    """The Struct that holds these JSON-like values.

    Raises TypeError for what JSON has no word for, ValueError for numbers that are
    not finite and for nesting that no peer could read.
    """
    return _write_mapping(values, 1)


def _write_mapping(values: Mapping[str, Any], depth: int) -> Struct:
    if depth > MAX_STRUCT_DEPTH:
        raise ValueError(f"values nested deeper than {MAX_STRUCT_DEPTH} levels")
    return Struct(fields={key: _write_value(value, depth) for key, value in values.items()})


def _write_value(value: Any, depth: int) -> Value:
    match value:
        case str():
            return Value(string_value=value)
        case bool():
            return Value(bool_value=value)
        case int() | float():
            if not math.isfinite(value):
                raise ValueError(f"{value} is not a number that a Struct can hold")
            return Value(number_value=float(value))
        case None:
            return Value(null_value=NullValue.NULL_VALUE)
        case Mapping():
            return Value(struct_value=_write_mapping(value, depth + 1))
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            if depth >= MAX_STRUCT_DEPTH:
                raise ValueError(f"values nested deeper than {MAX_STRUCT_DEPTH} levels")
            return Value(list_value=ListValue(values=[_write_value(item, depth + 1) for item in value]))
    raise TypeError(f"a Struct cannot hold a {type(value).__name__}")
