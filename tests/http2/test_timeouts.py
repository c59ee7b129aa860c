"""How long a client may keep us waiting.

Time is a number here; `check` is called by hand, as the listener calls it once a second.
"""

from collections.abc import Callable
from typing import Any

import pytest
from grpclib.const import Status
from h2.errors import ErrorCodes
from hyperframe.frame import (
    DataFrame,
    PingFrame,
)

from routing.http2.frame_filter import HEADERS, PING
from support.http2_peer import Peer, message, raw
from support.http2_server import Clock, serving

pytestmark = pytest.mark.usefixtures("quiet")


async def test_a_connection_without_settings_is_ended() -> None:
    clock = Clock()
    async with serving(clock) as server:
        peer = await server.peer(greet=False)
        connection = await server.connection_where(lambda one: True)
        clock.now += 20
        connection.check(clock.now)
        assert server.listener.connections
        clock.now += 1
        connection.check(clock.now)
        assert (await peer.goodbye()).error_code == ErrorCodes.SETTINGS_TIMEOUT


@pytest.mark.parametrize(
    "unfinished",
    [
        pytest.param(lambda p: [raw(PING, b"1234", length=8)], id="a frame"),
        pytest.param(lambda p: [b"\x00\x00"], id="a frame header"),
        pytest.param(lambda p: [raw(HEADERS, stream=1)], id="a header block"),
    ],
)
async def test_a_frame_or_header_block_that_does_not_end_is_ended(
    unfinished: Callable[[Peer], list[Any]],
) -> None:
    clock = Clock()
    async with serving(clock) as server:
        peer = await server.peer()
        await peer.alive()
        peer.write(*unfinished(peer))
        connection = await server.connection_where(lambda one: one._frame_filter.mid_frame)
        for seconds in (0, 20, 1):
            assert not connection._ended
            clock.now += seconds
            connection.check(clock.now)
        assert (await peer.goodbye()).error_code == ErrorCodes.ENHANCE_YOUR_CALM


async def test_a_client_whose_frames_go_on_may_always_be_in_the_middle_of_one() -> None:
    clock = Clock()
    async with serving(clock) as server:
        peer = await server.peer()
        await peer.alive()
        connection = await server.connection_where(lambda one: True)
        ping = raw(PING, b"12345678")
        peer.write(ping[:12])
        for _ in range(5):
            seen = connection._frame_filter.frames
            peer.write(ping[12:], ping, ping[:12])
            await server.until(lambda seen=seen: connection._frame_filter.frames >= seen + 2)
            assert connection._frame_filter.mid_frame
            clock.now += 15
            connection.check(clock.now)
        assert not connection._ended


async def test_a_request_that_does_not_end_is_answered_as_cut_short() -> None:
    clock = Clock()
    async with serving(clock) as server:
        peer = await server.peer()
        nothing, half = peer.headers(), peer.headers()
        peer.write(nothing, half, DataFrame(half.stream_id, data=message(b"half", length=400)))
        talk = peer.headers(path="/test.Test/Talk")
        peer.write(talk)
        await peer.alive()
        connection = await server.connection_where(lambda one: True)
        clock.now += 61
        connection.check(clock.now)
        assert (await peer.status(nothing.stream_id))[0] == Status.INVALID_ARGUMENT.value
        assert (await peer.status(half.stream_id))[0] == Status.INVALID_ARGUMENT.value
        assert (await peer.status(peer.call()))[0] == 0
        assert server.streams == 1  # who streams requests may take a pause


async def test_an_idle_connection_is_ended_without_an_error_code() -> None:
    clock = Clock()
    async with serving(clock) as server:
        peer = await server.peer()
        stream = peer.call(path="/test.Test/Hold")
        connection = await server.connection_where(lambda one: bool(one.handler.tasks))
        clock.now += 901
        connection.check(clock.now)
        server.service.release.set()
        assert (await peer.status(stream))[0] == 0
        for seconds in (899, 2):
            assert not connection._ended
            await peer.alive()  # which is no call
            clock.now += seconds
            connection.check(clock.now)
        assert (await peer.goodbye()).error_code == ErrorCodes.NO_ERROR


async def test_a_silent_client_with_an_open_call_is_pinged() -> None:
    clock = Clock()
    async with serving(clock) as server:
        peer = await server.peer()
        peer.call(path="/test.Test/Hold")
        connection = await server.connection_where(lambda one: bool(one.handler.tasks))
        connection.check(clock.now)
        clock.now += 121
        connection.check(clock.now)
        asked = await peer.until(PingFrame)
        peer.write(PingFrame(0, opaque_data=asked.opaque_data, flags=["ACK"]))
        await server.until(lambda: connection._heard)
        for seconds in (19, 121):
            clock.now += seconds
            connection.check(clock.now)
        assert server.listener.connections
        await peer.until(PingFrame)
        clock.now += 21
        connection.check(clock.now)
        await server.until(lambda: not server.listener.connections and not server.calls.open)
        assert server.service.cancelled == 1


async def test_the_listener_looks_after_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routing.http2.listener.CHECK_SECONDS", 0.001)
    clock = Clock()
    async with serving(clock) as server:
        peer = await server.peer(greet=False)
        await server.until(lambda: bool(server.listener.connections))
        clock.now += 21
        assert (await peer.goodbye()).error_code == ErrorCodes.SETTINGS_TIMEOUT
