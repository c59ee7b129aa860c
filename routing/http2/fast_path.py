"""The fast path: a call is answered as it is read, without a task and without h2.

A call may take it if its header block is cached, its HEADERS frame and its one DATA frame
arrive in the same read, its method hardly waits, and the flow-control window allows the
response. Frames of other calls may lie between them: a client with several calls sends all
HEADERS first. So may a WINDOW_UPDATE of the stream, with which grpc's C core begins.
`Session` records what h2 would remember of the call. A call whose HEADERS were taken and
whose end does not arrive is handed to h2 before any later frame.

If a method waits for a moment, the stream is recorded as closed and the window for the
response is reserved. All other frames take the plain path, through h2 and grpclib; clients
see no difference, and calls of both kinds share a connection.
"""

from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Final, NamedTuple, cast

from grpclib.const import Status

from routing.http2.frame_filter import DATA, HEADERS, WINDOW_UPDATE, FrameFilter
from routing.http2.headers import Malformed, check_request, oversize, refusal, timeout_s
from routing.http2.hpack_cache import CachingDecoder, CachingEncoder
from routing.http2.output import ConnectionOutput
from routing.http2.session import Session
from routing.rpc.caller import Caller, Peer
from routing.rpc.reply import FastPathHandler, PendingReply, Reply
from routing.rpc.response_headers import INITIAL_HEADERS, OK_TRAILERS

MAX_ROUTES = 64
"""Header blocks whose route a connection remembers. The decoder caches fewer at a time; the
rest are dropped when its state changes, or here."""

_FRAME: Final = Struct(">HBBBL")
_FRAME_BYTES: Final = _FRAME.size
_PREFIX: Final = Struct(">BL")
_PREFIX_BYTES: Final = _PREFIX.size

RESERVED_REPLY_BYTES = 256
"""Bytes of the window that are reserved for a pending response. Ours have at most 150; with
more, 64 calls on one connection would not fit into the initial window."""

_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_HEADERS_LAST: Final = _END_HEADERS | _END_STREAM


class _Route(NamedTuple):
    """What a header block asks for: the method, the content-length or None, and the caller."""

    block: bytes
    handler: FastPathHandler
    length: int | None
    caller: Caller


class FastPath:
    """State: `room`, how many more calls this read may start, and `_until` when; `answered`, the
    calls answered in it; `waiting`, the pending ones; `_begun`, by stream, the calls whose DATA
    has not been read, and `_grown`, the WINDOW_UPDATE of such a stream; the routes of cached
    header blocks, valid while the decoder's state is `_known_at`; the encoded blocks of a
    response, valid while the encoder's table is as `_encoded_at`; and `deferred`, by stream, a
    reply that must take the plain path, until a handler has taken it.
    """

    __slots__ = (
        "_begin_block", "_begun", "_clock", "_decoder", "_encoded_at", "_encoder", "_end_block",
        "_frame_filter", "_grown", "_handlers", "_known_at", "_output", "_peer", "_plain_path", "_routes",
        "_session", "_until", "_when_answered", "answered", "deferred", "room", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        output: ConnectionOutput,
        frame_filter: FrameFilter,
        handlers: Mapping[str, FastPathHandler],
        peer: Peer,
        plain_path: Callable[[bytes], None],
        when_answered: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._output = output
        self._frame_filter = frame_filter
        self._decoder = session.decoder
        # If it is not ours, neither is the decoder, and the fast path stays off.
        self._encoder = cast(CachingEncoder, session.encoder)
        self._handlers = handlers if isinstance(self._decoder, CachingDecoder) else {}
        self._peer = peer
        self._plain_path = plain_path
        self._when_answered = when_answered
        self._clock = clock
        self._until = 0.0
        self._routes: dict[bytes, _Route | None] = {}
        self._begun: dict[int, _Route] = {}
        self._grown: dict[int, bytes] = {}
        self._known_at: object = None
        self._begin_block = self._end_block = b""
        self._encoded_at = -1
        self.room = 0
        self.answered = 0
        self.waiting = 0
        self.deferred: dict[int, Reply | PendingReply] = {}

    def __repr__(self) -> str:
        return f"<FastPath answered={self.answered} waiting={self.waiting} routes={len(self._routes)}>"

    def begin(self, room: int, until: float) -> None:
        """A read begins, which may start `room` calls until the time `until`."""
        self._until = until
        self.room = room - self.waiting if self._handlers else 0
        self.answered = 0

    def take(self, data: bytes, at: int) -> int:
        """Answers the calls from `at` on until a frame that must take the plain path. Returns
        where that begins."""
        if self.room <= 0 or not self._frame_filter.between_frames or not self._output.write_ready.is_set():
            return at
        self._output.flush()  # what h2 has encoded goes out first
        last = len(data)
        while last - at >= _FRAME_BYTES:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
            end = at + _FRAME_BYTES + (high << 8 | low)
            if end > last or not (
                self._begin(data, at, end, stream)
                if kind == HEADERS and flags == _END_HEADERS
                else self._answer(data, at, end, stream)
                if kind == DATA and flags == _END_STREAM
                else kind == WINDOW_UPDATE and self._grow(data[at:end], stream)
            ):
                break
            at = end
            if kind == DATA and self._clock() > self._until:
                break
        self._hand_over()
        return at

    def run(self, data: bytes, at: int, most: int) -> int:
        """Where the bytes for the plain path end: before the next frame that may start a call on
        the fast path, or after `most` bytes."""
        last = min(len(data), at + most)
        if self.room <= 0:
            return last
        at += self._frame_filter.owed(data, at) or self._frame_bytes(data, at)
        while last - at >= _FRAME_BYTES and not (data[at + 3] == HEADERS and data[at + 4] == _END_HEADERS):
            at += self._frame_bytes(data, at)
        return min(at, last)

    def _frame_bytes(self, data: bytes, at: int) -> int:
        return _FRAME_BYTES + int.from_bytes(data[at : at + 3])

    def _begin(self, data: bytes, at: int, end: int, stream: int) -> bool:
        """Notes the call that this HEADERS frame starts; False if it must take the plain path."""
        if self.room <= 0 or not self._session.may_open(stream):
            return False
        route = self._asked(data[at + _FRAME_BYTES : end])
        if route is None:
            return False
        self.room -= 1
        self._session.highest_inbound_stream_id = stream
        self._begun[stream] = route
        return True

    def _grow(self, frame: bytes, stream: int) -> bool:
        """Notes a WINDOW_UPDATE of a call, once for each; a response that fits does not need it."""
        fits = len(frame) == _FRAME_BYTES + 4 and stream in self._begun and stream not in self._grown
        increment = int.from_bytes(frame[_FRAME_BYTES:])
        if not fits or not 0 < increment <= self._session.growable_bytes:
            return False
        self._grown[stream] = frame
        return True

    def _answer(self, data: bytes, at: int, end: int, stream: int) -> bool:
        """Answers the call that this DATA frame ends; False if it must take the plain path."""
        route = self._begun.get(stream)
        message_at = at + _FRAME_BYTES + _PREFIX_BYTES
        size = end - at - _FRAME_BYTES
        if route is None or message_at > end or size > self._session.receivable_bytes:
            return False
        # One message, not compressed, that fills the frame.
        compressed, length = _PREFIX.unpack_from(data, at + _FRAME_BYTES)
        if compressed or length != size - _PREFIX_BYTES or route.length not in (None, size):
            return False
        del self._begun[stream]
        reply = route.handler(data[message_at:end], route.caller)
        sent = self._sent if isinstance(reply, Reply) else self._promised
        if not sent(stream, size, reply):  # type: ignore[arg-type]  # just looked at
            self.deferred[stream] = reply
            self._reopen(stream, route, data[at:end])
        return True

    def _hand_over(self) -> None:
        """Hands to h2 the calls whose end has not arrived or does not fit the fast path."""
        while self._begun:
            stream = next(iter(self._begun))
            self._reopen(stream, self._begun.pop(stream))

    def _reopen(self, stream: int, route: _Route, data: bytes = b"") -> None:
        """Hands the start of a call to h2, possibly after later calls were answered.

        h2 accepts new streams in rising order only, so its highest stream is set back meanwhile.
        """
        session = self._session
        highest, session.highest_inbound_stream_id = session.highest_inbound_stream_id, stream - 1
        begin = _frame(HEADERS, _END_HEADERS, stream, route.block)
        self._plain_path(begin + self._grown.pop(stream, b"") + data)
        session.highest_inbound_stream_id = max(highest, session.highest_inbound_stream_id)

    def _sent(self, stream: int, size: int, reply: Reply) -> bool:
        """Sends a reply and records the stream as closed, if the window allows it."""
        session = self._session
        if len(reply.data) > session.sendable_bytes:
            return False
        self._output.put(self._frames(stream, reply) + session.note_call(stream, size, len(reply.data)))
        self._output.budget.earn(3 if reply.status is Status.OK else 1)
        self._pass(stream)
        self.answered += 1
        return True

    def _promised(self, stream: int, size: int, later: PendingReply) -> bool:
        """Records the stream as closed and reserves window for its reply, if there is enough."""
        session = self._session
        if session.sendable_bytes < RESERVED_REPLY_BYTES:
            return False
        opened = session.note_call(stream, size, RESERVED_REPLY_BYTES)
        if opened:
            self._output.put(opened)
        self._pass(stream)
        self.waiting += 1
        later.then(partial(self._keep, stream))
        return True

    def _pass(self, stream: int) -> None:
        """Counts the frames of a call that the frame filter has not seen. A WINDOW_UPDATE costs
        nothing: the reply earns more."""
        self._frame_filter.pass_call(stream, 2 if self._grown.pop(stream, None) is None else 3)

    def _keep(self, stream: int, reply: Reply) -> None:
        """Sends a reply that was pending."""
        assert len(reply.data) <= RESERVED_REPLY_BYTES, "a pending reply is short"
        session, output = self._session, self._output
        self.waiting -= 1
        session.outbound_flow_control_window += RESERVED_REPLY_BYTES - len(reply.data)
        if not output.is_closing():
            output.flush()
            output.put(self._frames(stream, reply))
            output.budget.earn(3)
        self._when_answered()

    def _frames(self, stream: int, reply: Reply) -> bytes:
        if reply.status is not Status.OK:
            return _frame(HEADERS, _HEADERS_LAST, stream, self._encoder.encode(reply.error_headers()))
        if self._encoder.header_table.changes != self._encoded_at:
            self._encode()
        begin, end = self._begin_block, self._end_block
        return b"".join(
            (
                *(_head(HEADERS, _END_HEADERS, stream, len(begin)), begin),
                *(_head(DATA, 0, stream, len(reply.data)), reply.data),
                *(_head(HEADERS, _HEADERS_LAST, stream, len(end)), end),
            )
        )

    def _encode(self) -> None:
        """Encodes the header blocks of a response, reused until the table changes.

        A change of the table's size is sent once, before a block.
        """
        encoder = self._encoder
        table = encoder.header_table
        self._encoded_at = -1 if table.resized else table.changes
        self._begin_block, self._end_block = encoder.encode(INITIAL_HEADERS), encoder.encode(OK_TRAILERS)

    def _asked(self, block: bytes) -> _Route | None:
        """The route of a cached header block, if its method is on the fast path."""
        decoder = self._decoder
        assert isinstance(decoder, CachingDecoder)  # without one there are no handlers
        state = decoder.state
        if state != self._known_at or len(self._routes) > MAX_ROUTES:
            self._routes.clear()
            self._known_at = state
        elif block in self._routes:
            return self._routes[block]
        fields = decoder.cached(block)
        if fields is None:
            return None
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
        route = self._routes[block] = self._route(block, headers)
        return route

    def _route(self, block: bytes, headers: list[tuple[str, str]]) -> _Route | None:
        try:
            check_request(headers)
        except Malformed:
            return None
        lengths = [value for name, value in headers if name == "content-length"]
        if oversize(headers, self._output.limits.max_header_list_bytes) is not None:
            return None
        if refusal(headers) is not None or len(lengths) > 1 or not all(map(str.isdecimal, lengths)):
            return None
        handler = self._handlers.get(dict(headers)[":path"])
        if handler is None or timeout_s(headers) == 0:  # any other deadline is later than the reply
            return None
        return _Route(block, handler, int(lengths[0]) if lengths else None, Caller(headers, self._peer))


def _head(kind: int, flags: int, stream: int, size: int) -> bytes:
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _head(kind, flags, stream, len(payload)) + payload
