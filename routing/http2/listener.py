"""The connections of one server: taken, watched over, asked to leave, ended."""

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from grpclib import const
from grpclib.encoding.base import CodecBase
from h2.errors import ErrorCodes

from routing.http2.budget import Http2Limits
from routing.http2.connection import ServerProtocol
from routing.http2.shared import SharedLimits
from routing.rpc.calls import Servable
from routing.rpc.reply import FastPathHandler, FastPathServable

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
"""How often connections are looked at: the error of every time limit. A thousand
connections take about 1 ms."""

BACKLOG = 1_024
"""Connections that the kernel may hold until we take them: a fleet that reconnects at once."""


ACCEPTED_AT_ONCE = 16
"""Connections taken in one turn of the loop. Also how often asyncio tries in vain, and
complains, before it notices that there is no descriptor left: with the backlog's 1,024,
this is what would fill the log."""

STARVED_SECONDS = 5.0
"""Without such a complaint for so long, it is over; asyncio tries again each second."""

_STARVED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """Serves gRPC over HTTP/2.

    Takes grpclib's place of `Server`, which has no say in its protocol, leaves
    connections open when it closes, and on Python 3.12 then waits for the clients.
    State: the open connections, bounded by `max_connections`.
    """

    def __init__(
        self,
        servables: Collection[Servable],
        codec: CodecBase,
        limits: Http2Limits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mapping: Mapping[str, const.Handler] = {
            path: handler for servable in servables for path, handler in servable.__mapping__().items()
        }
        self.fast_path_handlers: Mapping[str, FastPathHandler] = {
            path: prompt
            for servable in servables
            if isinstance(servable, FastPathServable)
            for path, prompt in servable.fast_path_handlers.items()
        }
        self.codec = codec
        self.limits = limits or Http2Limits()
        self.shared = SharedLimits(self.limits)
        self.connections: set[ServerProtocol] = set()
        self._clock = clock
        self._draining = False
        self._servers: list[asyncio.Server] = []
        self._watch: asyncio.Task[None] | None = None
        # When a connection could last not be taken, while that goes on.
        self._starved_at: float | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def __repr__(self) -> str:
        return f"<Listener connections={len(self.connections)}{' draining' * self._draining}>"

    async def start(self, listening: Iterable[socket.socket], context: ssl.SSLContext | None = None) -> None:
        """Takes connections on these bound sockets, with TLS if there is a context."""
        for one in listening:
            server = await asyncio.get_running_loop().create_server(
                lambda: ServerProtocol(self, self._clock),
                sock=one,
                ssl=context,
                ssl_handshake_timeout=self.limits.greeting_seconds if context else None,
                backlog=ACCEPTED_AT_ONCE,
            )
            one.listen(BACKLOG)
            self._servers.append(server)
        self._watch = asyncio.create_task(self._watch_over(), name="connections")

    def drain(self) -> None:
        """Takes no more connections, and asks the clients of those that are open to call elsewhere."""
        if self._draining:
            return
        self._draining = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.go_away()

    async def close(self) -> None:
        """Ends every connection; returns when all are gone, and their calls with them."""
        self.drain()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        calls = [task for connection in self.connections for task in connection.handler.tasks.values()]
        for connection in list(self.connections):
            connection.end(ErrorCodes.NO_ERROR, "closing")
        if calls:
            await asyncio.wait(calls)
        await self._empty.wait()

    def note_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The exception handler of the loop, to which asyncio reports that accepting failed: logs
        once that connections must wait, not for each try."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _STARVED:
            loop.default_exception_handler(context)
            return
        if self._starved_at is None:
            why, connections = error.strerror, len(self.connections)
            log.warning("connections must wait reason=%s connections=%d", why, connections)
        self._starved_at = self._clock()

    def joined(self, connection: ServerProtocol) -> bool:
        """A connection was made; whether there is room for it."""
        room = len(self.connections) < self.limits.max_connections
        self.connections.add(connection)
        self._empty.clear()
        if room and self._draining:
            connection.go_away()
        return room

    def left(self, connection: ServerProtocol) -> None:
        """A connection is lost."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    async def _watch_over(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                now = self._clock()
                if self._starved_at is not None and now - self._starved_at > STARVED_SECONDS:
                    self._starved_at = None
                    log.info("connections are taken again connections=%d", len(self.connections))
                for connection in list(self.connections):
                    connection.check(now)
            except Exception:
                # Without this, an error about one connection would end the task unseen, and leave all
                # other connections without their time limits.
                log.exception("checking connections failed")
