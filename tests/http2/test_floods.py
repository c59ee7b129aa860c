"""What is too much ends its own connection, with a GOAWAY that says why, and costs nobody else."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from grpclib.const import Status
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from routing.http2.connection import SLICE_BYTES
from routing.http2.frame_filter import DATA, HEADERS, PING, RST_STREAM, SETTINGS
from support.http2_peer import Peer, message, raw
from support.http2_server import Clock, abused, serving

LARGEST = 4 << 20

pytestmark = pytest.mark.usefixtures("quiet")


def rapid_reset(peer: Peer) -> list[Any]:
    frame = peer.headers(path="/test.Test/Hold")
    return [frame, RstStreamFrame(frame.stream_id, error_code=ErrorCodes.CANCEL)]


def provoked_reset(peer: Peer) -> list[Any]:
    """Requests that are no requests: the server is to do the resetting."""
    return [peer.headers(drop=":path")]


def on_a_reset_stream(*parts: bytes) -> Callable[[Peer], list[Any]]:
    """Frames on a stream that the client has reset: each provokes a reset from the server."""

    def flood(peer: Peer) -> list[Any]:
        begun = [raw(RST_STREAM, b"\0\0\0\x08", stream=1)] if peer.next_stream == 3 else []
        peer.next_stream = 5
        return [*begun, *parts]

    return flood


FLOODS: dict[str, Callable[[Peer], list[Any]]] = {
    "rapid reset": rapid_reset,
    "resets provoked from the server": provoked_reset,
    "streams past the limit": lambda p: [p.headers(path="/test.Test/Hold")],
    "PING": lambda p: [PingFrame(0, opaque_data=b"12345678")],
    "PING answers": lambda p: [PingFrame(0, opaque_data=b"12345678", flags=["ACK"])],
    "SETTINGS": lambda p: [SettingsFrame(0, settings={4: 65_535})],
    "empty SETTINGS": lambda p: [SettingsFrame(0)],
    "PRIORITY": lambda p: [PriorityFrame(1, depends_on=3)],
    "WINDOW_UPDATE": lambda p: [WindowUpdateFrame(0, window_increment=1)],
    "unknown frames": lambda p: [raw(0xBE, b"?")],
    "ALTSVC": lambda p: [raw(0x0A, b"\x00\x00", stream=1)],
    "GOAWAY": lambda p: [GoAwayFrame(0)],
    "empty DATA": lambda p: [DataFrame(1, data=b"")],
    "one-byte DATA": lambda p: [DataFrame(1, data=b"\x00")],
    "padding": lambda p: [DataFrame(1, data=b"", pad_length=200, flags=["PADDED"])],
    "ends of a stream that was reset": on_a_reset_stream(raw(DATA, stream=1, flags=1)),
    "DATA on a stream that was reset": on_a_reset_stream(raw(DATA, b"x" * 256, stream=1)),
    "HEADERS on a stream that was reset": on_a_reset_stream(raw(HEADERS, b"\x83", stream=1, flags=5)),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_ends_its_own_connection_and_no_other(name: str) -> None:
    async with serving(burst=300, max_streams=16, linger_seconds=0.01) as server, abused(server) as peer:
        stream = peer.headers(path="/test.Test/Talk")
        peer.write(stream)  # something for DATA to belong to, that does not end by itself
        for _ in range(20):
            peer.write(*(part for _ in range(100) for part in FLOODS[name](peer)))
        said = await peer.goodbye()
        assert said.error_code == ErrorCodes.ENHANCE_YOUR_CALM, said
        await server.until(lambda: len(server.listener.connections) == 1 and server.service.holding == 0)


@pytest.mark.parametrize("method", ["Echo", "Hold"])
async def test_a_client_that_gets_answers_may_go_on_for_as_long_as_it_likes(method: str) -> None:
    """Each call costs two frames of the budget; its answer earns three, on either path."""
    async with serving(burst=20, refill_per_s=1e-9) as server:
        server.service.release.set()
        peer = await server.peer()
        for _ in range(200):
            stream = peer.call(path=f"/test.Test/{method}")
            peer.write(WindowUpdateFrame(0, window_increment=10), PingFrame(0, opaque_data=b"12345678"))
            assert (await peer.status(stream))[0] == 0


async def test_a_refusal_earns_what_its_one_frame_costs_and_no_more() -> None:
    async with serving(burst=20, refill_per_s=1e-9, linger_seconds=0.01) as server:
        peer = await server.peer()
        await server.calls.drain()
        ping = PingFrame(0, opaque_data=b"12345678")
        for _ in range(50):
            stream = peer.call()
            peer.write(ping)
            assert (await peer.status(stream))[0] == Status.UNAVAILABLE.value
        for _ in range(50):
            peer.call()
            peer.write(ping, ping)
        assert (await peer.goodbye()).error_code == ErrorCodes.ENHANCE_YOUR_CALM


async def test_frames_above_the_budget_of_a_turn_wait_for_a_later_turn() -> None:
    async with serving(turn=10, pause_seconds=3600.0, linger_seconds=0.01) as server, abused(server) as peer:
        ping = raw(PING, b"12345678")
        peer.write(ping * 900)
        connection = await server.connection_where(lambda one: not one.connection.transport.is_reading())
        assert 10 <= connection.connection.budget.spent <= 10 + SLICE_BYTES // len(ping) + 1


async def test_what_had_to_wait_is_read_in_order() -> None:
    async with serving(turn=1, pause_seconds=0.0) as server:
        peer = await server.peer()
        pings = [b"%08d" % number for number in range(300)]
        peer.write(*(raw(PING, ping) for ping in pings))
        first = await peer.until(PingFrame)
        stream = peer.call(b"last")
        assert (await peer.status(stream))[0] == 0
        assert [one.opaque_data for one in (first, *peer.frames) if isinstance(one, PingFrame)] == pings


async def test_a_client_that_leaves_while_it_waits_leaves_nothing() -> None:
    async with serving(turn=1, pause_seconds=0.01) as server:
        peer = await server.peer()
        peer.write(raw(PING, b"12345678") * 1000)
        await server.connection_where(lambda one: not one.connection.transport.is_reading())
        peer.writer.transport.abort()
        await server.until(lambda: not server.listener.connections)


async def test_a_stream_past_the_limit_is_refused_and_the_others_live() -> None:
    async with serving(max_streams=4) as server:
        peer = await server.peer()
        assert (await peer.until(SettingsFrame)).settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == 4
        held = [peer.call(path="/test.Test/Hold") for _ in range(4)]
        assert await peer.reset(peer.call()) == ErrorCodes.REFUSED_STREAM
        server.service.release.set()
        for stream in held:
            assert (await peer.status(stream))[0] == 0
        assert (await peer.status(peer.call()))[0] == 0


async def test_open_server_streams_leave_room_for_unary_calls() -> None:
    async with serving(max_streams=4, max_watches=2) as server:
        peer = await server.peer()
        watching = [peer.call(path="/test.Test/Watch") for _ in range(3)]
        assert await peer.status(watching[2]) == (
            Status.RESOURCE_EXHAUSTED.value,
            "too many streams are open on this connection; open another one",
        )
        assert (await peer.status(peer.call()))[0] == 0
        peer.write(RstStreamFrame(watching[0]))
        await peer.alive()
        again = peer.call(b"again", path="/test.Test/Watch")
        assert (await peer.until(DataFrame, again)).data == message(b"again")


@pytest.mark.parametrize("empty", [True, False])
async def test_endless_continuation_is_cut_off(empty: bool) -> None:
    async with serving() as server, abused(server) as peer:
        begun = peer.headers()
        begun.flags.discard("END_HEADERS")
        more = ContinuationFrame(begun.stream_id, data=b"" if empty else b"\x00\x01a\x01b" * 3000)
        peer.write(begun, *[more] * 50)
        assert (await peer.goodbye()).error_code == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("size", [1100, 3000])
async def test_a_header_list_past_the_hard_limit_is_cut_off(size: int) -> None:
    """An HPACK bomb: one field in the table, named sixty times in as many bytes."""
    async with serving(linger_seconds=0.01) as server, abused(server) as peer:
        peer.write(peer.fields([(":method", "POST"), *[("bomb", "x" * size)] * 60]))
        assert (await peer.goodbye()).error_code == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("path", ["/test.Test/Echo", "/test.Test/Talk"])
async def test_a_header_list_past_the_limit_ends_its_call_alone(path: str, fast_path: bool) -> None:
    async with serving(fast_path=fast_path) as server:
        peer = await server.peer()
        neighbour = peer.headers(path="/test.Test/Length")
        peer.write(neighbour)
        for _ in range(4):
            fields = {f"key-{n}": "x" * 200 for n in range(80)}
            status, words = await peer.status(peer.call(path=path, **fields))
            assert status == Status.RESOURCE_EXHAUSTED.value
            assert "bytes of header fields" in unquote(words)
        peer.write(DataFrame(neighbour.stream_id, data=bytes(5), flags=["END_STREAM"]))
        assert (await peer.status(neighbour.stream_id))[0] == 0


async def test_header_lists_past_the_limit_cost_their_connection_tokens() -> None:
    """The answers do not earn them back: such a block is decoded only to be refused."""
    async with serving(burst=20, refill_per_s=0.001) as server, abused(server) as peer:
        for _ in range(22):
            peer.call(**{f"key-{n}": "x" * 200 for n in range(80)})
        goodbye = await peer.goodbye()
        assert goodbye.error_code == ErrorCodes.ENHANCE_YOUR_CALM
        assert goodbye.additional_data == b"too many streams that had to be refused"


async def test_a_header_list_past_the_limit_waits_for_no_reader() -> None:
    """Its fields are dropped at once, also if its client does not read the answer."""
    async with serving() as server:
        peer = await server.peer()
        for _ in range(50):
            peer.call(**{f"key-{n}": "x" * 200 for n in range(80)})
        await peer.alive()
        (connection,) = server.listener.connections
        assert not connection.handler.tasks


async def test_a_header_list_within_the_limit_is_served() -> None:
    async with serving() as server:
        peer = await server.peer()
        assert (await peer.status(peer.call(**{f"key-{n}": "x" * 200 for n in range(60)})))[0] == 0


async def test_a_frame_that_is_too_long_is_refused_on_its_header() -> None:
    async with serving() as server, abused(server) as peer:
        peer.write(peer.headers(), raw(0, length=16_385, stream=1))
        assert (await peer.goodbye()).error_code == ErrorCodes.FRAME_SIZE_ERROR


async def test_the_clients_table_size_does_not_decide_over_our_memory() -> None:
    async with serving() as server:
        peer = await server.peer(settings={SettingsFrame.HEADER_TABLE_SIZE: 1 << 30})
        assert (await peer.status(peer.call()))[0] == 0
        (connection,) = server.listener.connections
        assert connection._session.encoder.header_table_size == 4096


async def test_settings_that_mean_nothing_to_us_are_not_kept() -> None:
    """There may be 65,536 of them, and h2 would keep 800 bytes for each."""
    async with serving() as server:
        peer = await server.peer()
        for first in range(100, 200, 10):
            peer.write(SettingsFrame(0, settings=dict.fromkeys(range(first, first + 10), 1)))
        assert (await peer.status(peer.call()))[0] == 0
        (connection,) = server.listener.connections
        assert len(connection._session.remote_settings) < 10


async def test_a_frame_of_too_many_settings_is_cut_off() -> None:
    async with serving(max_settings=4) as server, abused(server) as peer:
        peer.write(raw(SETTINGS, b"\0\x63\0\0\0\1" * 4))
        assert await peer.alive()
        peer.write(raw(SETTINGS, b"\0\x63\0\0\0\1" * 5))
        assert (await peer.goodbye()).error_code == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("fast", [True, False])
async def test_a_header_block_of_table_size_updates_is_cut_off(fast: bool) -> None:
    """One byte each, and they may stand before the fields of a call that is otherwise fine."""
    async with serving(fast_path=fast) as server, abused(server) as peer:
        peer.decoder.header_table_size = 4096
        call = peer.headers().data
        peer.write(raw(HEADERS, b"\x20" * 32 + call, stream=1, flags=5))
        assert (await peer.status(1))[0] == Status.INVALID_ARGUMENT.value
        peer.write(raw(HEADERS, b"\x20" * 33 + call, stream=3, flags=5))
        assert (await peer.goodbye()).error_code == ErrorCodes.COMPRESSION_ERROR


async def test_a_client_that_shrinks_its_table_and_grows_it_again_still_understands() -> None:
    async with serving() as server:
        peer = await server.peer()
        for size in (0, 4096, 100, 4096):
            peer.write(SettingsFrame(0, settings={SettingsFrame.HEADER_TABLE_SIZE: size}))
            await peer.alive()
            peer.decoder.max_allowed_table_size = size
            assert (await peer.status(peer.call()))[0] == 0


async def test_a_request_may_come_in_empty_one_byte_and_padded_frames() -> None:
    async with serving() as server:
        peer = await server.peer()
        frame = peer.headers()
        peer.write(frame, DataFrame(frame.stream_id))
        for byte in message(b"hello"):
            data = DataFrame(frame.stream_id, data=bytes([byte]), flags=["PADDED"], pad_length=7)
            peer.write(data, DataFrame(frame.stream_id))
        peer.write(DataFrame(frame.stream_id, flags=["END_STREAM"]))
        assert (await peer.until(DataFrame, frame.stream_id)).data == message(b"hello")
        assert (await peer.status(frame.stream_id))[0] == 0


async def test_unfinished_requests_of_one_connection_are_limited() -> None:
    async with serving(max_held_bytes=1 << 20) as server, abused(server) as peer:
        refused = None
        for _ in range(8):
            frame = peer.headers(path="/test.Test/Length")
            peer.write(frame)
            await peer.send_slowly(frame.stream_id, message(b"x" * (256 << 10), length=LARGEST), end=False)
            refused = frame.stream_id
            if not await peer.alive() or peer.resets(refused):
                break
        assert await peer.reset(refused) == ErrorCodes.ENHANCE_YOUR_CALM
        assert (await peer.status(peer.call()))[0] == 0
        (held,) = {one.connection.held_bytes for one in server.listener.connections} - {0}
        assert (1 << 19) < held <= (1 << 20)


async def test_answers_wait_for_a_window_and_arrive_whole() -> None:
    async with serving() as server:
        peer = await server.peer(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        stream = peer.call(b"100000", path="/test.Test/Many")
        await peer.alive()
        peer.write(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 200_000}))
        peer.write(WindowUpdateFrame(0, window_increment=100_000))
        assert (await peer.status(stream))[0] == 0
        said = b"".join(one.data for one in peer.frames if isinstance(one, DataFrame))
        assert said == message(b"x" * 100_000)


async def test_an_unread_answer_is_given_up_without_an_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(stall_seconds=0.01) as server:
        peer = await server.peer(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        assert await peer.reset(peer.call(b"1000", path="/test.Test/Many")) == ErrorCodes.ENHANCE_YOUR_CALM
        assert await peer.alive()
        await server.until(lambda: not server.calls.open and not server.streams)
        assert server.calls.counts == {("/test.Test/Many", "CANCELLED"): 1}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_unread_answers_of_one_connection_are_limited() -> None:
    async with serving(max_unsent_bytes=1 << 20) as server:
        peer = await server.peer(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        streams = [peer.call(str(400 << 10).encode(), path="/test.Test/Many") for _ in range(4)]
        assert await peer.reset(streams[2]) == ErrorCodes.ENHANCE_YOUR_CALM
        assert await peer.reset(streams[3]) == ErrorCodes.ENHANCE_YOUR_CALM
        (connection,) = server.listener.connections
        assert connection.connection.unsent_bytes == 2 * ((400 << 10) + 5)


async def test_a_client_that_reads_nothing_holds_little_and_is_dropped() -> None:
    clock = Clock()
    async with serving(clock) as server, abused(server) as peer:
        wide = {SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1}
        peer.writer.transport.pause_reading()
        peer.write(SettingsFrame(0, settings=wide), WindowUpdateFrame(0, window_increment=2**30))
        for _ in range(64):
            peer.call(str(1 << 20).encode(), path="/test.Test/Many")
        paused = await server.connection_where(lambda one: one._paused_at is not None)
        assert paused.connection.transport.get_write_buffer_size() < 1 << 18
        assert paused.connection.unsent_bytes <= paused._limits.max_unsent_bytes
        clock.now += 61
        paused.check(clock.now)
        await server.until(lambda: paused not in server.listener.connections)
        assert not server.service.holding


async def test_a_connection_past_the_limit_receives_goaway_with_the_reason() -> None:
    async with serving(max_connections=2) as server:
        for _ in range(2):
            assert await (await server.peer()).alive()
        said = await (await server.peer()).goodbye()
        assert (said.error_code, said.additional_data) == (
            ErrorCodes.ENHANCE_YOUR_CALM,
            b"too many connections",
        )


async def test_a_client_that_is_still_sending_reads_why_it_was_ended() -> None:
    """Closing at once would make our kernel answer with a reset, and its kernel drop the GOAWAY."""
    async with serving() as server:
        peer = await server.peer()
        assert await peer.alive()
        (connection,) = server.listener.connections
        peer.writer.transport.pause_reading()
        peer.write(raw(0, length=16_385, stream=1))
        await server.until(lambda: connection._ended)
        for _ in range(3):
            peer.write(b"x" * 1000)
            await asyncio.sleep(0)
        peer.writer.transport.resume_reading()
        assert (await peer.goodbye()).error_code == ErrorCodes.FRAME_SIZE_ERROR
