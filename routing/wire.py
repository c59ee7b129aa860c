"""The one door to the generated code: messages, plain values for Struct and time, the codec."""

import gc
import math
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from grpclib.encoding.base import CodecBase
from routing_pb.codec import CHILDREN, CODECS
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
from routing.wireformat import MAX_FIELDS, MessageCodec, check_field_count, decode_message

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
    "read_value",
    "write_struct",
    "write_time",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MAX_STRUCT_DEPTH: Final = 33
"""Structs and lists inside each other. Protobuf refuses messages nested deeper than
100, and one level of Struct costs three (Struct, map entry, Value): with 34 no peer
could read what we write."""


_LARGE_BYTES: Final = 1 << 16
"""From here on a message may hold more objects than a few runs of the garbage
collector's; below, pausing it costs more than it saves."""


_decode_value: Final = CODECS[Value].decode
"""Makes an empty Value of no bytes, in two thirds of the time of its constructor."""


class _NoKind(Enum):
    NO_KIND = "a Value without a kind"

    def __repr__(self) -> str:
        return self.value


NO_KIND: Final = _NoKind.NO_KIND
"""What a google.protobuf.Value that holds nothing reads as; JSON has no such value."""


class Codec(CodecBase):
    """Messages to bytes and back, for grpclib on both sides.

    Bytes that are not the message raise BadMessage, and so does a message of more
    than `max_fields` fields; a message of a type that is not the method's, or that
    there is no codec for, is our own mistake and raises TypeError. A message that is
    bytes, where bytes are said to come, has been encoded already. Fields that the schema
    does not know are read over: they are neither kept nor sent on.
    """

    __content_subtype__ = "proto"

    def __init__(self, *, max_fields: int = MAX_FIELDS) -> None:
        self._max_fields = max_fields
        self._ordinary_bytes = min(_LARGE_BYTES, 2 * max_fields)

    def encode(self, message: Any, message_type: Any) -> bytes:
        if type(message) is not message_type:
            raise TypeError(f"expected a {message_type.__name__}, not a {type(message).__name__}")
        if message_type is bytes:
            return bytes(message)
        return _codec(message_type).encode(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        codec = _codec(message_type)
        try:
            if len(data) <= self._ordinary_bytes:
                return decode_message(codec, data)
            if len(data) > 2 * self._max_fields:
                check_field_count(data, CHILDREN, codec.name, self._max_fields)
            with _collector_paused():
                return decode_message(codec, data)
        except BadMessage as error:
            raise BadMessage(f"not a {codec.name}: {error.message}") from None


@contextmanager
def _collector_paused() -> Iterator[None]:
    """For a large message, all of whose objects stay: looking for garbage among them
    again and again would cost two fifths of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _codec(message_type: type) -> MessageCodec:
    codec = CODECS.get(message_type)
    if codec is None:
        raise TypeError(f"no codec for {message_type.__name__}; a new message needs `routing generate`")
    return codec


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
    return {} if struct is None else {key: read_value(value) for key, value in struct.fields.items()}


def read_value(value: Value) -> Any:
    """One value of a Struct, as `read_struct` reads it."""
    if value.string_value is not None:
        return value.string_value
    if value.number_value is not None:
        return value.number_value
    if value.bool_value is not None:
        return value.bool_value
    if value.struct_value is not None:
        return read_struct(value.struct_value)
    if value.list_value is not None:
        return [read_value(item) for item in value.list_value.values]
    return NO_KIND if value.null_value is None else None


def write_struct(values: Mapping[str, Any]) -> Struct:
    """The Struct that holds these JSON-like values.

    Raises TypeError for what JSON has no word for, ValueError for numbers that are
    not finite and for nesting that no peer could read.
    """
    return _write_mapping(values, MAX_STRUCT_DEPTH)


def _write_mapping(values: Mapping[str, Any], depth: int) -> Struct:
    if depth == 0:
        raise ValueError(f"values nested deeper than {MAX_STRUCT_DEPTH} levels")
    return Struct(fields={key: _write_value(held, depth) for key, held in values.items()})


def _write_sequence(values: Iterable[Any], depth: int) -> ListValue:
    if depth == 0:
        raise ValueError(f"values nested deeper than {MAX_STRUCT_DEPTH} levels")
    return ListValue(values=[_write_value(held, depth) for held in values])


def _write_value(held: Any, depth: int) -> Value:
    value: Value = _decode_value(b"", 0, 0, 0)
    if isinstance(held, str):
        value.string_value = held
    elif isinstance(held, bool):
        value.bool_value = held
    elif isinstance(held, (float, int)):
        if not math.isfinite(held):
            raise ValueError(f"{held} is not a number that a Struct can hold")
        value.number_value = float(held)
    elif held is None:
        value.null_value = NullValue.NULL_VALUE
    elif isinstance(held, Mapping):
        value.struct_value = _write_mapping(held, depth - 1)
    elif isinstance(held, list | tuple | Set):
        value.list_value = _write_sequence(held, depth - 1)
    else:
        raise TypeError(f"a Struct cannot hold a {type(held).__name__}")
    return value
