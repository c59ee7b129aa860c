"""Replies of calls that run without a task: at once, or after one wait for a future."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from grpclib.const import Status

from routing.rpc.caller import Caller
from routing.rpc.response_headers import HeaderFields, Trailers, error_response


@dataclass(frozen=True, slots=True)
class Reply:
    """The one message of a unary call, with its prefix; or the error, if `status` is not OK."""

    data: bytes
    status: Status = Status.OK
    message: str = ""
    trailers: Trailers = ()

    def error_headers(self) -> HeaderFields:
        """The one header block of an error response."""
        return error_response(self.status, self.message, self.trailers)


Work = Coroutine[Any, Any, Reply]


def advance(work: Work) -> Reply | asyncio.Future[Any]:
    """Runs the work until it waits. Returns its reply, or the future that it waits for."""
    try:
        awaited = work.send(None)
        if isinstance(awaited, asyncio.Future):
            return awaited
        work.throw(RuntimeError("a method on the fast path may await a future only, not a turn of the loop"))
    except StopIteration as done:
        return cast(Reply, done.value)
    raise RuntimeError("a method goes on after an error was raised in it")


class PendingReply:
    """The reply of work that waits for a future.

    It does what a task does, at a third of the cost: callbacks run at once, and it cannot be
    cancelled. `ended` is called with the reply first, then the callback of `then`.
    """

    __slots__ = ("_callback", "_ended", "_reply", "_work")

    def __init__(self, work: Work, waits_for: asyncio.Future[Any], ended: Callable[[Reply], None]) -> None:
        self._work = work
        self._ended = ended
        self._reply: Reply | None = None
        self._callback: Callable[[Reply], None] | None = None
        waits_for.add_done_callback(self._go_on)

    def then(self, callback: Callable[[Reply], None]) -> None:
        """Calls back with the reply, at once if it is known."""
        self._callback = callback
        if self._reply is not None:
            callback(self._reply)

    def _go_on(self, _: asyncio.Future[Any]) -> None:
        reply = advance(self._work)
        if not isinstance(reply, Reply):
            reply.add_done_callback(self._go_on)
            return
        self._reply = reply
        self._ended(reply)
        if self._callback is not None:
            self._callback(reply)


FastPathHandler = Callable[[bytes, Caller], Reply | PendingReply]
"""Answers one message, given as bytes without their prefix, at once or after a wait. Gets
the caller: the same object for all calls of a connection whose header blocks are the same."""


@runtime_checkable
class FastPathServable(Protocol):
    """A servable some of whose methods can be answered on the fast path."""

    @property
    def fast_path_handlers(self) -> Mapping[str, FastPathHandler]:
        """By method path."""
        ...
