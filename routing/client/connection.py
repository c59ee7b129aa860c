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
from routing.client.messages import Answer, Request, RpcMethod
from routing.errors import BadMessage, RoutingError

Result = TypeVar("Result")

PUSHBACK = "grpc-retry-pushback-ms"
_MILLISECONDS = re.compile(r"-?[0-9]{1,10}")

SILENCE_S = 5.0
"""A connection is replaced when a deadline passes on it and no answer arrived for this long.
If the peer disappeared without closing (an expired NAT entry, a power failure), TCP would
hold every call for about 15 minutes. With a shorter time, all clients of a slow server would
open new connections to it at once."""


class _OpenChannel:
    """A channel, the number of calls that use it, and the time of the last answer on it."""

    __slots__ = ("answered_at", "calls", "channel")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.calls = 0
        self.answered_at = time.monotonic()

    def note_answer(self) -> None:
        self.answered_at = time.monotonic()

    @property
    def is_silent(self) -> bool:
        return time.monotonic() - self.answered_at >= SILENCE_S


class ClientConnection:
    """One channel at a time, shared by all the calls of a client.

    grpclib wakes a waiting call by cancelling its task, possibly several times, and never calls
    `uncancel`, so `Task.cancelling` stays above 0; a caller's own cancellation that arrives
    at the same moment is lost. Each step therefore runs in its own task, and the caller's
    task receives only the caller's cancellations.
    """

    def __init__(
        self, open_channel: Callable[[], Channel], metadata: Mapping[str, str], *, name: str, owned: bool
    ) -> None:
        self._open_channel = open_channel
        self._owned = owned  # if not, the code that passed the channel closes it
        self._metadata = metadata
        self._name = name
        self._current: _OpenChannel | None = None
        self._steps: set[asyncio.Task[Any]] = set()  # at most one for each open call
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._current else "idle"
        return f"<ClientConnection to {self._name}: {state}, {len(self._steps)} waiting>"

    async def aclose(self) -> None:
        """Ends the connection; open calls end with ClientClosed."""
        self._closed = True
        for step in tuple(self._steps):
            step.cancel()
        await asyncio.gather(*self._steps, return_exceptions=True)
        opened, self._current = self._current, None
        if opened is not None:
            self._close_if_unused(opened)

    async def unary(self, method: RpcMethod[Request, Answer], message: Request, deadline: Deadline) -> Answer:
        """Sends one request and returns the answer; raises RoutingCallError if there is none."""
        return await self._in_own_task(partial(self._unary, method, message, deadline))

    async def _unary(
        self, method: RpcMethod[Request, Answer], message: Request, deadline: Deadline
    ) -> Answer:
        with self._channel_in_use() as opened:
            call = opened.channel.request(
                method.path,
                Cardinality.UNARY_UNARY,
                method.request,
                method.answer,
                deadline=deadline,
                metadata=self._metadata,
            )
            with _call_errors(call):
                async with call as stream:
                    await stream.send_message(message, end=True)
                    answer = await stream.recv_message()
            opened.note_answer()
        if answer is None:
            raise ServerFault(f"{method.name} ended with status OK, but without an answer")
        return answer

    async def stream(
        self, method: RpcMethod[Request, Answer], message: Request, *, timeout_s: float
    ) -> AsyncGenerator[Answer, None]:
        """Yields the answers; each must arrive within `timeout_s` of the previous one."""
        with self._channel_in_use() as opened:
            call = opened.channel.request(
                method.path,
                Cardinality.UNARY_STREAM,
                method.request,
                method.answer,
                metadata=self._metadata,
            )
            with _call_errors(call):
                async with call as stream:
                    await self._in_own_task(partial(stream.send_message, message, end=True), timeout_s)
                    while (answer := await self._in_own_task(stream.recv_message, timeout_s)) is not None:
                        opened.note_answer()
                        yield answer
                    await self._in_own_task(stream.recv_trailing_metadata, timeout_s)

    async def _in_own_task(
        self, step: Callable[[], Awaitable[Result]], timeout_s: float | None = None
    ) -> Result:
        if self._closed:
            raise self._closed_error()
        caller = asyncio.current_task()
        assert caller is not None
        cancelled_before = caller.cancelling()
        task = asyncio.create_task(_with_timeout(timeout_s, step))
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        try:
            return await task
        except asyncio.CancelledError:
            if caller.cancelling() > cancelled_before or not self._closed:
                raise
            raise self._closed_error() from None
        finally:
            if caller.cancelling() > cancelled_before and not task.cancelled():
                raise asyncio.CancelledError

    @contextmanager
    def _channel_in_use(self) -> Iterator[_OpenChannel]:
        """The channel for one call; maps grpclib's exceptions to RoutingError."""
        if self._closed:
            raise self._closed_error()
        opened = self._current = self._current or _OpenChannel(self._open_channel())
        opened.calls += 1
        try:
            yield opened
        except RoutingCallError:
            opened.note_answer()
            raise
        except BadMessage as error:
            raise ServerFault(error.message) from error
        except (OSError, StreamTerminatedError, H2Error) as error:
            raise self._connection_error(opened, error) from error
        finally:
            opened.calls -= 1
            self._close_if_unused(opened)

    def _connection_error(self, opened: _OpenChannel, error: Exception) -> RoutingError:
        # A TimeoutError with an errno comes from the operating system: connecting timed out.
        late = isinstance(error, TimeoutError) and error.errno is None
        if opened is self._current and (isinstance(error, H2Error) or (late and opened.is_silent)):
            self._current = None
        if self._closed:
            return self._closed_error()
        if late:
            return DeadlineExceeded(f"no answer from {self._name} in time")
        return ServerUnavailable(f"{self._name}: {error}")

    def _close_if_unused(self, opened: _OpenChannel) -> None:
        if self._owned and opened is not self._current and (self._closed or not opened.calls):
            opened.channel.close()

    def _closed_error(self) -> ClientClosed:
        return ClientClosed(f"the client to {self._name} is closed")


@contextmanager
def _call_errors(call: Stream[Any, Any]) -> Iterator[None]:
    """Maps a status that the server returns in the block to RoutingCallError."""
    try:
        yield
    except GRPCError as error:
        # grpclib drops metadata that begins with `grpc-`; only these two still have it.
        http = call._stream
        pushback_s = read_pushback_s(http.trailers or http.headers or ())
        raise call_error(error.status.name, error.message or "", pushback_s) from error


def bearer(token: str | None) -> Mapping[str, str]:
    """The request metadata that carries the bearer token; empty without one."""
    return {} if token is None else {"authorization": f"Bearer {token}"}


def read_pushback_s(headers: Iterable[tuple[str, str]]) -> float | None:
    """The server's pushback in seconds: how long to wait before a retry; None if it sent none.

    Negative means "do not retry", and so does a value that is not a number (gRPC proposal A6,
    "Client Retries").

    >>> read_pushback_s([("grpc-retry-pushback-ms", "250")])
    0.25
    """
    value = dict(headers).get(PUSHBACK)
    if value is None:
        return None
    return int(value) / 1e3 if _MILLISECONDS.fullmatch(value) else -1.0


async def _with_timeout(timeout_s: float | None, step: Callable[[], Awaitable[Result]]) -> Result:
    async with asyncio.timeout(timeout_s):
        return await step()
