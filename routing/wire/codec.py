"""Encodes and decodes messages for grpclib, in the server and in the client."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from grpclib.encoding.base import CodecBase
from routing_pb.codec import CHILDREN, CODECS

from routing.errors import BadMessage
from routing.protobuf.wireformat import MAX_FIELDS, MessageCodec, check_field_count, decode_message

_LARGE_BYTES: Final = 1 << 16
"""Messages from this size on are decoded with the garbage collector paused. Smaller ones create too
few objects to trigger it more than a few times, and pausing costs more than it saves."""


class Codec(CodecBase):
    """Encodes and decodes messages for grpclib, in the server and in the client.

    Malformed bytes raise BadMessage, and so does a message with more than `max_fields` fields. A
    message of another type than the method's, or of one without a codec, is a bug and raises
    TypeError. `encode` returns bytes unchanged: they are a message that is encoded already. Unknown
    fields are skipped and not preserved.
    """

    __content_subtype__ = "proto"

    def __init__(self, *, max_fields: int = MAX_FIELDS) -> None:
        self._max_fields = max_fields
        self._small_bytes = min(_LARGE_BYTES, 2 * max_fields)

    def encode(self, message: Any, message_type: Any) -> bytes:
        if type(message) is bytes:
            return message
        if type(message) is not message_type:
            raise TypeError(f"expected a {message_type.__name__}, not a {type(message).__name__}")
        return _codec(message_type).encode(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        codec = _codec(message_type)
        try:
            if len(data) <= self._small_bytes:
                return decode_message(codec, data)
            if len(data) > 2 * self._max_fields:
                check_field_count(data, CHILDREN, codec.name, self._max_fields)
            with _collector_paused():
                return decode_message(codec, data)
        except BadMessage as error:
            raise BadMessage(f"not a {codec.name}: {error.message}") from None


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pauses the garbage collector of the process while a large message is decoded.

    All new objects belong to the message, so collections find no garbage among them, and would take
    two fifths of the time. Nothing else runs meanwhile: decoding does not await.
    """
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
