"""A connection from its first call to its last, and what it leaves: nothing."""

import asyncio
import gc
import socket
import time
from typing import ClassVar

import grpclib.client
import pytest
from grpclib.const import Status
from h2.errors import ErrorCodes
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    RstStreamFrame,
)

from routing.http2.connection import ServerProtocol
from routing.http2.listener import BACKLOG, Listener
from routing.http2.streams import CallStream
from support.http2_peer import Peer, message
from support.http2_server import Raw, serving

LARGEST = 4 << 20


pytestmark = pytest.mark.usefixtures("quiet")


async def test_a_call_is_answered() -> None:
    async with serving() as server:
        peer = await server.peer()
        stream = peer.call(b"hello")
        assert (await peer.until(DataFrame, stream)).data == message(b"hello")
        assert await peer.status(stream) == (0, "")


async def test_an_answer_does_not_wait_for_the_clients_kernel() -> None:
    async with serving() as server:
        await (await server.peer()).alive()
        (connection,) = server.listener.connections
        ours = connection.connection._transport.get_extra_info("socket")
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_grpclibs_own_client_is_served() -> None:
    async with serving() as server:
        channel = grpclib.client.Channel("127.0.0.1", server.port, codec=Raw())
        method = grpclib.client.UnaryUnaryMethod(channel, "/test.Test/Echo", bytes, bytes)
        assert await method(b"hello") == b"hello"
        channel.close()


async def test_the_largest_request_is_read_and_one_byte_more_is_refused_alone() -> None:
    async with serving() as server:
        peer = await server.peer()
        held = peer.call(path="/test.Test/Hold")
        fits = peer.headers(path="/test.Test/Length")
        over = peer.headers(path="/test.Test/Length")
        for frame, size in ((fits, LARGEST), (over, LARGEST + 1)):
            peer.write(frame)
            await peer.send_slowly(frame.stream_id, message(b"x" * size))
        assert (await peer.until(DataFrame, fits.stream_id)).data == message(b"4194304")
        assert (await peer.status(fits.stream_id))[0] == Status.OK.value
        assert (await peer.status(over.stream_id))[0] == Status.RESOURCE_EXHAUSTED.value
        server.service.release.set()
        assert await peer.status(held) == (0, "")


async def test_what_a_refused_request_leaves_unread_is_acknowledged_to_its_connection() -> None:
    """Otherwise sixteen of them would leave no window for anybody."""
    async with serving() as server:
        peer = await server.peer()
        for _ in range(16):
            frame = peer.headers(path="/test.Test/Length")
            peer.write(frame)
            await peer.send_slowly(frame.stream_id, message(b"x" * (1 << 20), length=LARGEST + 1))
            assert (await peer.status(frame.stream_id))[0] == Status.RESOURCE_EXHAUSTED.value
        stream = peer.call(b"still here")
        assert await peer.status(stream) == (0, "")


async def test_a_client_that_leaves_takes_its_calls_with_it() -> None:
    async with serving() as server:
        peer = await server.peer()
        peer.call(path="/test.Test/Hold")
        peer.call(path="/test.Test/Watch")
        await server.until(lambda: server.service.holding == 1)
        peer.writer.transport.abort()
        await server.until(lambda: not server.listener.connections and not server.calls.open)
        assert server.service.cancelled == 1


async def test_a_reset_call_leaves_nothing_behind() -> None:
    async with serving() as server:
        peer = await server.peer()
        for _ in range(100):
            stream = peer.call(path="/test.Test/Hold")
            peer.write(RstStreamFrame(stream, error_code=ErrorCodes.CANCEL))
        assert await peer.alive()
        await server.until(lambda: server.streams == 0)
        (connection,) = server.listener.connections
        assert not connection.handler.tasks
        assert server.service.holding == server.calls.open == 0


async def test_a_thousand_calls_leave_no_objects() -> None:
    async with serving() as server:
        peer = await server.peer()
        for _ in range(50):
            await peer.status(peer.call())
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(1000):
            await peer.status(peer.call())
            peer.frames.clear()
        gc.collect()
        # h2 remembers how the last streams ended, and Python keeps some free objects.
        assert len(gc.get_objects()) - before < 500
        assert sum(isinstance(one, CallStream) for one in gc.get_objects()) == 0


async def test_a_clients_goodbye_lets_its_calls_finish() -> None:
    async with serving() as server:
        peer = await server.peer()
        held = peer.call(path="/test.Test/Hold")
        peer.write(GoAwayFrame(0, last_stream_id=0, error_code=0))
        assert await peer.alive()
        server.service.release.set()
        assert await peer.status(held) == (0, "")
        assert (await peer.goodbye()).error_code == ErrorCodes.NO_ERROR


async def test_a_goodbye_without_calls_ends_the_connection() -> None:
    async with serving(linger_seconds=0.01) as server:
        peer = await server.peer()
        peer.write(GoAwayFrame(0, last_stream_id=0, error_code=0))
        assert (await peer.goodbye()).error_code == ErrorCodes.NO_ERROR
        await server.until(lambda: not server.listener.connections)


async def test_a_drain_lets_calls_finish_and_takes_no_new_connection() -> None:
    async with serving(linger_seconds=0.01) as server:
        peer = await server.peer()
        held = peer.call(path="/test.Test/Hold")
        await server.until(lambda: server.service.holding == 1)
        server.listener.drain()
        said = await peer.until(GoAwayFrame)
        assert (said.error_code, said.last_stream_id) == (ErrorCodes.NO_ERROR, 2**31 - 1)
        with pytest.raises(OSError):
            await Peer.connect(server.port)
        server.service.release.set()
        assert await peer.status(held) == (0, "")
        await server.listener.close()
        said = await peer.goodbye()
        assert (said.error_code, said.last_stream_id) == (ErrorCodes.NO_ERROR, held)


async def test_a_connection_that_was_on_its_way_when_the_drain_began_hears_of_it() -> None:
    """Over TLS, its handshake may end only now."""
    async with serving(linger_seconds=0.01) as server:
        server.listener.drain()
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: ServerProtocol(server.listener, time.monotonic), ours)
        peer = Peer(*await asyncio.open_connection(sock=theirs))
        assert (await peer.until(GoAwayFrame)).last_stream_id == 2**31 - 1
        await peer.__aexit__(None, None, None)


async def test_closing_ends_calls_that_do_not() -> None:
    async with serving(linger_seconds=0.01) as server:
        peer = await server.peer()
        peer.call(path="/test.Test/Hold")
        await server.until(lambda: server.service.holding == 1)
        await server.listener.close()
        assert (await peer.goodbye()).error_code == ErrorCodes.NO_ERROR
        assert server.service.cancelled == 1
        assert not server.listener.connections


async def test_a_peer_that_does_not_close_is_cut_off() -> None:
    async with serving(linger_seconds=0.01) as server:
        await server.peer()
        await server.until(lambda: len(server.listener.connections) == 1)
        await server.listener.close()
        assert not server.listener.connections


async def test_a_call_that_is_answered_before_its_request_ends_is_closed() -> None:
    """Otherwise h2 would keep the stream for as long as the connection lives."""
    async with serving() as server:
        peer = await server.peer()
        frame = peer.headers(**{"content-type": "text/html"})
        peer.write(frame)
        assert await peer.reset(frame.stream_id) == ErrorCodes.NO_ERROR
        (connection,) = server.listener.connections
        assert not [one for one in connection._session.streams.values() if one.open]


async def test_h2_forgets_streams_that_have_ended() -> None:
    async with serving() as server:
        peer = await server.peer()
        for _ in range(1100):
            await peer.status(peer.call())
            peer.frames.clear()
        (connection,) = server.listener.connections
        assert len(connection._session._closed_streams) <= 1024
        assert len(connection._session.streams) <= 2


async def test_a_fleet_that_comes_back_at_once_finds_room_to_wait() -> None:
    """asyncio takes the backlog also for how many it takes in one turn; the kernel's is another."""

    class Recording(socket.socket):
        asked: ClassVar[list[int]] = []

        def listen(self, backlog: int = 0) -> None:  # type: ignore[override]
            self.asked.append(backlog)
            super().listen(backlog)

    one = Recording(socket.AF_INET, socket.SOCK_STREAM)
    one.bind(("127.0.0.1", 0))
    one.setblocking(False)
    listener = Listener([], Raw())
    await listener.start([one])
    await listener.close()
    assert Recording.asked[-1] == BACKLOG
