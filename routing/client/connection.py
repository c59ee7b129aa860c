"""The connection under a client: opened when first needed, replaced once it seems dead."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from grpclib.client import Channel, Stream
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import Deadline
from h2.exceptions import H2Error

from routing.client.errors import (
    ClientClosed,
    DeadlineExceeded,
    RoutingCallError,
    ServerFault,
    ServerUnavailable,
    call_error,
)
from routing.client.messages import Answer, Method, Request
from routing.errors import BadMessage, RoutingError

Result = TypeVar("Result")

PUSHBACK = "grpc-retry-pushback-ms"
_MILLISECONDS = re.compile(r"-?[0-9]{1,10}")

SILENCE_S = 5.0
"""A connection on which a deadline passed and nothing came for this long is replaced.
A peer that vanished without a word (a NAT that forgot, a machine that lost power) would
else hold every call until TCP gives up, a quarter of an hour later. Shorter, and a server
that is merely slow would be met with new connections by all its clients at once."""


class _Line:
    """One channel, how many calls use it, and when the server was last heard on it."""

    __slots__ = ("calls", "channel", "heard_at")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.calls = 0
        self.heard_at = time.monotonic()

    def heard(self) -> None:
        self.heard_at = time.monotonic()

    @property
    def silent(self) -> bool:
        return time.monotonic() - self.heard_at >= SILENCE_S


class Link:
    """One channel at a time, shared by all the calls of a client.

    grpclib wakes a waiting call by cancelling its task, more than once and for good
    (`Task.cancelling` stays up), and a cancellation that meets such a wake-up is lost.
    So every step runs in a task of its own, and the caller's sees only its own.
    """

    def __init__(
        self, open_channel: Callable[[], Channel], metadata: Mapping[str, str], *, name: str, owned: bool
    ) -> None:
        self._open_channel = open_channel
        self._owned = owned  # else whoever passed the channel closes it
        self._metadata = metadata
        self._name = name
        self._line: _Line | None = None
        self._steps: set[asyncio.Task[Any]] = set()  # those of the open calls, so no more than callers
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._line else "idle"
        return f"<Link to {self._name}: {state}, {len(self._steps)} waiting>"

    async def aclose(self) -> None:
        """Ends the connection; open calls end with ClientClosed."""
        self._closed = True
        for step in tuple(self._steps):
            step.cancel()
        await asyncio.gather(*self._steps, return_exceptions=True)
        line, self._line = self._line, None
        if line is not None:
            self._close_if_done(line)

    async def unary(self, method: Method[Request, Answer], message: Request, deadline: Deadline) -> Answer:
        """One request, one answer; a RoutingCallError says what happened instead."""
        return await self._apart(partial(self._unary, method, message, deadline))

    async def _unary(self, method: Method[Request, Answer], message: Request, deadline: Deadline) -> Answer:
        with self._taken() as line:
            call = line.channel.request(
                method.path,
                Cardinality.UNARY_UNARY,
                method.request,
                method.answer,
                deadline=deadline,
                metadata=self._metadata,
            )
            with _refusals(call):
                async with call as stream:
                    await stream.send_message(message, end=True)
                    answer = await stream.recv_message()
            line.heard()
        if answer is None:
            raise ServerFault(f"{method.name} ended well, but without an answer")
        return answer

    async def stream(
        self, method: Method[Request, Answer], message: Request, *, patience_s: float
    ) -> AsyncGenerator[Answer, None]:
        """The answers as they come, each within `patience_s` of the one before."""
        with self._taken() as line:
            call = line.channel.request(
                method.path,
                Cardinality.UNARY_STREAM,
                method.request,
                method.answer,
                metadata=self._metadata,
            )
            with _refusals(call):
                async with call as stream:
                    await self._apart(partial(stream.send_message, message, end=True), patience_s)
                    while (answer := await self._apart(stream.recv_message, patience_s)) is not None:
                        line.heard()
                        yield answer
                    await self._apart(stream.recv_trailing_metadata, patience_s)

    async def _apart(self, step: Callable[[], Awaitable[Result]], patience_s: float | None = None) -> Result:
        if self._closed:
            raise self._closing()
        caller = asyncio.current_task()
        assert caller is not None
        cancelled_before = caller.cancelling()
        task = asyncio.create_task(_within(patience_s, step))
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        try:
            return await task
        except asyncio.CancelledError:
            if caller.cancelling() > cancelled_before or not self._closed:
                raise
            raise self._closing() from None
        finally:
            if caller.cancelling() > cancelled_before and not task.cancelled():
                raise asyncio.CancelledError

    @contextmanager
    def _taken(self) -> Iterator[_Line]:
        """The line for one call; what grpclib raises in it becomes an error of ours."""
        if self._closed:
            raise self._closing()
        line = self._line = self._line or _Line(self._open_channel())
        line.calls += 1
        try:
            yield line
        except RoutingCallError:
            line.heard()
            raise
        except BadMessage as error:
            raise ServerFault(error.message) from error
        except (OSError, StreamTerminatedError, H2Error) as error:
            raise self._lost(line, error) from error
        finally:
            line.calls -= 1
            self._close_if_done(line)

    def _lost(self, line: _Line, error: Exception) -> RoutingError:
        # A TimeoutError with an errno is the system's own: the connect got no answer.
        late = isinstance(error, TimeoutError) and error.errno is None
        if line is self._line and (isinstance(error, H2Error) or (late and line.silent)):
            self._line = None
        if self._closed:
            return self._closing()
        if late:
            return DeadlineExceeded(f"no answer from {self._name} in time")
        return ServerUnavailable(f"{self._name}: {error}")

    def _close_if_done(self, line: _Line) -> None:
        if self._owned and line is not self._line and (self._closed or not line.calls):
            line.channel.close()

    def _closing(self) -> ClientClosed:
        return ClientClosed(f"the client to {self._name} is closed")


@contextmanager
def _refusals(call: Stream[Any, Any]) -> Iterator[None]:
    """What the server refuses in the block, as an error of ours."""
    try:
        yield
    except GRPCError as error:
        # grpclib keeps metadata that begins with `grpc-` to itself, in these two.
        http = call._stream
        pushback_s = read_pushback_s(http.trailers or http.headers or ())
        raise call_error(error.status.name, error.message or "", pushback_s) from error


def bearer(token: str | None) -> Mapping[str, str]:
    """The metadata that shows a token, if there is one."""
    return {} if token is None else {"authorization": f"Bearer {token}"}


def read_pushback_s(headers: Iterable[tuple[str, str]]) -> float | None:
    """How long the server asks to wait before another try. What is no number means none, as
    a negative one does (gRPC proposal A6, "Client Retries").

    >>> read_pushback_s([("grpc-retry-pushback-ms", "250")])
    0.25
    """
    said = dict(headers).get(PUSHBACK)
    if said is None:
        return None
    return int(said) / 1e3 if _MILLISECONDS.fullmatch(said) else -1.0


async def _within(patience_s: float | None, step: Callable[[], Awaitable[Result]]) -> Result:
    async with asyncio.timeout(patience_s):
        return await step()
