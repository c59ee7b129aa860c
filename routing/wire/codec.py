"""Messages to bytes and back, for grpclib on both sides."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from grpclib.encoding.base import CodecBase
from routing_pb.codec import CHILDREN, CODECS

from routing.errors import BadMessage
from routing.protobuf.wireformat import MAX_FIELDS, MessageCodec, check_field_count, decode_message

_LARGE_BYTES: Final = 1 << 16
"""From here on a message may hold more objects than a few runs of the garbage
collector's; below, pausing it costs more than it saves."""


class Codec(CodecBase):
    """Messages to bytes and back, for grpclib on both sides.

    Bytes that are not the message raise BadMessage, and so does a message of more
    than `max_fields` fields; a message of a type that is not the method's, or that
    there is no codec for, is our own mistake and raises TypeError. Bytes in place of a
    message are the message encoded. Fields that the schema does not know are read over:
    they are neither kept nor sent on.
    """

    __content_subtype__ = "proto"

    def __init__(self, *, max_fields: int = MAX_FIELDS) -> None:
        self._max_fields = max_fields
        self._ordinary_bytes = min(_LARGE_BYTES, 2 * max_fields)

    def encode(self, message: Any, message_type: Any) -> bytes:
        if type(message) is bytes:
            return message
        if type(message) is not message_type:
            raise TypeError(f"expected a {message_type.__name__}, not a {type(message).__name__}")
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
