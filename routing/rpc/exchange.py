"""One call's messages, bounded on the way in, and its end."""

import struct
from collections.abc import AsyncIterator
from typing import Any, Final

from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.metadata import encode_grpc_message
from grpclib.server import Stream
from h2.exceptions import StreamClosedError

from routing.errors import BadMessage, MessageTooLarge, Unsupported
from routing.rpc.caller import Caller, Peer
from routing.rpc.status import Trailers

_PREFIX: Final = struct.Struct(">BI")
"""What precedes a message on the wire: whether it is compressed, and its length."""

_CUT_SHORT = "the message ends before the length that its prefix announces"


class Exchange:
    """A call as the server sees it: its caller, messages in, messages out, one status.

    What calls need of grpclib's private parts is touched here, and nowhere else on
    their path. `_stream` is the HTTP/2 stream under grpclib's `Stream`; the `…_done`
    flags tell `Stream` what was sent past it, so that it neither repeats nor misses
    the rest.
    """

    __slots__ = ("_codec", "_http", "_limit_bytes", "_stream", "caller")

    def __init__(self, stream: Stream[Any, Any], codec: CodecBase, limit_bytes: int) -> None:
        self._stream = stream
        self._http = stream._stream
        self._codec = codec
        self._limit_bytes = limit_bytes
        self.caller = Caller((stream.metadata or {}).items(), Peer(self._http._transport))

    async def message(self, kind: type) -> Any | None:
        """The next message, or None where the client has ended its side.

        grpclib would take whatever length the prefix announces into memory; here only
        the prefix is read before that is decided. The flag in it says whether this
        message is compressed, whatever `grpc-encoding` says of others.
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
        """Sends one encoded message, after the headers where they have not gone yet."""
        if not self._stream._send_initial_metadata_done:
            await self._http.send_headers(self._headers())
            self._stream._send_initial_metadata_done = True
        await self._http.send_data(data)
        self._stream._send_message_done = True

    async def refuse(self, status: Status, message: str, trailers: Trailers = ()) -> None:
        """Ends the call with an error."""
        headers = [] if self._stream._send_initial_metadata_done else self._headers()
        # grpclib's own metadata may not begin with `grpc-`, hence the bare headers.
        headers.append(("grpc-accept-encoding", "identity"))
        headers += [("grpc-status", str(status.value)), ("grpc-message", encode_grpc_message(message))]
        headers += trailers
        self._stream._send_trailing_metadata_done = True
        try:
            await self._http.send_headers(headers, end_stream=True)
        except StreamClosedError:
            self.abandon()  # the client has gone before it could be told
            return
        if self._http.closable:  # the client is still sending, and may stop
            self._http.reset_nowait()

    def abandon(self) -> None:
        """Ends the call of a client that cannot be told anything any more."""
        self._stream._cancel_done = True

    def cancelled_by(self, *, draining: bool) -> Status:
        """What ended the call from outside: its deadline, the client's leaving, or our drain."""
        deadline, wrapper = self._stream.deadline, self._http.wrapper
        if deadline is not None and not deadline.time_remaining():
            return Status.DEADLINE_EXCEEDED
        left = wrapper is not None and wrapper.cancelled
        return Status.UNAVAILABLE if draining and not left else Status.CANCELLED

    def _headers(self) -> list[tuple[str, str]]:
        return [(":status", "200"), ("content-type", self._stream._content_type)]

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
    """What a client sends, one by one. Not a generator, so that nothing needs closing."""

    __slots__ = ("_exchange", "_kind")

    def __init__(self, exchange: Exchange, kind: type) -> None:
        self._exchange = exchange
        self._kind = kind

    async def __anext__(self) -> Any:
        message = await self._exchange.message(self._kind)
        if message is None:
            raise StopAsyncIteration
        return message
