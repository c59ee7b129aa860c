"""What clients cannot have by opening more connections: turns, room, streams that stay."""

import asyncio
import logging
from collections.abc import Iterator
from itertools import pairwise

import pytest
from grpclib.const import Status
from h2.errors import ErrorCodes
from hyperframe.frame import DataFrame, SettingsFrame

from routing.http2 import Http2Limits
from routing.http2.frame_filter import HEADERS, PING
from routing.http2.shared import SharedLimits
from support.http2_peer import Peer, message, raw
from support.http2_server import abused, serving

pytestmark = pytest.mark.usefixtures("quiet")

PART = 100_000


async def half_a_request(peer: Peer, path: str = "/test.Test/Length") -> int:
    """Sends a part of a large request, and no more of it."""
    frame = peer.headers(path=path)
    peer.write(frame)
    await peer.send_slowly(frame.stream_id, message(b"x" * PART, length=4 << 20), end=False)
    await peer.alive()
    return frame.stream_id


async def test_unfinished_requests_of_all_connections_are_limited_and_the_oldest_is_dropped() -> None:
    async with serving(max_held_in_all_bytes=4 * PART) as server, abused(server):
        peers = [await server.peer() for _ in range(6)]
        streams = [await half_a_request(peer) for peer in peers]
        for peer, stream in list(zip(peers, streams, strict=True))[:3]:
            assert await peer.reset(stream) == ErrorCodes.ENHANCE_YOUR_CALM
        # The prefix is read, and the header fields count, too.
        assert 3 * PART < server.listener.shared.held_bytes < 3 * (PART + 1_000)
        rest = message(b"x" * (1 << 20))
        last = peers[0].headers(path="/test.Test/Length")
        peers[0].write(last)
        await peers[0].send_slowly(last.stream_id, rest)
        assert (await peers[0].until(DataFrame, last.stream_id)).data == message(b"1048576")


async def test_what_was_held_is_forgotten_however_its_connection_ends() -> None:
    async with serving() as server:
        left, wrong = await server.peer(), await server.peer()
        for peer in (left, wrong):
            await half_a_request(peer)
        assert 2 * PART < server.listener.shared.held_bytes < 2 * (PART + 1_000)
        left.writer.transport.abort()
        wrong.write(raw(PING, b"of a wrong length"))
        await server.until(lambda: server.listener.shared.held_bytes == 0)


async def test_header_fields_of_requests_that_do_not_end_are_limited_and_the_oldest_is_dropped() -> None:
    fields = {f"key-{n}": "x" * 200 for n in range(60)}
    async with serving(max_held_in_all_bytes=4 * PART) as server, abused(server):
        peers = [await server.peer() for _ in range(4)]
        for peer in peers:
            peer.write(*[peer.headers(**fields) for _ in range(20)])
            await peer.alive()
        assert await peers[0].reset(1) == ErrorCodes.ENHANCE_YOUR_CALM
        assert 3 * PART < server.listener.shared.held_bytes <= 4 * PART
        last = 39  # the newest of the newest connection is still open, and is answered once it ends
        peers[3].write(DataFrame(last, data=message(b"hello"), flags=["END_STREAM"]))
        assert (await peers[3].status(last))[0] == 0
        for peer in peers:
            peer.writer.transport.abort()
        await server.until(lambda: server.listener.shared.held_bytes == 0)


async def test_the_only_request_is_never_the_one_to_go() -> None:
    async with serving(max_held_in_all_bytes=1) as server:
        peer = await server.peer()
        frame = peer.headers(path="/test.Test/Length")
        peer.write(frame)
        await peer.send_slowly(frame.stream_id, message(b"x" * (1 << 20)))
        assert (await peer.status(frame.stream_id))[0] == 0


async def test_unread_answers_of_all_connections_are_limited_and_the_oldest_is_dropped() -> None:
    async with serving(max_unsent_in_all_bytes=2 * PART) as server, abused(server):
        closed = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
        peers = [await server.peer(settings=closed) for _ in range(3)]
        streams = []
        for peer in peers:
            streams.append(peer.call(str(PART - 5).encode(), path="/test.Test/Many"))
            await peer.alive()
        assert await peers[0].reset(streams[0]) == ErrorCodes.ENHANCE_YOUR_CALM
        assert server.listener.shared.unsent_bytes == 2 * PART
        peers[1].write(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: PART}))
        peers[1].write(raw(8, (1 << 20).to_bytes(4)))
        assert (await peers[1].status(streams[1]))[0] == 0
        peers[2].writer.transport.abort()
        await server.until(lambda: server.listener.shared.unsent_bytes == 0)


async def test_open_server_streams_are_limited_over_all_connections() -> None:
    async with serving(max_watches_in_all=2) as server:
        peers = [await server.peer() for _ in range(3)]
        for peer in peers[:2]:
            await peer.until(DataFrame, peer.call(path="/test.Test/Watch"))
        refused = peers[2].call(path="/test.Test/Watch")
        assert await peers[2].status(refused) == (
            Status.RESOURCE_EXHAUSTED.value,
            "too many streams are open on this server; call another one",
        )
        assert (await peers[2].status(peers[2].call()))[0] == 0
        peers[0].writer.transport.abort()
        await server.until(lambda: server.listener.shared.watches == 1)
        again = peers[2].call(b"again", path="/test.Test/Watch")
        assert (await peers[2].until(DataFrame, again)).data == message(b"again")


def ticking() -> Iterator[float]:
    """A clock on which everything takes a second."""
    now = 0.0
    while True:
        now += 1.0
        yield now


async def test_busy_connections_share_one_queue_and_one_of_them_runs_in_a_turn() -> None:
    """Header blocks of 450 fields take milliseconds each, and cost no frame that is paid for."""
    async with serving(
        ticking().__next__, turn_seconds=0.5, idle_seconds=1e9, keepalive_seconds=1e9
    ) as server:
        peers = [await server.peer() for _ in range(5)]
        long = b"\x00\x01a\x01b" * 450
        for peer in peers:
            block = peer.headers().data
            peer.write(*(raw(HEADERS, block + long, stream=n, flags=5) for n in range(1, 41, 2)))
        turns: list[int] = []
        shared = server.listener.shared
        await server.until(lambda: len(shared._queue) == 5)
        while shared._queue:
            turns.append(sum(one._frame_filter.highest_stream for one in server.listener.connections))
            await asyncio.sleep(0)
        steps = [after - before for before, after in pairwise(turns)]
        assert max(steps) <= 6, "more than one of them went on in a turn"
        for peer in peers:
            for stream in range(1, 41, 2):
                assert (await peer.status(stream))[0] == Status.INVALID_ARGUMENT.value


async def test_a_scheduled_callback_that_raises_does_not_stop_the_queue() -> None:
    shared, second_ran = SharedLimits(Http2Limits()), asyncio.Event()
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    shared.schedule(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    shared.schedule(second_ran.set)
    await asyncio.wait_for(second_ran.wait(), 5)
    assert len(faults) == 1


async def test_a_client_that_leaves_before_its_refusal_causes_no_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server:
        peer = await server.peer()
        peer.write(peer.headers())
        await server.until(lambda: server.calls.open == 1)
        connection = await server.connection_where(lambda one: bool(one.handler.tasks))
        (stream,) = connection.handler.tasks
        stream.__ended__()  # without a message, which is refused in the next turn of the loop
        connection.abort()
        await server.until(lambda: not server.calls.open)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_it_says_what_it_holds() -> None:
    assert repr(SharedLimits(Http2Limits())) == "<SharedLimits held=0 unsent=0 watches=0 queue=0>"
