"""What surrounds every call: the drain, who calls, limits, errors as statuses, counts, the log.

In this order: is the server draining; may this caller call; the request's bytes, bounded before they are
read; the message; the servable's own method; the response; and whatever went wrong
becomes one status. It wraps any generated servable, under grpclib's server and under
its in-memory channel alike.
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
"""Messages of streams whose bytes are kept: as many option sets may have subscribers at the
same time. More would hold messages that are not sent again."""

_DRAINING = "the server is draining; call another one"

_CANCELLED_BY_SERVER = {
    Status.UNAVAILABLE: _DRAINING,
    Status.DEADLINE_EXCEEDED: "the deadline passed before the call ended",
}
"""What a client is sent whose call was cancelled; one that has left itself is sent nothing."""


Admit = Callable[[str, Caller, bool], None]
"""Raises what keeps this caller from this method path: who it is, what it may, how often. True
for a stream that goes on: whether it may do that, and not a call more on its account."""


class Servable(Protocol):
    """What grpclib serves: handlers by method path."""

    def __mapping__(self) -> Mapping[str, Handler]: ...


class WrappedServable:
    """A servable whose every call is surrounded."""

    def __init__(self, mapping: dict[str, Handler], prompts: Mapping[str, FastPathHandler]) -> None:
        self._mapping = mapping
        self.fast_path_handlers = prompts

    def __mapping__(self) -> dict[str, Handler]:
        return self._mapping


@dataclass(frozen=True, slots=True)
class ServedMethod:
    """One method of a servable. `takes_caller` means that its function, which is unary, has a
    second parameter: the Caller."""

    path: str
    function: Callable[..., Any]
    request_type: type
    reply_type: type
    takes_many: bool
    gives_many: bool
    even_draining: bool
    admit: Admit | None
    takes_caller: bool


class Calls:
    """The calls of one server: wraps its servables and knows what goes on in them.

    State: how many calls are open, the tasks of the open streams (both fall as calls
    end), counts by method and status (bounded by what is served), and the last
    MAX_KEPT_UPDATES of streams with their bytes.
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
        # By the message's id, which is its own for as long as it is kept here.
        self._sent: dict[int, tuple[Any, bytes]] = {}

    def __repr__(self) -> str:
        return f"<Calls open={self._open} streams={len(self._streams)} draining={self._draining}>"

    @property
    def open(self) -> int:
        """Calls that have begun and not ended."""
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
        """The same methods, surrounded. `even_draining` lets unary calls in to the end, and
        `open_to_all` does not authenticate: health answers until the end, and also
        balancers without a token. `on_fast_path` names unary
        methods that wait for nothing, or for a moment in which no client need cancel them: the fast path
        answers those without a task. A method answers with its message, or with the message's bytes."""
        mapping = {}
        prompts: dict[str, FastPathHandler] = {}
        for path, handler in servable.__mapping__().items():
            takes_many, gives_many = handler.cardinality.value
            function = getattr(servable, snake_case(path.rpartition("/")[2]))
            method = ServedMethod(
                path=path,
                function=function,
                request_type=handler.request_type,
                reply_type=handler.reply_type,
                takes_many=takes_many,
                gives_many=gives_many,
                even_draining=even_draining and not gives_many,
                admit=None if open_to_all else self._admit,
                takes_caller="caller" in inspect.signature(function).parameters,
            )
            name = path.rpartition("/")[2]
            if name in on_fast_path:
                prompts[path] = partial(self._reply, method)
            mapping[path] = handler._replace(func=partial(self._surround, method))
        return WrappedServable(mapping, prompts)

    async def drain(self) -> None:
        """Refuses new calls and ends open streams with UNAVAILABLE; open unary calls go on."""
        self._draining = True
        # One turn of the loop for streams that were just woken to say a last thing: a
        # health watch, that nothing is served any more.
        await asyncio.sleep(0)
        for task in self._streams:
            task.cancel()

    async def wait_idle(self) -> None:
        """Returns when no call is open."""
        await self._idle.wait()

    async def _surround(self, method: ServedMethod, stream: Stream[Any, Any]) -> None:
        started = time.perf_counter()
        exchange = Exchange(stream, self._codec, self._max_message_bytes)
        self._begin()
        status = Status.OK
        try:
            if self._draining and not method.even_draining:
                raise Draining(_DRAINING)
            if method.admit is not None:
                method.admit(method.path, exchange.caller, False)
            await (self._answer_many if method.gives_many else self._answer_one)(method, exchange)
            await exchange.finish()
        except asyncio.CancelledError:
            status = exchange.cancelled_by(draining=self._draining)
            if status in _CANCELLED_BY_SERVER:
                await exchange.refuse(status, _CANCELLED_BY_SERVER[status])
            if status is not Status.UNAVAILABLE:
                raise  # grpclib waits for the cancellation that it has caused
        except StreamClosedError:
            # The client has left, or was cut off because it does not read: no status
            # reaches it, and the server is not at fault.
            status = Status.CANCELLED
        # A handler may raise anything, and the client must hear a status and not a broken stream:
        # `status_and_message` knows our own errors; any other is a fault of ours, logged with its traceback.
        except Exception as error:
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

    def _reply(self, method: ServedMethod, data: bytes, caller: Caller) -> Reply | PendingReply:
        """The same for a method that hardly waits, and a request that is all there."""
        started = time.perf_counter()
        work = self._prompted(method, data, caller)
        come = advance(work)
        if isinstance(come, Reply):
            self._note(method, come.status, started, caller)
            return come
        self._begin()
        return PendingReply(work, come, partial(self._came_later, method, started, caller))

    def _came_later(self, method: ServedMethod, started: float, caller: Caller, reply: Reply) -> None:
        self._end()
        self._note(method, reply.status, started, caller)

    async def _prompted(self, method: ServedMethod, data: bytes, caller: Caller) -> Reply:
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
        # As in `_surround`: whatever a handler raises becomes a status here, for what is answered
        # without a task. Let through, it would end the connection and all other calls on it.
        except Exception as error:
            status, message = status_and_message(error)
            if status is Status.INTERNAL:
                log.exception("call failed method=%s", method.path)
            return Reply(b"", status, message, trailers(error))

    def _note(self, method: ServedMethod, status: Status, started: float, caller: Caller) -> None:
        self._counts[method.path, status.name] += 1
        if log.isEnabledFor(logging.DEBUG):
            ms = (time.perf_counter() - started) * 1e3
            said = "call ended method=%s status=%s ms=%.3f peer=%s"
            log.debug(said, method.path, status.name, ms, caller.peer)

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
            if method.takes_many:
                request: Any = exchange.messages(method.request_type)
            else:
                request = await exchange.only_message(method.request_type)
            # Closed here, whatever happens: a generator left suspended would keep what
            # it holds until the garbage collector comes by.
            async with aclosing(method.function(request)) as responses:
                async for response in responses:
                    if method.admit is not None:
                        method.admit(method.path, exchange.caller, True)
                    await exchange.send(self._encoded(response, method, exchange))
        finally:
            self._streams.discard(task)

    def _encoded(self, response: Any, method: ServedMethod, exchange: Exchange) -> bytes:
        """The response's bytes, made once where one object goes to many listeners."""
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
