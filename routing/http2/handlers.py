"""The calls of one connection: each a task, that answers or refuses."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from grpclib import const, protocol
from grpclib.encoding.base import CodecBase
from grpclib.server import request_handler
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from routing.http2.budget import Http2Limits
from routing.http2.headers import Headers, Refusal, as_served, refusal, timeout_s
from routing.http2.streams import CallStream
from routing.rpc.reply import PendingReply, Reply
from routing.rpc.response_headers import INITIAL_HEADERS, OK_TRAILERS, error_response

log = logging.getLogger(__name__)

_EXPIRED = Refusal(200, const.Status.DEADLINE_EXCEEDED, "the deadline passed before the call began")
_TOO_MANY_WATCHES = Refusal(
    200, const.Status.RESOURCE_EXHAUSTED, "too many streams are open on this connection; open another one"
)
_TOO_MANY_IN_ALL = Refusal(
    200, const.Status.RESOURCE_EXHAUSTED, "too many streams are open on this server; call another one"
)


class NoSubscribers:
    """Takes the place of grpclib's events in `request_handler`, which calls this one method. Nothing
    subscribes to them, and grpclib's own class is private."""

    @staticmethod
    async def recv_request(metadata: Any, method: Any, **_: Any) -> tuple[Any, Any]:
        return metadata, method


class CallHandler(protocol.AbstractHandler):
    """The calls of one connection, a task each.

    A task that is cancelled before its first step never runs its `finally`, so streams
    are released when the task is done, and not by it. `tasks` counts what is alive,
    which reset streams still are until their task has ended. `late` holds, by stream, what
    the fast path has answered and could not send.
    """

    def __init__(
        self,
        mapping: Mapping[str, const.Handler],
        codec: CodecBase,
        limits: Http2Limits,
        clock: Callable[[], float],
        when_done: Callable[[], None],
    ) -> None:
        self.tasks: dict[protocol.Stream, asyncio.Task[None]] = {}
        self.watches: set[protocol.Stream] = set()
        self.late: dict[int, Reply | PendingReply] = {}
        self._mapping = dict(mapping)
        self._codec = codec
        self._limits = limits
        self._clock = clock
        self._when_done = when_done

    def accept(self, stream: protocol.Stream, headers: Headers, release_stream: Callable[[], None]) -> None:
        assert isinstance(stream, CallStream)
        stream.opened_at = self._clock()
        handler = self._mapping.get(dict(headers)[":path"])
        stream.takes_many = handler is not None and handler.cardinality.client_streaming
        said = self._watch(stream) if handler is not None and handler.cardinality.server_streaming else None
        late = self.late.pop(stream.id, None)
        if late is not None:
            answer = self._deliver(stream, late)
        else:
            answer = self._refuse(stream, said) if said else self._answer(stream, headers)
        task = asyncio.get_running_loop().create_task(answer)
        self.tasks[stream] = task
        stream.cancel = task.cancel
        task.add_done_callback(partial(self._done, stream, release_stream))

    def _watch(self, stream: CallStream) -> Refusal | None:
        """Counts a stream that stays, or says why it may not."""
        if len(self.watches) >= self._limits.max_watches:
            return _TOO_MANY_WATCHES
        if stream.connection.shared.watches >= self._limits.max_watches_in_all:
            return _TOO_MANY_IN_ALL
        self.watches.add(stream)
        stream.connection.shared.watches += 1
        return None

    def _done(self, stream: CallStream, release_stream: Callable[[], None], task: asyncio.Task[None]) -> None:
        del self.tasks[stream]
        commons = stream.connection.shared
        if stream in self.watches:
            self.watches.remove(stream)
            commons.watches -= 1
        release_stream()
        commons.forget(stream)  # a connection that has ended releases its streams with their bytes
        self._leave(stream, task)
        self._when_done()

    def cancel(self, stream: protocol.Stream) -> None:
        self.tasks[stream].cancel()

    def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()

    async def _answer(self, stream: CallStream, headers: Headers) -> None:
        said = refusal(headers)
        if said is None:
            timeout = timeout_s(headers)
            left = None if timeout is None else timeout - (self._clock() - stream.opened_at)
            if left is None or left > 0:
                served = as_served(headers, left)
                await request_handler(
                    self._mapping, stream, served, self._codec, None, cast(Any, NoSubscribers), lambda: None
                )
                return
            said = _EXPIRED
        await self._refuse(stream, said)

    async def _deliver(self, stream: CallStream, late: Reply | PendingReply) -> None:
        """Sends what a call came to that was answered at once, but whose answer had to wait."""
        reply = late if isinstance(late, Reply) else await _come(late)
        if reply.status is const.Status.OK:
            await stream.send_headers(list(INITIAL_HEADERS))
            await stream.send_data(reply.data)
            await stream.send_headers(list(OK_TRAILERS), end_stream=True)
        else:
            await stream.send_headers(reply.error_headers(), end_stream=True)

    async def _refuse(self, stream: CallStream, said: Refusal) -> None:
        headers = error_response(said.status, said.message, http_status=said.http_status)
        await stream.send_headers(headers, end_stream=True)

    def _leave(self, stream: CallStream, task: asyncio.Task[None]) -> None:
        """What an answer leaves open is ended: a client that never ends its request would
        keep the stream in h2's table for good."""
        if task.cancelled():
            code = ErrorCodes.CANCEL
        elif (error := task.exception()) is None or isinstance(error, ProtocolError):
            code = ErrorCodes.NO_ERROR  # answered, or gone before it could be
        else:
            log.error("call failed stream=%s", stream.id, exc_info=error)
            code = ErrorCodes.INTERNAL_ERROR
        if stream.closable:
            stream.reset_nowait(code)


async def _come(later: PendingReply) -> Reply:
    """The reply, once it is there."""
    come: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    later.then(lambda reply: None if come.done() else come.set_result(reply))
    return await come
