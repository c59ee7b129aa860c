"""Servers on a real socket that can be lost, or never say a word."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpclib.protocol import H2Protocol
from grpclib.server import Server

from routing import wire
from support.scripted_server import Script


class Losing(Server):
    """A server that counts its connections, and can lose them."""

    def __init__(self, script: Script) -> None:
        super().__init__([script], codec=wire.Codec())
        self.protocols: list[H2Protocol] = []
        self.address = ""

    def _protocol_factory(self) -> H2Protocol:
        self.protocols.append(super()._protocol_factory())
        return self.protocols[-1]

    async def open(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        await self.start("127.0.0.1", port, ssl=context, reuse_address=True)
        host, port = self._server.sockets[0].getsockname()  # type: ignore[union-attr, attr-defined]
        self.address = f"{host}:{port}"

    async def lose(self) -> None:
        """Ends, and all connections with it."""
        self.close()
        for protocol in self.protocols:
            if hasattr(protocol, "connection"):  # a TLS handshake that failed leaves none
                protocol.connection.close()
        await self.wait_closed()


@asynccontextmanager
async def serving(
    script: Script, address: str = "", context: ssl.SSLContext | None = None
) -> AsyncIterator[Losing]:
    server = Losing(script)
    await server.open(int(address.rpartition(":")[2] or 0), context)
    try:
        yield server
    finally:
        await server.lose()


@asynccontextmanager
async def silence() -> AsyncIterator[tuple[str, list[asyncio.BaseTransport]]]:
    """The address of a peer that takes everything and never says a word, and who came."""
    came: list[asyncio.BaseTransport] = []

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            came.append(transport)

    server = await asyncio.get_running_loop().create_server(Silent, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}", came
    finally:
        server.close()
        for transport in came:
            transport.close()
        await server.wait_closed()
