"""The short way of a call: to the client it is the long one, whatever comes in whatever pieces."""

import asyncio
import struct
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from grpclib.const import Status
from hpack import Decoder, Encoder
from http2_peer import PREFACE, Peer, message, raw
from http2_server import Clock, Raw, Service, serving
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from routing import caller
from routing.calls import Calls
from routing.http2 import Http2Limits, Listener
from routing.http2.gate import DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE
from routing.http2.lane import Lane
from routing.http2.protocol import Protocol
from routing.reply import Reply

END, END_HEADERS = 0x1, 0x4


class Wire(asyncio.Transport):
    """A transport in memory: what the server writes, and whether it has ended."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1234)})
        self.written = bytearray()
        self.writes = 0
        self.ended = False

    def write(self, data: Any) -> None:
        assert not self.ended
        self.written += data
        self.writes += 1

    def is_closing(self) -> bool:
        return self.ended

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def frames(self) -> list[Frame]:
        data, at, found = bytes(self.written), 0, []
        while at < len(data):
            frame, length = Frame.parse_frame_header(memoryview(data[at : at + 9]))
            frame.parse_body(memoryview(data[at + 9 : at + 9 + length]))
            found.append(frame)
            at += 9 + length
        return found


class Case:
    """One connection to a server in memory, with the short way or without it."""

    def __init__(self, fast: bool, **limits: Any) -> None:
        self.service = Service()
        self.calls = Calls(Raw())
        servable = self.calls.wrap(self.service, prompt=("Echo", "Many"))
        self.listener = Listener([servable], Raw(), Http2Limits(fast=fast, **limits), clock=Clock())
        self.protocol = Protocol(self.listener, Clock())
        self.wire = Wire()
        self.protocol.connection_made(self.wire)

    async def feed(self, *pieces: bytes) -> None:
        """Reads that the server has dealt with one after the other."""
        for piece in pieces:
            self.protocol.data_received(piece)
            await self.settle()

    async def settle(self) -> None:
        for _ in range(20):  # turns of the loop; nothing here waits for time
            await asyncio.sleep(0)

    @property
    def state(self) -> dict[str, Any]:
        """What h2 and the gate know of the connection; the encoder knows answers in their order, which
        differs between streams."""
        session = self.protocol._session
        session.open_inbound_streams  # noqa: B018 - looking is what makes h2 forget
        window = session._inbound_flow_control_window_manager
        return {
            "highest": session.highest_inbound_stream_id,
            "gate": self.protocol._gate.highest_stream,
            "frames": self.protocol._gate.frames,
            "closed": dict(session._closed_streams),
            "open": set(session.streams),
            "in": window.current_window_size,
            "out": session.outbound_flow_control_window,
            "table": list(session.decoder.header_table.dynamic_entries),
            "tasks": (open_calls := len(self.protocol.handler.tasks)),
            # An answer that waits for the client's window counts as given on the short way,
            # and bytes that were on their way to h2 as a connection ended are no one's.
            "given": self.wire.ended or open_calls or (window._bytes_processed, dict(self.calls.counts)),
            "late": dict(self.protocol.handler.late),
        }

    def answers(self) -> dict[int, list[Any]]:
        """What each stream got, its frames in order; on stream 0, what does not depend on time."""
        decoder, by_stream = Decoder(), dict[int, list[Any]]()
        for frame in self.wire.frames():
            said: Any = type(frame).__name__, sorted(frame.flags)
            if isinstance(frame, HeadersFrame):
                said += tuple(decoder.decode(frame.data))
            elif isinstance(frame, DataFrame):
                said += (frame.data,)
            elif isinstance(frame, RstStreamFrame):
                said += (frame.error_code,)
            elif isinstance(frame, GoAwayFrame):
                said += frame.error_code, frame.last_stream_id, frame.additional_data
            elif isinstance(frame, WindowUpdateFrame):
                continue  # as often as it takes; `state` compares the windows
            by_stream.setdefault(frame.stream_id, []).append(said)
        return by_stream


class Client:
    """The bytes of a client whose header blocks repeat."""

    def __init__(self) -> None:
        self.encoder = Encoder()
        self.stream = -1

    def call(self, body: bytes, path: str = "Echo", flags: int = END, **more: str) -> bytes:
        fields = {
            ":method": "POST", ":scheme": "http", ":path": f"/test.Test/{path}", ":authority": "test",
            "te": "trailers", "content-type": "application/grpc",
        }  # fmt: skip
        fields |= {name.replace("_", "-"): value for name, value in more.items()}
        self.stream += 2
        block = self.encoder.encode(list(fields.items()))
        return raw(HEADERS, block, stream=self.stream, flags=END_HEADERS) + raw(
            DATA, body, stream=self.stream, flags=flags
        )


def fast_calls(case: Case) -> int:
    """Calls that were not tasks: what h2 never had as streams."""
    return case.protocol._lane.answered


STEPS = st.one_of(
    *[st.tuples(st.just("call"), st.binary(max_size=20))] * 6,
    st.tuples(st.just("many"), st.integers(0, 40_000)),
    st.tuples(st.just("timeout"), st.sampled_from(["0m", "1S", "x"])),
    st.tuples(
        st.just("extra"), st.sampled_from(["content-length", "user-agent", "x-bin", "te", "content-type"])
    ),
    st.tuples(st.just("length"), st.sampled_from(["6", "06", "7", "-1", "6 ", "\u0666", "9" * 5_000])),
    st.tuples(st.just("method"), st.sampled_from(["Length", "Watch", "Talk", "Missing"])),
    st.tuples(
        st.just("body"),
        st.sampled_from([b"", b"\0", message(b"a") * 2, message(b"a", flag=1), message(b"a")[:-1]]),
    ),
    st.tuples(st.just("open"), st.binary(max_size=5)),
    st.tuples(st.just("reset"), st.integers(0, 4)),
    st.tuples(st.just("late"), st.integers(0, 4)),
    st.tuples(st.just("ping"), st.just(b"12345678")),
    st.tuples(st.just("window"), st.sampled_from([0, 3, 100, 65_535])),
    st.tuples(st.just("grow"), st.integers(1, 100_000)),
    st.tuples(st.just("table"), st.sampled_from([0, 100, 4_096])),
    st.tuples(st.just("old"), st.just(b"")),
    st.tuples(st.just("unknown"), st.just(b"?")),
    st.tuples(st.just("goodbye"), st.just(b"")),
)

TIMELY = {"old", "length", "reset", "late", "window", "grow", "table", "goodbye"}
"""What does something else to a call that has been answered than to one that is about to be: the
client has seen the answers to what it sent before."""


def bytes_of(client: Client, what: str, value: Any) -> bytes:
    if what == "call":
        return client.call(message(value))
    if what == "many":
        return client.call(message(b"%d" % value), "Many")
    if what == "timeout":
        return client.call(message(b"t"), grpc_timeout=value)
    if what == "extra":
        return client.call(message(b"e"), **{value.replace("-", "_"): "6"})
    if what == "length":
        return client.call(message(b"l"), content_length=value)
    if what == "method":
        return client.call(message(b"m"), value)
    if what == "body":
        return client.call(value)
    if what == "open":
        return client.call(message(value), flags=0)
    stream = max(client.stream - 2 * value, 1) if isinstance(value, int) else client.stream
    return {
        "reset": raw(RST_STREAM, b"\0\0\0\x08", stream=stream),
        "late": raw(WINDOW_UPDATE, b"\0\0\0\x09", stream=stream),
        "ping": raw(PING, b"12345678"),
        "window": raw(SETTINGS, struct.pack(">HI", 4, value) if what == "window" else b""),
        "grow": raw(WINDOW_UPDATE, struct.pack(">I", value) if what == "grow" else b""),
        "table": raw(SETTINGS, struct.pack(">HI", 1, value) if what == "table" else b""),
        "old": raw(DATA, b"x", stream=max(client.stream, 1), flags=END),
        "unknown": raw(0x77, b"?"),
        "goodbye": raw(GOAWAY, bytes(8)),
    }[what]


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=25), st.lists(st.integers(1, 600), max_size=12))
def test_the_short_way_and_the_long_one_look_the_same(steps: list[tuple[str, Any]], cuts: list[int]) -> None:
    client, pieces = Client(), list[bytes]()
    data = PREFACE + SettingsFrame(0).serialize() + client.call(message(b"first"))
    lengths = iter(cuts)
    for (before, _), (what, value) in pairwise([("call", b""), *steps, ("ping", b"")]):
        if what in TIMELY or before in TIMELY:
            pieces.append(data)
            data = b""
        data += bytes_of(client, what, value)
        if len(data) > (cut := next(lengths, 10_000)):
            pieces += data[:cut], data[cut:]
            data = b""
    pieces.append(data)

    async def outcome(fast: bool) -> Any:
        case = Case(fast)
        await case.feed(*filter(None, pieces))
        state = case.state
        case.service.release.set()
        await case.settle()
        case.protocol.connection_lost(None)
        await case.settle()
        return case.answers(), state

    (fast, fast_state), (plain, plain_state) = asyncio.run(outcome(True)), asyncio.run(outcome(False))
    assert fast == plain
    assert fast_state == plain_state


@pytest.mark.parametrize("cut", [0, 3, 9, 20])
async def test_calls_in_one_read_are_answered_in_one_write(cut: int) -> None:
    client, case = Client(), Case(fast=True)
    await case.feed(PREFACE + raw(SETTINGS) + client.call(message(b"1")), client.call(message(b"2")))
    data = client.call(message(b"3")) + b"".join(client.call(message(b"%d" % n)) for n in range(20))
    before = case.wire.writes
    if cut:
        await case.feed(data[:cut])
    case.protocol.data_received(data[cut:])
    assert fast_calls(case) == 21 - (cut > 0)
    assert case.wire.writes == before + 1
    assert not case.protocol._session.streams.keys() & range(7, 100)
    await case.settle()
    assert len(case.answers()) == 1 + 23
    assert case.calls.counts == Counter({("/test.Test/Echo", "OK"): 23})


async def test_no_call_takes_the_short_way_where_it_is_turned_off() -> None:
    client, case = Client(), Case(fast=False)
    await case.feed(PREFACE + raw(SETTINGS), *[client.call(message(b"1")) for _ in range(5)])
    assert fast_calls(case) == 0
    assert len(case.answers()) == 1 + 5


async def test_what_does_not_fit_the_window_is_answered_once_and_sent_as_it_opens() -> None:
    client, case = Client(), Case(fast=True)
    small = raw(SETTINGS, struct.pack(">HI", 4, 10))
    await case.feed(PREFACE + small, *[client.call(message(b"1"), "Many") for _ in range(2)])
    await case.feed(client.call(message(b"100"), "Many"))
    assert case.calls.counts == {("/test.Test/Many", "OK"): 3}
    assert [said[0] for said in case.answers()[5]] == ["HeadersFrame", "DataFrame"]
    await case.feed(raw(WINDOW_UPDATE, struct.pack(">I", 1_000), stream=5))
    sent = [said[2] for said in case.answers()[5] if said[0] == "DataFrame"]
    assert b"".join(sent) == message(b"x" * 100)
    assert case.calls.counts == {("/test.Test/Many", "OK"): 3}
    assert not case.protocol.handler.late


async def test_while_the_socket_is_full_nothing_takes_the_short_way() -> None:
    client, case = Client(), Case(fast=True)
    await case.feed(PREFACE + raw(SETTINGS), *[client.call(message(b"1")) for _ in range(3)])
    case.protocol.pause_writing()
    await case.feed(client.call(message(b"2")))
    assert fast_calls(case) == 0
    assert 7 not in case.answers()
    case.protocol.resume_writing()
    await case.settle()
    assert 7 in case.answers()


async def test_one_read_brings_no_more_calls_than_a_connection_may_have() -> None:
    client, case = Client(), Case(fast=True, max_streams=10)
    await case.feed(PREFACE + raw(SETTINGS), *[client.call(message(b"1")) for _ in range(3)])
    await case.feed(b"".join(client.call(message(b"2")) for _ in range(15)))
    kinds = Counter(said[0] for stream, all_said in case.answers().items() if stream > 5 for said in all_said)
    assert kinds["DataFrame"] == 10
    assert kinds["RstStreamFrame"] == 5


async def test_a_prompt_method_that_fails_is_our_error(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls(Raw())
    path = "/test.Test/Many"
    reply = calls.wrap(Service(), prompt=("Many",)).prompts[path](
        b"no number", caller.Caller((), caller.Peer(Wire()))
    )
    assert isinstance(reply, Reply)
    assert (reply.status, reply.message, reply.data) == (Status.INTERNAL, "internal error", b"")
    assert calls.counts[path, "INTERNAL"] == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_draining_refuses_on_the_short_way_too() -> None:
    client, case = Client(), Case(fast=True)
    await case.feed(PREFACE + raw(SETTINGS), *[client.call(message(b"1")) for _ in range(3)])
    await case.calls.drain()
    await case.feed(client.call(message(b"2")))
    (said,) = case.answers()[7]
    assert ("grpc-status", str(Status.UNAVAILABLE.value)) in said
    assert fast_calls(case) == 1  # and costs less than an answer


async def test_a_refusal_needs_no_window() -> None:
    client, case = Client(), Case(fast=True)
    await case.feed(PREFACE + raw(SETTINGS, struct.pack(">HI", 4, 0)))
    for _ in range(3):
        await case.feed(client.call(message(b"no number"), "Many"))
    assert fast_calls(case) == 1
    (said,) = case.answers()[5]
    assert ("grpc-status", str(Status.INTERNAL.value)) in said


async def test_many_calls_open_the_clients_window_again() -> None:
    async with serving() as server, await Peer.connect(server.port) as peer:
        for _ in range(600):
            stream = peer.call(b"x" * 8_000, **{":path": "/test.Test/Length"})
            assert (await peer.status(stream))[0] == 0
        assert any(isinstance(frame, WindowUpdateFrame) and not frame.stream_id for frame in peer.frames)


def test_a_lane_says_what_it_does() -> None:
    async def shown() -> str:
        return repr(Case(fast=True).protocol._lane)

    assert asyncio.run(shown()) == "<Lane answered=0 waiting=0 routes=0>"
    assert Lane.__slots__
