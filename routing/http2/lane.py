"""The short way of a call: answered as it is read, without a task and past h2.

A call may take it if its header block has come before, its one message and its end are
in the same bytes as its beginning, its method hardly waits, and the answer can go out
at once. Then nothing can happen between its beginning and its end, and all that h2
would remember of it is told to `Session`. Where its method waits for a moment, h2 is
told that the call is over, and the window for its answer is set aside. Anything else
goes the long way, which is the same to the client; calls of both kinds take turns on one
connection, in order.
"""

from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Final

from grpclib.const import Status

from routing.caller import Caller, Peer
from routing.http2.connection import Link, Session
from routing.http2.gate import DATA, HEADERS, Gate
from routing.http2.headers import Malformed, check_request, refusal, timeout_s
from routing.http2.limits import MAX_FRAME_BYTES
from routing.http2.remembered import RememberingDecoder
from routing.reply import Later, Prompt, Reply, refused

MAX_ROUTES = 64
"""Header blocks whose call is known, to a connection. The decoder remembers fewer at a
time; those of earlier times are dropped with its next change, or here."""

_FRAME: Final = Struct(">HBBBL")
_FRAME_BYTES: Final = _FRAME.size
_PREFIX_BYTES: Final = 5
MOST_LATER_BYTES = 256
"""Of the window, set aside for an answer that comes a little later. Ours have at most 150;
with more, 64 calls on one connection would not fit into the window that it begins with."""

_SHORTEST: Final = 2 * _FRAME_BYTES + _PREFIX_BYTES
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4

_Route = tuple[Prompt, int | None, Caller]

_BEGIN: Final = ((":status", "200"), ("content-type", "application/grpc+proto"))
_END: Final = (("grpc-status", "0"),)


class Lane:
    """State: `room`, how many calls this read may still bring; `answered`, how many it has;
    `waiting`, how many wait for their answer;
    the calls that known header blocks ask for, as long as the decoder's state is `_known_at`;
    and `late`, an answer that had to go the long way, until that has taken it.
    """

    __slots__ = (
        "_decoder", "_gate", "_known_at", "_link", "_peer", "_prompts", "_routes", "_session",
        "_when_answered", "answered", "late", "room", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        link: Link,
        gate: Gate,
        prompts: Mapping[str, Prompt],
        peer: Peer,
        when_answered: Callable[[], None],
    ) -> None:
        self._session = session
        self._link = link
        self._gate = gate
        self._decoder = session.decoder
        self._prompts = prompts if isinstance(self._decoder, RememberingDecoder) else {}
        self._peer = peer
        self._when_answered = when_answered
        self._routes: dict[bytes, _Route | None] = {}
        self._known_at: object = None
        self.room = 0
        self.answered = 0
        self.waiting = 0
        self.late: dict[int, Reply | Later] = {}

    def __repr__(self) -> str:
        return f"<Lane answered={self.answered} waiting={self.waiting} routes={len(self._routes)}>"

    def begin(self, room: int) -> None:
        """A read begins, in which so many calls may."""
        self.room = room - self.waiting if self._prompts else 0
        self.answered = 0

    def take(self, data: bytes, at: int) -> int:
        """Answers the calls that lie one after the other from `at` on, and says where what
        must go the long way begins."""
        if self.room > 0 and self._gate.between_frames and self._link.write_ready.is_set():
            self._link.flush()  # what h2 has encoded before must go out before
            while (end := self._answer(data, at)) > at:
                at = end
        return at

    def run(self, data: bytes, at: int, most: int) -> int:
        """Where what goes the long way from `at` on ends: before the next frame that may begin a
        call for us, or after `most` bytes."""
        last = min(len(data), at + most)
        if self.room <= 0:
            return last
        at += self._gate.owed(data, at) or self._frame_bytes(data, at)
        while last - at >= _FRAME_BYTES and not (data[at + 3] == HEADERS and data[at + 4] == _END_HEADERS):
            at += self._frame_bytes(data, at)
        return min(at, last)

    def _frame_bytes(self, data: bytes, at: int) -> int:
        return _FRAME_BYTES + int.from_bytes(data[at : at + 3])

    def _answer(self, data: bytes, at: int) -> int:
        """Answers the call at `at`; says where it ends, or `at` if it must go the long way."""
        if self.room <= 0 or len(data) - at < _SHORTEST:
            return at
        high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
        body_at = at + _FRAME_BYTES + (high << 8 | low)
        if kind != HEADERS or flags != _END_HEADERS or len(data) - body_at < _FRAME_BYTES + _PREFIX_BYTES:
            return at
        high, low, kind, flags, again = _FRAME.unpack_from(data, body_at)
        size = high << 8 | low
        message_at = body_at + _FRAME_BYTES + _PREFIX_BYTES
        end = message_at - _PREFIX_BYTES + size
        if kind != DATA or flags != _END_STREAM or again != stream or size > MAX_FRAME_BYTES:
            return at
        # One message, not compressed, that fills the frame.
        prefix = data[message_at - _PREFIX_BYTES : message_at]
        if end > len(data) or prefix[0] or int.from_bytes(prefix) != size - _PREFIX_BYTES:
            return at
        if not self._session.may_open(stream, size):
            return at
        route = self._asked(data[at + _FRAME_BYTES : body_at])
        if route is None:
            return at
        prompt, length, caller = route
        if length not in (None, size):
            return at
        self.room -= 1
        reply = prompt(data[message_at:end], caller)
        sent = self._sent if isinstance(reply, Reply) else self._promised
        return end if sent(stream, size, reply) else at  # type: ignore[arg-type]  # just looked at

    def _sent(self, stream: int, size: int, reply: Reply) -> bool:
        """Sends an answer and notes the call as over, if that is possible at once."""
        session = self._session
        if len(reply.data) > session.sendable_bytes:
            self.late[stream] = reply
            return False
        self._link.put(self._frames(stream, reply) + session.note_call(stream, size, len(reply.data)))
        self._link.budget.earn(3 if reply.status is Status.OK else 1)
        self._gate.pass_call(stream)
        self.answered += 1
        return True

    def _promised(self, stream: int, size: int, later: Later) -> bool:
        """Notes the call as over but for its answer, if there is room for that."""
        session = self._session
        if session.sendable_bytes < MOST_LATER_BYTES:
            self.late[stream] = later
            return False
        opened = session.note_call(stream, size, MOST_LATER_BYTES)
        if opened:
            self._link.put(opened)
        self._gate.pass_call(stream)
        self.waiting += 1
        later.then(partial(self._keep, stream))
        return True

    def _keep(self, stream: int, reply: Reply) -> None:
        """Sends an answer that was waited for."""
        assert len(reply.data) <= MOST_LATER_BYTES, "who waits has little to say"
        session, link = self._session, self._link
        self.waiting -= 1
        session.outbound_flow_control_window += MOST_LATER_BYTES - len(reply.data)
        if not link.is_closing():
            link.flush()
            link.put(self._frames(stream, reply))
            link.budget.earn(3)
        self._when_answered()

    def _frames(self, stream: int, reply: Reply) -> bytes:
        encode = self._session.encoder.encode
        if reply.status is not Status.OK:
            return _frame(HEADERS, _END_HEADERS | _END_STREAM, stream, encode(refused(reply)))
        begin = _frame(HEADERS, _END_HEADERS, stream, encode(_BEGIN))
        end = _frame(HEADERS, _END_HEADERS | _END_STREAM, stream, encode(_END))
        return b"".join((begin, _frame(DATA, 0, stream, reply.data), end))

    def _asked(self, block: bytes) -> _Route | None:
        """The method that a header block asks for, if the block has come before and the
        call can be answered there and then; the length that it says the request has; and
        who asks."""
        decoder = self._decoder
        assert isinstance(decoder, RememberingDecoder)  # without one there are no prompts
        state = decoder.state
        if state != self._known_at or len(self._routes) > MAX_ROUTES:
            self._routes.clear()
            self._known_at = state
        elif block in self._routes:
            return self._routes[block]
        fields = decoder.remembered(block)
        if fields is None:
            return None
        route = self._routes[block] = self._route(
            [(n.decode("latin-1"), v.decode("latin-1")) for n, v in fields]
        )
        return route

    def _route(self, headers: list[tuple[str, str]]) -> _Route | None:
        try:
            check_request(headers)
        except Malformed:
            return None
        lengths = [value for name, value in headers if name == "content-length"]
        if refusal(headers) is not None or len(lengths) > 1 or not all(map(str.isdecimal, lengths)):
            return None
        timeout = timeout_s(headers)
        if timeout == 0:  # else what never waits is not overtaken by its deadline
            return None
        prompt = self._prompts.get(dict(headers)[":path"])
        if prompt is None:
            return None
        return prompt, int(lengths[0]) if lengths else None, Caller(headers, self._peer)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload
