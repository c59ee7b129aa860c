"""The steps around every call: drain, admission, size limit, errors as statuses, counts, log.

In this order: refuse the call if the server drains; admit the caller; check the request's size
before reading it; decode the message; run the servable's method; send the response. Any error
becomes one status. It wraps any generated servable, for grpclib's server and for its in-memory
channel.
"""

import asyncio
import inspect
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from grpclib.const import Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.server import Stream
from h2.exceptions import StreamClosedError

from routing.errors import Draining
from routing.rpc.caller import Caller
from routing.rpc.exchange import Exchange, framed, too_large
from routing.rpc.reply import FastPathHandler, PendingReply, Reply, advance
from routing.rpc.status import status_and_message, trailers

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 4 << 20
"""The contract's limit for one request."""

MAX_KEPT_UPDATES = 8
"""How many stream messages are kept with their encoded bytes: one for each option set that has
subscribers at the same time. More would keep messages that are not sent again."""

_DRAINING = "the server is draining; call another one"

_CANCELLED_BY_SERVER = {
    Status.UNAVAILABLE: _DRAINING,
    Status.DEADLINE_EXCEEDED: "the deadline passed before the call ended",
}
"""The message of a call that the server cancels. A client that cancels its call is sent none."""


Admit = Callable[[str, Caller, bool], None]
"""Raises if this caller may not call this method path: authentication, role or rate limit. The
flag is True to check an open stream again, which does not count as another call."""


class Servable(Protocol):
    """What grpclib serves: an object with handlers by method path."""

    def __mapping__(self) -> Mapping[str, Handler]: ...


class WrappedServable:
    """A servable whose calls all go through `Calls`."""

    def __init__(
        self, mapping: dict[str, Handler], fast_path_handlers: Mapping[str, FastPathHandler]
    ) -> None:
        self._mapping = mapping
        self.fast_path_handlers = fast_path_handlers

    def __mapping__(self) -> dict[str, Handler]:
        return self._mapping


@dataclass(frozen=True, slots=True)
class ServedMethod:
    """One method of a servable. `takes_caller`: its function, which is unary, has a second
    parameter, the Caller. `even_draining`: it is served while the server drains."""

    path: str
    function: Callable[..., Any]
    request_type: type
    reply_type: type
    client_streaming: bool
    server_streaming: bool
    even_draining: bool
    admit: Admit | None
    takes_caller: bool


class Calls:
    """The calls of one server: wraps its servables and counts their calls.

    State: the number of open calls and the tasks of the open streams (bounded by the open
    calls), counts by method and status (bounded by the methods served), and the last
    MAX_KEPT_UPDATES stream messages with their bytes.
    """

    def __init__(
        self, codec: CodecBase, *, admit: Admit | None = None, max_message_bytes: int = MAX_MESSAGE_BYTES
    ) -> None:
        self._codec = codec
        self._admit = admit
        self._max_message_bytes = max_message_bytes
        self._draining = False
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._streams: set[asyncio.Task[Any]] = set()
        self._counts: Counter[tuple[str, str]] = Counter()
        # By the message's id, which is unique while the message is kept here.
        self._sent: dict[int, tuple[Any, bytes]] = {}

    def __repr__(self) -> str:
        return f"<Calls open={self._open} streams={len(self._streams)} draining={self._draining}>"

    @property
    def open(self) -> int:
        """The number of open calls."""
        return self._open

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """Ended calls by (method path, status name)."""
        return self._counts

    def wrap(
        self,
        servable: Servable,
        *,
        even_draining: bool = False,
        open_to_all: bool = False,
        on_fast_path: Collection[str] = (),
    ) -> WrappedServable:
        """The same methods, with the steps of this module around them.

        `even_draining` serves unary calls while the server drains, and `open_to_all` skips
        authentication: health uses both, so that load balancers need no token. `on_fast_path`
        names unary methods that wait for nothing, or so briefly that cancelling them is not
        worthwhile; the fast path answers those without a task. A method returns its message, or the
        message's bytes.
        """
        mapping = {}
        fast_path_handlers: dict[str, FastPathHandler] = {}
        for path, handler in servable.__mapping__().items():
            client_streaming, server_streaming = handler.cardinality.value
            function = getattr(servable, snake_case(path.rpartition("/")[2]))
            method = ServedMethod(
                path=path,
                function=function,
                request_type=handler.request_type,
                reply_type=handler.reply_type,
                client_streaming=client_streaming,
                server_streaming=server_streaming,
                even_draining=even_draining and not server_streaming,
                admit=None if open_to_all else self._admit,
                takes_caller="caller" in inspect.signature(function).parameters,
            )
            name = path.rpartition("/")[2]
            if name in on_fast_path:
                fast_path_handlers[path] = partial(self._handle_on_fast_path, method)
            mapping[path] = handler._replace(func=partial(self._handle, method))
        return WrappedServable(mapping, fast_path_handlers)

    async def drain(self) -> None:
        """Refuses new calls and ends open streams with UNAVAILABLE; open unary calls go on."""
        self._draining = True
        # One turn of the loop for streams that have a last message to send: a health watch
        # reports NOT_SERVING.
        await asyncio.sleep(0)
        for task in self._streams:
            task.cancel()

    async def wait_idle(self) -> None:
        """Returns when no call is open."""
        await self._idle.wait()

    async def _handle(self, method: ServedMethod, stream: Stream[Any, Any]) -> None:
        started = time.perf_counter()
        exchange = Exchange(stream, self._codec, self._max_message_bytes)
        self._begin()
        status = Status.OK
        try:
            if self._draining and not method.even_draining:
                raise Draining(_DRAINING)
            if method.admit is not None:
                method.admit(method.path, exchange.caller, False)
            await (self._answer_many if method.server_streaming else self._answer_one)(method, exchange)
            await exchange.finish()
        except asyncio.CancelledError:
            status = exchange.cancelled_by(draining=self._draining)
            if status in _CANCELLED_BY_SERVER:
                await exchange.refuse(status, _CANCELLED_BY_SERVER[status])
            if status is not Status.UNAVAILABLE:
                raise  # grpclib expects the cancellation that it caused
        except StreamClosedError:
            # The client has cancelled, or was reset because it does not read: no status
            # reaches it, and the server is not at fault.
            status = Status.CANCELLED
        except Exception as error:
            # A handler may raise anything, and the client must receive a status, not a broken stream:
            # `status_and_message` maps our own errors; any other is a bug, logged with its traceback.
            status, message = status_and_message(error)
            if status is Status.INTERNAL:
                log.exception("call failed method=%s", method.path)
            await exchange.refuse(status, message, trailers(error))
        finally:
            self._end()
            self._note(method, status, started, exchange.caller)

    def _begin(self) -> None:
        self._open += 1
        self._idle.clear()

    def _end(self) -> None:
        self._open -= 1
        if not self._open:
            self._idle.set()

    def _handle_on_fast_path(self, method: ServedMethod, data: bytes, caller: Caller) -> Reply | PendingReply:
        """As `_handle`, without a task, for the complete bytes of one request message."""
        started = time.perf_counter()
        work = self._compute_reply(method, data, caller)
        progress = advance(work)
        if isinstance(progress, Reply):
            self._note(method, progress.status, started, caller)
            return progress
        self._begin()
        return PendingReply(work, progress, partial(self._note_pending_reply, method, started, caller))

    def _note_pending_reply(self, method: ServedMethod, started: float, caller: Caller, reply: Reply) -> None:
        self._end()
        self._note(method, reply.status, started, caller)

    async def _compute_reply(self, method: ServedMethod, data: bytes, caller: Caller) -> Reply:
        try:
            if self._draining and not method.even_draining:
                raise Draining(_DRAINING)
            if method.admit is not None:
                method.admit(method.path, caller, False)
            if len(data) > self._max_message_bytes:
                raise too_large(len(data), self._max_message_bytes)
            request = self._codec.decode(data, method.request_type)
            response = await (
                method.function(request, caller) if method.takes_caller else method.function(request)
            )
            return Reply(framed(self._codec.encode(response, method.reply_type)))
        except Exception as error:
            # As in `_handle`: whatever a handler raises becomes a status. An exception that escaped
            # here would end the connection and all other calls on it.
            status, message = status_and_message(error)
            if status is Status.INTERNAL:
                log.exception("call failed method=%s", method.path)
            return Reply(b"", status, message, trailers(error))

    def _note(self, method: ServedMethod, status: Status, started: float, caller: Caller) -> None:
        self._counts[method.path, status.name] += 1
        if log.isEnabledFor(logging.DEBUG):
            ms = (time.perf_counter() - started) * 1e3
            log.debug(
                "call ended method=%s status=%s ms=%.3f peer=%s", method.path, status.name, ms, caller.peer
            )

    async def _answer_one(self, method: ServedMethod, exchange: Exchange) -> None:
        request = await exchange.only_message(method.request_type)
        function = method.function
        response = await (function(request, exchange.caller) if method.takes_caller else function(request))
        await exchange.send(exchange.encode(response, method.reply_type))

    async def _answer_many(self, method: ServedMethod, exchange: Exchange) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            if method.client_streaming:
                request: Any = exchange.messages(method.request_type)
            else:
                request = await exchange.only_message(method.request_type)
            # Always closed here: a suspended generator would keep what it holds until the
            # garbage collector finalizes it.
            async with aclosing(method.function(request)) as responses:
                async for response in responses:
                    if method.admit is not None:
                        method.admit(method.path, exchange.caller, True)
                    await exchange.send(self._encoded(response, method, exchange))
        finally:
            self._streams.discard(task)

    def _encoded(self, response: Any, method: ServedMethod, exchange: Exchange) -> bytes:
        """The response's bytes, encoded once if one object goes to many subscribers."""
        found = self._sent.get(id(response))
        if found is None:
            found = self._sent[id(response)] = response, exchange.encode(response, method.reply_type)
            if len(self._sent) > MAX_KEPT_UPDATES:
                del self._sent[next(iter(self._sent))]
        return found[1]


def snake_case(name: str) -> str:
    """The Python name of a method.

    >>> snake_case("ServerReflectionInfo")
    'server_reflection_info'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
