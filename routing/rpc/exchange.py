"""One call under grpclib: reads request messages, with a size limit, and writes the whole response."""

import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.server import Stream
from h2.exceptions import StreamClosedError

from routing.errors import BadMessage, MessageTooLarge, Unsupported
from routing.rpc.caller import Caller, Peer
from routing.rpc.response_headers import (
    INITIAL_HEADERS,
    OK_TRAILERS,
    HeaderFields,
    Trailers,
    error_trailers,
)

_PREFIX: Final = struct.Struct(">BI")
"""What precedes a message on the wire: whether it is compressed, and its length."""

_CUT_SHORT = "the message ends before the length that its prefix announces"


class Exchange:
    """A call as the server sees it: its caller, messages in, messages out, one status.

    Works on `_stream`, the HTTP/2 stream under grpclib's `Stream`: that `Stream` reads a
    message of any length into memory, and sends no metadata that begins with `grpc-`.
    `_send_trailing_metadata_done` is set from the beginning, so that grpclib sends nothing.
    """

    __slots__ = ("_codec", "_deadline", "_http", "_initial_headers_sent", "_limit_bytes", "caller")

    def __init__(self, stream: Stream[Any, Any], codec: CodecBase, limit_bytes: int) -> None:
        stream._send_trailing_metadata_done = True
        self._http = stream._stream
        self._deadline = stream.deadline
        self._codec = codec
        self._limit_bytes = limit_bytes
        self._initial_headers_sent = False
        self.caller = Caller((stream.metadata or {}).items(), Peer(stream.peer))

    async def message(self, kind: type) -> Any | None:
        """The next message, or None where the client has ended its side.

        Reads only the prefix before the length is accepted. The flag in the prefix says
        whether this message is compressed, whatever `grpc-encoding` says of others.
        """
        prefix = await self._bytes(_PREFIX.size)
        if not prefix:
            return None
        compressed, length = _PREFIX.unpack(prefix)
        if compressed:
            raise Unsupported("the message is compressed; this server takes grpc-encoding identity only")
        if length > self._limit_bytes:
            raise too_large(length, self._limit_bytes)
        data = await self._bytes(length)
        if len(data) < length:
            raise BadMessage(_CUT_SHORT)
        return self._codec.decode(data, kind)

    async def only_message(self, kind: type) -> Any:
        """The message of a call that takes one; the client's side must end after it."""
        message = await self.message(kind)
        if message is None:
            raise BadMessage("no message came; this method takes exactly one")
        if await self._bytes(1):
            raise BadMessage("more than one message came; this method takes exactly one")
        return message

    def messages(self, kind: type) -> "Messages":
        """All messages until the client ends its side."""
        return Messages(self, kind)

    def encode(self, message: Any, kind: type) -> bytes:
        """The message's bytes behind their prefix."""
        return framed(self._codec.encode(message, kind))

    async def send(self, data: bytes) -> None:
        """Sends one encoded message, after the initial headers if they are not sent yet."""
        if not self._initial_headers_sent:
            await self._http.send_headers(list(INITIAL_HEADERS))
            self._initial_headers_sent = True
        await self._http.send_data(data)

    async def finish(self) -> None:
        """Ends a call that succeeded. A client that has left meanwhile makes no difference."""
        with suppress(StreamClosedError):
            await self._end(list(OK_TRAILERS))

    async def refuse(self, status: Status, message: str, trailers: Trailers = ()) -> None:
        """Ends the call with an error, unless the client has left."""
        with suppress(StreamClosedError):
            await self._end(error_trailers(status, message, trailers))
            if self._http.closable:  # the client is still sending, and may stop
                self._http.reset_nowait()

    async def _end(self, trailers: HeaderFields) -> None:
        headers = trailers if self._initial_headers_sent else [*INITIAL_HEADERS, *trailers]
        await self._http.send_headers(headers, end_stream=True)

    def cancelled_by(self, *, draining: bool) -> Status:
        """What cancelled the call: its deadline, the client's leaving, or the server's drain."""
        deadline, wrapper = self._deadline, self._http.wrapper
        if deadline is not None and not deadline.time_remaining():
            return Status.DEADLINE_EXCEEDED
        left = wrapper is not None and wrapper.cancelled
        return Status.UNAVAILABLE if draining and not left else Status.CANCELLED

    async def _bytes(self, size: int) -> bytes:
        """Exactly `size` bytes, or none at all where the client's side has ended."""
        try:
            return await self._http.recv_data(size)
        except AssertionError as error:  # how grpclib says that fewer came
            raise BadMessage(_CUT_SHORT) from error


def framed(data: bytes) -> bytes:
    """A message's bytes behind their prefix."""
    return _PREFIX.pack(0, len(data)) + data


def too_large(length: int, limit_bytes: int) -> MessageTooLarge:
    """The error for a message of this length."""
    return MessageTooLarge(f"the message has {length:,} bytes; at most {limit_bytes:,} are taken")


class Messages(AsyncIterator[Any]):
    """The messages that a client sends. Not a generator, so that nothing needs closing."""

    __slots__ = ("_exchange", "_kind")

    def __init__(self, exchange: Exchange, kind: type) -> None:
        self._exchange = exchange
        self._kind = kind

    async def __anext__(self) -> Any:
        message = await self._exchange.message(self._kind)
        if message is None:
            raise StopAsyncIteration
        return message
