"""The fast path looks like the plain path to the client, whatever the bytes and their pieces."""

import asyncio
import struct
from collections import Counter
from itertools import count, pairwise
from typing import Any

import grpc
import pytest
from grpclib import protocol
from grpclib.const import Status
from h2.errors import ErrorCodes
from hpack import Decoder
from hyperframe.frame import (
    HeadersFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.http2.events import Processor
from routing.http2.fast_path import FastPath
from routing.http2.frame_filter import DATA, GOAWAY, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE
from routing.rpc import caller
from routing.rpc.calls import Calls
from routing.rpc.reply import Reply
from support.http2_case import END, Case, Client, Wire
from support.http2_peer import PREFACE, Peer, message, raw
from support.http2_server import Raw, Service, serving


def fast_calls(case: Case) -> int:
    """Calls that were not tasks: what h2 never had as streams."""
    return case.protocol._fast_path.answered


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
    *[st.tuples(st.just("begin"), st.sampled_from(["Echo", "Many", "Hold", "Missing"]))] * 4,
    *[st.tuples(st.just("end"), st.integers(0, 40_000))] * 4,
    st.tuples(st.just("torn"), st.sampled_from([b"", message(b"7", length=2), message(b"7")])),
    st.tuples(st.just("cancel"), st.integers(0, 4)),
    *[st.tuples(st.just("await"), st.integers(1, 400))] * 2,
    st.tuples(st.just("burst"), st.sampled_from([0, 2**31 - 1, 2**31 - 65_535])),
    st.tuples(st.just("stray"), st.sampled_from([1, 1, 3, -1, -3])),
    st.tuples(st.just("reset"), st.integers(0, 4)),
    st.tuples(st.just("deferred"), st.integers(0, 4)),
    st.tuples(st.just("ping"), st.just(b"12345678")),
    st.tuples(st.just("window"), st.sampled_from([0, 3, 100, 65_535])),
    st.tuples(st.just("grow"), st.integers(1, 100_000)),
    st.tuples(st.just("table"), st.sampled_from([0, 100, 4_096])),
    st.tuples(st.just("old"), st.just(b"")),
    st.tuples(st.just("unknown"), st.just(b"?")),
    st.tuples(st.just("goodbye"), st.just(b"")),
)

PENDING = {"end", "torn", "cancel", "await", "burst"}
"""What happens to a call that has begun, and may be of the same read as its begin."""

TIMELY = {"stray", "burst", "old", "length", "reset", "deferred", "window", "grow", "table", "goodbye"}
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
    if what == "begin":
        return client.begin(value)
    if what == "stray":  # a stream that is not the client's to open, or not any more
        at = client.stream
        client.stream = max(at + value - 2, -1)
        stray = client.call(message(b"stray"))
        client.stream = max(at, client.stream)
        return stray
    if what in PENDING:
        if not client.begun:
            return b""
        which = value % len(client.begun) if isinstance(value, int) else 0
        if what == "end":
            return client.end(message(b"%d" % value), which)
        if what == "torn":
            return client.end(value, which, flags=0)
        if what == "cancel":
            return raw(RST_STREAM, b"\0\0\0\x08", stream=client.begun.pop(which))
        return raw(WINDOW_UPDATE, struct.pack(">I", value), stream=client.begun[which])
    stream = max(client.stream - 2 * value, 1) if isinstance(value, int) else client.stream
    return {
        "reset": raw(RST_STREAM, b"\0\0\0\x08", stream=stream),
        "deferred": raw(WINDOW_UPDATE, b"\0\0\0\x09", stream=stream),
        "ping": raw(PING, b"12345678"),
        "window": raw(SETTINGS, struct.pack(">HI", 4, value) if what == "window" else b""),
        "grow": raw(WINDOW_UPDATE, struct.pack(">I", value) if what == "grow" else b""),
        "table": raw(SETTINGS, struct.pack(">HI", 1, value) if what == "table" else b""),
        "old": raw(DATA, b"x", stream=max(client.stream, 1), flags=END),
        "unknown": raw(0x77, b"?"),
        "goodbye": raw(GOAWAY, bytes(8)),
    }[what]


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=25), st.lists(st.integers(1, 600), max_size=12))
def test_the_fast_path_and_the_plain_path_look_the_same(
    steps: list[tuple[str, Any]], cuts: list[int]
) -> None:
    client, pieces = Client(), list[bytes]()
    # Who gets the last of the connection's window hangs on who is answered first.
    wide = raw(WINDOW_UPDATE, struct.pack(">I", 1 << 24))
    data = PREFACE + SettingsFrame(0).serialize() + wide + client.call(message(b"first"))
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


async def test_calls_that_take_long_leave_the_others_of_a_read_for_later_turns() -> None:
    """On a clock that goes on by a second whenever it is looked at."""
    client, seconds = Client(), count()
    case = Case(fast=True, clock=lambda: float(next(seconds)), turn_seconds=3.5)
    await case.feed(PREFACE + raw(SETTINGS) + client.call(message(b"1")), client.call(message(b"2")))
    before = fast_calls(case)
    case.protocol.data_received(b"".join(client.call(message(b"%d" % n)) for n in range(20)))
    assert 0 < fast_calls(case) - before < 8
    while sum(case.calls.counts.values()) < 22:
        await case.settle()
    assert case.calls.counts == Counter({("/test.Test/Echo", "OK"): 22})


async def warm() -> tuple[Client, Case]:
    """A connection whose client's header blocks have all come before."""
    client, case = Client(), Case(fast=True)
    await case.feed(PREFACE + raw(SETTINGS))
    for path in ("Echo", "Many") * 2:
        await case.feed(*[client.call(message(b"1"), path) for _ in range(2)])
    return client, case


async def test_calls_whose_headers_all_come_first_are_answered_in_one_write() -> None:
    client, case = await warm()
    begins = b"".join(client.begin() for _ in range(20))
    ends = [client.end(message(b"%d" % n), which) for n, which in enumerate([5, 0, *[-1] * 18])]
    before = case.wire.writes
    await case.feed(begins + b"".join(ends))
    assert fast_calls(case) == 20
    assert case.wire.writes == before + 1
    assert {
        said[2] for answer in list(case.answers().values())[-20:] for said in answer if said[0] == "DataFrame"
    } == {message(b"%d" % n) for n in range(20)}


async def test_a_call_whose_window_opens_before_its_request_takes_the_fast_path() -> None:
    client, case = await warm()
    begin, grow = client.begin(), raw(WINDOW_UPDATE, struct.pack(">I", 5), stream=client.stream)
    await case.feed(begin + grow + client.end(message(b"1")))
    assert fast_calls(case) == 1
    begin, grow = client.begin("Many"), raw(WINDOW_UPDATE, struct.pack(">I", 5), stream=client.stream)
    await case.feed(begin + grow)
    assert case.protocol._session.streams[client.stream].outbound_flow_control_window == 65_535 + 5


async def test_nearly_all_calls_of_grpcs_own_client_take_the_fast_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long_way: list[int] = []
    plain = Processor.process_request_received

    def counted(processor: Processor, event: Any) -> None:
        long_way.append(event.stream_id)
        plain(processor, event)

    monkeypatch.setattr(Processor, "process_request_received", counted)
    async with serving() as server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        echo = channel.unary_unary("/test.Test/Echo", bytes, bytes)
        said = [await echo(b"%d" % number) for number in range(20)]
        said += await asyncio.gather(*(echo(b"%d" % number) for number in range(20, 40)))
    assert said == [b"%d" % number for number in range(40)]
    assert len(long_way) <= 5, "all but the first, whose headers are new"


async def test_a_call_whose_end_is_not_in_the_same_read_takes_the_plain_path() -> None:
    client, case = await warm()
    begins = [client.begin() for _ in range(3)]
    await case.feed(b"".join(begins) + client.end(message(b"2"), which=1))
    first, second, third = client.stream - 4, client.stream - 2, client.stream
    assert fast_calls(case) == 1
    assert case.protocol._session.streams.keys() == {first, third}
    await case.feed(client.end(message(b"3")) + client.end(message(b"1")))
    assert [case.answers()[stream][1][2] for stream in (first, second, third)] == [
        message(b"1"), message(b"2"), message(b"3"),
    ]  # fmt: skip


async def test_an_answer_that_must_wait_is_of_a_call_that_began_before_others_ended() -> None:
    client, case = await warm()
    begins = client.begin("Many") + client.begin()
    await case.feed(begins + client.end(message(b"e")) + client.end(message(b"20000")))
    many, echo = case.answers()[client.stream - 2], case.answers()[client.stream]
    assert b"".join(said[2] for said in many if said[0] == "DataFrame") == message(b"x" * 20_000)
    assert echo[1][2] == message(b"e")
    assert case.calls.counts["/test.Test/Many", "OK"] == 5


async def test_a_stream_is_not_opened_again_after_a_lower_one_took_the_plain_path() -> None:
    client, case = await warm()
    first, second = client.begin(), client.call(message(b"2"))
    await case.feed(first + second + second)
    assert fast_calls(case) == 1
    (*_, (name, _, code, _, reason)) = case.answers()[0]
    assert (name, code) == ("GoAwayFrame", ErrorCodes.STREAM_CLOSED), reason


@pytest.mark.parametrize(("window", "size"), [(99, 100), (20_000, 16_385)])
async def test_a_request_beyond_the_window_or_a_frames_size_ends_the_connection(
    window: int, size: int
) -> None:
    client, case = await warm()
    case.protocol._session._inbound_flow_control_window_manager.current_window_size = window
    await case.feed(client.call(message(b"1".rjust(size - 5)), "Many"))
    assert fast_calls(case) == 0
    assert case.wire.ended


@pytest.mark.parametrize("between", ["refusal", 0, 200])
async def test_the_headers_of_an_answer_keep_up_with_the_clients_table(between: str | int) -> None:
    client, case = await warm()
    for _ in range(3):
        if between == "refusal":
            await case.feed(client.call(message(b"x" * client.stream), grpc_timeout="x"))
        else:
            await case.feed(raw(SETTINGS, struct.pack(">HI", 1, between)))
        for _ in range(2):
            await case.feed(b"".join(client.call(message(b"1")) for _ in range(3)))
        assert fast_calls(case) == 3
    decoder, blocks = Decoder(), [one for one in case.wire.frames() if isinstance(one, HeadersFrame)]
    fields = [list(decoder.decode(block.data)) for block in blocks]
    assert fields[-2:] == [
        [(":status", "200"), ("content-type", "application/grpc+proto")],
        [("grpc-status", "0")],
    ]
    told = sum(block.data[0] & 0xE0 == 0x20 for block in blocks)
    assert told == (between != "refusal"), "the table's size is told once"
    assert decoder.header_table_size == (4_096 if between == "refusal" else between)


async def test_no_call_takes_the_fast_path_when_it_is_off() -> None:
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
    assert not case.protocol.handler.deferred


async def test_what_does_not_fit_the_connections_window_waits_for_it() -> None:
    client, case = await warm()
    await case.feed(*[client.call(message(b"16000"), "Many") for _ in range(4)])
    await case.feed(client.call(message(b"5000"), "Many"), client.call(message(b"5000"), "Many"))
    assert fast_calls(case) == 0
    both = client.stream - 2, client.stream

    def sent() -> int:
        return sum(len(said[2]) for one in both for said in case.answers()[one] if said[0] == "DataFrame")

    assert 0 < sent() < 10_010
    await case.feed(raw(WINDOW_UPDATE, struct.pack(">I", 1 << 16)))
    assert sent() == 10_010


async def test_no_call_takes_the_fast_path_while_the_socket_is_full() -> None:
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
    reply = calls.wrap(Service(), on_fast_path=("Many",)).fast_path_handlers[path](
        b"no number", caller.Caller((), caller.Peer(protocol.Peer(Wire())))
    )
    assert isinstance(reply, Reply)
    assert (reply.status, reply.message, reply.data) == (Status.INTERNAL, "internal error", b"")
    assert calls.counts[path, "INTERNAL"] == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_draining_refuses_calls_on_the_fast_path_too() -> None:
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


def test_the_repr_shows_the_counts() -> None:
    async def shown() -> str:
        return repr(Case(fast=True).protocol._fast_path)

    assert asyncio.run(shown()) == "<FastPath answered=0 waiting=0 routes=0>"
    assert FastPath.__slots__
