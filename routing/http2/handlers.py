"""The calls of one connection: each is a task that answers or refuses."""

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
from routing.http2.headers import Headers, Refusal, as_served, list_bytes, refusal, timeout_s
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
    """Stands in for grpclib's event dispatcher: `request_handler` calls only this method. Nothing
    subscribes to the events, and grpclib's own class is private."""

    @staticmethod
    async def recv_request(metadata: Any, method: Any, **_: Any) -> tuple[Any, Any]:
        return metadata, method


class CallHandler(protocol.AbstractHandler):
    """The calls of one connection, a task each.

    A task that is cancelled before its first step never runs its `finally`, so a callback
    releases the stream when the task is done. `tasks` has the running ones; the task of a reset
    stream stays in it until it ends. `deferred` holds, by stream, replies of the fast path that
    it could not send.
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
        self.deferred: dict[int, Reply | PendingReply] = {}
        self._mapping = dict(mapping)
        self._codec = codec
        self._limits = limits
        self._clock = clock
        self._when_done = when_done

    def accept(self, stream: protocol.Stream, headers: Headers, release_stream: Callable[[], None]) -> None:
        assert isinstance(stream, CallStream)
        stream.opened_at = self._clock()
        handler = self._mapping.get(dict(headers)[":path"])
        stream.client_streaming = handler is not None and handler.cardinality.client_streaming
        stream.request_headers = headers
        if not (stream.ended or stream.client_streaming):
            stream.hold_headers(list_bytes(headers))
        refused = (
            self._watch(stream) if handler is not None and handler.cardinality.server_streaming else None
        )
        deferred = self.deferred.pop(stream.id, None)
        if deferred is not None:
            answer = self._send_reply(stream, deferred)
        else:
            answer = self._refuse(stream, refused) if refused else self._answer(stream)
        task = asyncio.get_running_loop().create_task(answer)
        self.tasks[stream] = task
        stream.cancel = task.cancel
        task.add_done_callback(partial(self._done, stream, release_stream))

    def _watch(self, stream: CallStream) -> Refusal | None:
        """Counts a server stream, or returns the refusal if there are too many."""
        if len(self.watches) >= self._limits.max_watches:
            return _TOO_MANY_WATCHES
        if stream.connection.shared.watches >= self._limits.max_watches_in_all:
            return _TOO_MANY_IN_ALL
        self.watches.add(stream)
        stream.connection.shared.watches += 1
        return None

    def _done(self, stream: CallStream, release_stream: Callable[[], None], task: asyncio.Task[None]) -> None:
        del self.tasks[stream]
        shared = stream.connection.shared
        if stream in self.watches:
            self.watches.remove(stream)
            shared.watches -= 1
        stream.forget_headers()
        release_stream()
        shared.forget(stream)  # a stream of an ended connection may still hold request bytes
        self._reset_if_open(stream, task)
        self._when_done()

    def cancel(self, stream: protocol.Stream) -> None:
        self.tasks[stream].cancel()

    def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()

    async def _answer(self, stream: CallStream) -> None:
        headers, stream.request_headers = stream.request_headers, ()
        refused = refusal(headers)
        if refused is None:
            timeout = timeout_s(headers)
            left = None if timeout is None else timeout - (self._clock() - stream.opened_at)
            if left is None or left > 0:
                served = as_served(headers, left)
                await request_handler(
                    self._mapping, stream, served, self._codec, None, cast(Any, NoSubscribers), lambda: None
                )
                return
            refused = _EXPIRED
        await self._refuse(stream, refused)

    async def _send_reply(self, stream: CallStream, deferred: Reply | PendingReply) -> None:
        """Sends the reply of a call that the fast path answered but could not send."""
        reply = deferred if isinstance(deferred, Reply) else await _reply_of(deferred)
        if reply.status is const.Status.OK:
            await stream.send_headers(list(INITIAL_HEADERS))
            await stream.send_data(reply.data)
            await stream.send_headers(list(OK_TRAILERS), end_stream=True)
        else:
            await stream.send_headers(reply.error_headers(), end_stream=True)

    async def _refuse(self, stream: CallStream, refused: Refusal) -> None:
        headers = error_response(refused.status, refused.message, http_status=refused.http_status)
        await stream.send_headers(headers, end_stream=True)

    def _reset_if_open(self, stream: CallStream, task: asyncio.Task[None]) -> None:
        """Resets a stream that is still open after its answer. Without this, a client that
        never ends its request would keep the stream in h2's table forever."""
        if task.cancelled():
            code = ErrorCodes.CANCEL
        elif (error := task.exception()) is None or isinstance(error, ProtocolError):
            code = ErrorCodes.NO_ERROR  # answered, or closed by the client before that
        else:
            log.error("call failed stream=%s", stream.id, exc_info=error)
            code = ErrorCodes.INTERNAL_ERROR
        if stream.closable:
            stream.reset_nowait(code)


async def _reply_of(pending: PendingReply) -> Reply:
    """Waits for the reply."""
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    pending.then(lambda reply: None if future.done() else future.set_result(reply))
    return await future
