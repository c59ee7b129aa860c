"""What the tests of the edges share: servers in memory and on a socket, and bare calls."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from grpclib.client import Channel
from grpclib.exceptions import GRPCError
from grpclib.metadata import decode_grpc_message
from grpclib.protocol import H2Protocol
from grpclib.server import Server
from grpclib.testing import ChannelFor
from grpclib.utils import Wrapper

from routing import wire
from routing.rpc.calls import Calls, Servable

ROUTING = "/ipfs_kit_py.routing.RoutingService"

HEADERS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc+proto"),
)


def framed(data: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A message as it stands in DATA frames."""
    return struct.pack(">BI", compressed, len(data) if length is None else length) + data


class BareCall:
    """A call made of bytes: it sends what no client library would."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def start(self, path: str, *headers: tuple[str, str]) -> "BareCall":
        protocol = await self._channel.__connect__()
        self._http = protocol.processor.connection.create_stream(wrapper=Wrapper())
        await self._http.send_request([*HEADERS, (":path", path), *headers], _processor=protocol.processor)
        return self

    async def send(self, data: bytes, *, end: bool = False) -> "BareCall":
        await self._http.send_data(data, end_stream=end)
        return self

    async def end(self) -> "BareCall":
        await self._http.end()
        return self

    async def leave(self) -> None:
        """Resets the stream, as a client does that cancels."""
        await self._http.reset()

    @property
    def reset(self) -> bool:
        """Whether the stream is closed, though this side has not ended it."""
        return not self._http.closable

    async def headers(self) -> dict[str, str]:
        return dict(await self._http.recv_headers())

    async def message(self, kind: Any, *, parse: str = "parse") -> Any:
        """One message, read by that function of its class."""
        _, length = struct.unpack(">BI", await self._http.recv_data(5))
        return getattr(kind, parse)(await self._http.recv_data(length))

    async def status(self) -> tuple[int, str]:
        """The status of the whole call, and its message."""
        headers = await self.headers()
        if "grpc-status" not in headers:
            headers = dict(await self._http.recv_trailers())
        return int(headers["grpc-status"]), decode_grpc_message(headers.get("grpc-message", ""))


@asynccontextmanager
async def in_memory(calls: Calls, *servables: Servable) -> AsyncIterator[Channel]:
    """A channel to these servables, each call surrounded, without a socket."""
    async with ChannelFor([calls.wrap(servable) for servable in servables], codec=wire.Codec()) as channel:
        yield channel
        # grpclib ends what is open without waiting for it; wait, so that a test sees its end.
    await calls.wait_idle()


class SocketServer(Server):
    """grpclib's server, which forgets its connections; this one can close them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._protocols: list[H2Protocol] = []

    def _protocol_factory(self) -> H2Protocol:
        self._protocols.append(super()._protocol_factory())
        return self._protocols[-1]

    def close(self) -> None:
        super().close()
        for protocol in self._protocols:
            protocol.connection.close()


@asynccontextmanager
async def on_a_socket(calls: Calls, *servables: Servable) -> AsyncIterator[str]:
    """host:port of a server with these servables, for clients that need a real one."""
    server = SocketServer([calls.wrap(servable) for servable in servables], codec=wire.Codec())
    await server.start("127.0.0.1", 0)
    host, port = server._server.sockets[0].getsockname()
    async with server:
        yield f"{host}:{port}"


class ManualTime:
    """A monotonic clock and a sleep that go on only when told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self.now + seconds, woken))
        try:
            await woken.wait()
        finally:
            self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[1] is not woken]

    @property
    def sleeping(self) -> int:
        return len(self._sleepers)

    async def asleep(self, count: int) -> None:
        """Returns when this many sleep."""
        await until(lambda: self.sleeping == count)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for at, woken in self._sleepers:
            if at <= self.now + 1e-9:
                woken.set()


async def until(condition: Callable[[], bool]) -> None:
    """Lets the loop turn until the condition holds; a test that waits in vain fails."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


async def status_of(call: Awaitable[Any]) -> tuple[str, str]:
    """Name and message of the status that the call ends with."""
    try:
        await call
    except GRPCError as error:
        return error.status.name, error.message or ""
    return "OK", ""
