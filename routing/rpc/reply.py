"""Calls that are answered there and then, or after a moment's wait, without a task."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from grpclib.const import Status

from routing.rpc.caller import Caller
from routing.rpc.response_headers import HeaderFields, Trailers, error_response


@dataclass(frozen=True, slots=True)
class Reply:
    """The one message of a unary call, behind its prefix; or, where `status` is not OK, why there is none."""

    data: bytes
    status: Status = Status.OK
    message: str = ""
    trailers: Trailers = ()

    def error_headers(self) -> HeaderFields:
        """The one header block that is the response where `status` is not OK."""
        return error_response(self.status, self.message, self.trailers)


Work = Coroutine[Any, Any, Reply]


def advance(work: Work) -> Reply | asyncio.Future[Any]:
    """Does as much of the work as can be done now: its reply, or what it waits for."""
    try:
        come = work.send(None)
        if isinstance(come, asyncio.Future):
            return come
        work.throw(RuntimeError("a method that may wait for a moment waits for its next turn"))
    except StopIteration as done:
        return cast(Reply, done.value)
    raise RuntimeError("a method goes on after its fault")


class PendingReply:
    """A reply that is still to come, and the work that waits for something first.

    Does what a task would do, at a third of its cost: callbacks run at once, and there is no
    way to cancel. `ended` is called with the reply first.
    """

    __slots__ = ("_ended", "_reply", "_tell", "_work")

    def __init__(self, work: Work, waits_for: asyncio.Future[Any], ended: Callable[[Reply], None]) -> None:
        self._work = work
        self._ended = ended
        self._reply: Reply | None = None
        self._tell: Callable[[Reply], None] | None = None
        waits_for.add_done_callback(self._go_on)

    def then(self, tell: Callable[[Reply], None]) -> None:
        """Tells the one who wants the reply, now or when it comes."""
        self._tell = tell
        if self._reply is not None:
            tell(self._reply)

    def _go_on(self, _: asyncio.Future[Any]) -> None:
        come = advance(self._work)
        if not isinstance(come, Reply):
            come.add_done_callback(self._go_on)
            return
        self._reply = come
        self._ended(come)
        if self._tell is not None:
            self._tell(come)


FastPathHandler = Callable[[bytes, Caller], Reply | PendingReply]
"""Answers the bytes of one message, given without their prefix, now or a little later. Gets
the caller: the same object for all calls of a connection whose header blocks are the same."""


@runtime_checkable
class FastPathServable(Protocol):
    """A servable some of whose methods can also be answered there and then."""

    @property
    def fast_path_handlers(self) -> Mapping[str, FastPathHandler]:
        """By method path."""
        ...
