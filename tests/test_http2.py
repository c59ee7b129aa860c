"""A connection's bytes cost only the connection, and at most what its limits say."""

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpclib.client
import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from h2.errors import ErrorCodes
from http2_peer import Peer, message, raw
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

from routing.calls import Calls
from routing.http2 import Http2Limits, Listener
from routing.http2.protocol import Protocol
from routing.http2.streams import CallStream
from routing.sockets import listen

LARGEST = 4 << 20


class Raw(CodecBase):
    """Messages that are their bytes."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


class Service:
    """What the tests call: Echo answers, Hold waits for `release`, Watch sends until it is told to stop."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.holding = 0
        self.cancelled = 0

    async def echo(self, message: bytes) -> bytes:
        return message

    async def length(self, message: bytes) -> bytes:
        return str(len(message)).encode()

    async def many(self, message: bytes) -> bytes:
        return b"x" * int(message)

    async def hold(self, message: bytes) -> bytes:
        self.holding += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.holding -= 1
        return message

    async def watch(self, message: bytes) -> AsyncIterator[bytes]:
        yield message
        await self.release.wait()

    async def talk(self, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for one in messages:
            yield one

    def __mapping__(self) -> dict[str, Handler]:
        def row(name: str, cardinality: Cardinality) -> tuple[str, Handler]:
            return f"/test.Test/{name}", Handler(None, cardinality, bytes, bytes)  # type: ignore[arg-type]

        return dict(
            [
                *(row(name, Cardinality.UNARY_UNARY) for name in ("Echo", "Length", "Many", "Hold")),
                row("Watch", Cardinality.UNARY_STREAM),
                row("Talk", Cardinality.STREAM_STREAM),
            ]
        )


class Clock:
    """A monotonic clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A listener on a loopback port, its service, and a way to more of them."""

    def __init__(self, limits: Http2Limits, clock: Callable[[], float] | None = None) -> None:
        self.service = Service()
        self.calls = Calls(Raw())
        more: dict[str, Any] = {"clock": clock} if clock else {}
        self.listener = Listener([self.calls.wrap(self.service)], Raw(), limits, **more)
        self.port = 0
        self._peers = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Server":
        listening = listen("127.0.0.1", 0)
        self.port = listening[0].getsockname()[1]
        await self.listener.start(listening)
        return self

    async def __aexit__(self, *error: object) -> None:
        closing = asyncio.create_task(self.listener.close())
        await self._peers.aclose()
        await closing

    async def peer(self, **how: Any) -> Peer:
        return await self._peers.enter_async_context(await Peer.connect(self.port, **how))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Lets the server work until this holds."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def connection_where(self, condition: Callable[[Protocol], bool]) -> Protocol:
        """The first connection of which this holds, once it does."""
        await self.until(lambda: any(map(condition, self.listener.connections)))
        return next(filter(condition, self.listener.connections))

    @property
    def streams(self) -> int:
        return sum(len(connection.processor.streams) for connection in self.listener.connections)


@contextlib.asynccontextmanager
async def serving(clock: Callable[[], float] | None = None, **limits: Any) -> AsyncIterator[Server]:
    async with Server(Http2Limits(**limits), clock) as server:
        yield server


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Any:
    """Nothing that a client does is worth a warning, least of all a traceback."""
    caplog.set_level(logging.INFO)
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


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


# What is too much. A bystander on a connection of its own asks before, and is answered
# after; the abuser reads a GOAWAY that says why.


@contextlib.asynccontextmanager
async def abused(server: Server) -> AsyncIterator[Peer]:
    """A peer to abuse with; in the end a bystander's call, sent meanwhile, is answered."""
    bystander = await server.peer()
    assert (await bystander.status(bystander.call()))[0] == 0
    yield await server.peer()
    assert (await bystander.status(bystander.call()))[0] == 0


def rapid_reset(peer: Peer) -> list[Any]:
    frame = peer.headers(path="/test.Test/Hold")
    return [frame, RstStreamFrame(frame.stream_id, error_code=ErrorCodes.CANCEL)]


def provoked_reset(peer: Peer) -> list[Any]:
    """Requests that are no requests: the server is to do the resetting."""
    return [peer.headers(drop=":path")]


FLOODS: dict[str, Callable[[Peer], list[Any]]] = {
    "rapid reset": rapid_reset,
    "resets provoked from the server": provoked_reset,
    "streams past the limit": lambda peer: [peer.headers(path="/test.Test/Hold")],
    "PING": lambda peer: [PingFrame(0, opaque_data=b"12345678")],
    "PING answers": lambda peer: [PingFrame(0, opaque_data=b"12345678", flags=["ACK"])],
    "SETTINGS": lambda peer: [SettingsFrame(0, settings={4: 65_535})],
    "empty SETTINGS": lambda peer: [SettingsFrame(0)],
    "PRIORITY": lambda peer: [PriorityFrame(1, depends_on=3)],
    "WINDOW_UPDATE": lambda peer: [WindowUpdateFrame(0, window_increment=1)],
    "unknown frames": lambda peer: [raw(0xBE, b"?")],
    "ALTSVC": lambda peer: [raw(0x0A, b"\x00\x00", stream=1)],
    "GOAWAY": lambda peer: [GoAwayFrame(0)],
    "empty DATA": lambda peer: [DataFrame(1, data=b"")],
    "one-byte DATA": lambda peer: [DataFrame(1, data=b"\x00")],
    "padding": lambda peer: [DataFrame(1, data=b"", pad_length=200, flags=["PADDED"])],
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_ends_its_own_connection_and_costs_nobody_else(name: str) -> None:
    async with serving(burst=300, max_streams=16, linger_seconds=0.01) as server, abused(server) as peer:
        stream = peer.headers(path="/test.Test/Talk")
        peer.write(stream)  # something for DATA to belong to, that does not end by itself
        for _ in range(20):
            peer.write(*(part for _ in range(100) for part in FLOODS[name](peer)))
        said = await peer.goodbye()
        assert said.error_code == ErrorCodes.ENHANCE_YOUR_CALM, said
        await server.until(lambda: len(server.listener.connections) == 1 and server.service.holding == 0)


async def test_a_client_that_gets_answers_may_go_on_for_as_long_as_it_likes() -> None:
    """Each call here comes with four frames that are no calls; its answer earns three back."""
    async with serving(burst=20, refill_per_s=1e-9) as server:
        peer = await server.peer()
        for _ in range(200):
            stream = peer.call()
            peer.write(WindowUpdateFrame(0, window_increment=10), PingFrame(0, opaque_data=b"12345678"))
            assert (await peer.status(stream))[0] == 0


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


async def test_streams_that_stay_leave_room_for_calls_that_end() -> None:
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


async def test_a_header_list_past_the_limit_is_cut_off() -> None:
    """An HPACK bomb: one long field in the table, named a thousand times."""
    async with serving() as server, abused(server) as peer:
        fields = [(":method", "POST"), *[("bomb", "x" * 3000)] * 1000]
        peer.write(peer.fields(fields))
        assert (await peer.goodbye()).error_code == ErrorCodes.ENHANCE_YOUR_CALM


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


async def test_parts_of_large_requests_are_held_up_to_a_limit() -> None:
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


async def test_an_answer_that_nobody_takes_is_given_up() -> None:
    async with serving(stall_seconds=0.01) as server:
        peer = await server.peer(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        assert await peer.reset(peer.call(b"1000", path="/test.Test/Many")) == ErrorCodes.ENHANCE_YOUR_CALM
        assert await peer.alive()
        await server.until(lambda: not server.calls.open and not server.streams)


async def test_answers_that_nobody_takes_are_kept_up_to_a_limit() -> None:
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
        assert paused._transport.get_write_buffer_size() < 1 << 18
        assert paused.connection.unsent_bytes <= paused._limits.max_unsent_bytes
        clock.now += 61
        paused.check(clock.now)
        await server.until(lambda: paused not in server.listener.connections)
        assert not server.service.holding


async def test_connections_past_the_limit_are_told_so() -> None:
    async with serving(max_connections=2) as server:
        for _ in range(2):
            assert await (await server.peer()).alive()
        said = await (await server.peer()).goodbye()
        assert (said.error_code, said.additional_data) == (
            ErrorCodes.ENHANCE_YOUR_CALM,
            b"too many connections",
        )
