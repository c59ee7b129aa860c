"""A listener on a loopback port, with a service that answers, waits and streams."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase

from routing.http2 import Http2Limits, Listener
from routing.http2.connection import ServerProtocol
from routing.rpc.calls import Calls
from routing.server.sockets import listen
from support.http2_peer import Peer


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
        self.listener = Listener(
            [self.calls.wrap(self.service, on_fast_path=("Echo", "Length", "Many"))], Raw(), limits, **more
        )
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

    async def connection_where(self, condition: Callable[[ServerProtocol], bool]) -> ServerProtocol:
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


@contextlib.asynccontextmanager
async def abused(server: Server) -> AsyncIterator[Peer]:
    """A peer to abuse with; in the end a bystander's call, sent meanwhile, is answered."""
    bystander = await server.peer()
    assert (await bystander.status(bystander.call()))[0] == 0
    yield await server.peer()
    assert (await bystander.status(bystander.call()))[0] == 0
