"""Calls with a deadline, retried if the server is unavailable or sends a retry delay."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from grpclib.metadata import Deadline

from routing.client.connection import ClientConnection
from routing.client.errors import DeadlineExceeded, Overloaded, RoutingCallError, ServerUnavailable
from routing.client.messages import Answer, Request, RpcMethod
from routing.errors import InvalidArgument

BASE_S = 0.1
CAP_S = 5.0
"""The bound of the wait after the first failure, and the highest bound. With four retries a
call waits 0.75 s on average, which covers a restart with a quick handover. Whether to wait
out a longer outage is the caller's decision."""

_LONGEST_TIMEOUT_S = 99_999_999.0
"""The longest timeout that `grpc-timeout` can carry (gRPC over HTTP/2: eight digits)."""

_MOST_DOUBLINGS = 30
"""Above the cap already, and far below a float's overflow."""


def backoff_s(failures: int, dice: random.Random) -> float:
    """The wait after `failures` consecutive failures: uniform from 0 to a bound that doubles.

    Full jitter: clients that lose the server at the same moment do not all return at the
    same moment (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """
    return dice.uniform(0.0, min(CAP_S, BASE_S * 2.0 ** min(failures - 1, _MOST_DOUBLINGS)))


def retry_wait_s(error: RoutingCallError, failures: int, dice: random.Random) -> float | None:
    """The wait before the retry after this error; None if the call should not be retried.

    If the server sends a delay, the wait is that plus the backoff: clients refused at the same
    moment receive the same delay, and the random part spreads their retries.
    """
    spread_s = backoff_s(failures, dice)
    if error.pushback_s is None:
        return None if isinstance(error, Overloaded) else spread_s
    return error.pushback_s + spread_s if error.pushback_s >= 0.0 else None


class RetryingCaller:
    """Makes and retries the calls of one client."""

    def __init__(
        self,
        connection: ClientConnection,
        *,
        timeout_seconds: float,
        retries: int,
        dice: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._connection = connection
        self._timeout_seconds = _checked(timeout_seconds)
        self._retries = retries
        self._dice = dice or random.Random()  # noqa: S311 (spreads waits, keeps no secret)
        self._sleep = sleep

    async def unary(
        self, method: RpcMethod[Request, Answer], message: Request, timeout_seconds: float | None
    ) -> Answer:
        """The answer; the timeout covers all tries and the waits between them."""
        timeout_seconds = self._timeout_seconds if timeout_seconds is None else _checked(timeout_seconds)
        deadline = Deadline.from_timeout(timeout_seconds)
        failures = 0
        while True:
            try:
                return await self._connection.unary(method, message, deadline)
            except (ServerUnavailable, Overloaded) as error:
                failures += 1
                wait_s = retry_wait_s(error, failures, self._dice)
                if wait_s is None or failures > self._retries or wait_s >= deadline.time_remaining():
                    raise
            await self._sleep(wait_s)

    async def stream(
        self, method: RpcMethod[Request, Answer], message: Request, *, interval_s: float
    ) -> AsyncGenerator[Answer, None]:
        """Yields the answers; connects again when the connection is lost.

        After a first answer the number of retries is unlimited; before it, the limit is that
        of a unary call.
        """
        timeout_s = interval_s + self._timeout_seconds
        answered, failures = False, 0
        while True:
            try:
                async with aclosing(self._connection.stream(method, message, timeout_s=timeout_s)) as answers:
                    async for answer in answers:
                        answered, failures = True, 0
                        yield answer
                return
            except (ServerUnavailable, Overloaded, DeadlineExceeded) as error:
                failures += 1
                wait_s = retry_wait_s(error, failures, self._dice)
                if wait_s is None or (not answered and failures > self._retries):
                    raise
            await self._sleep(wait_s)


def _checked(timeout_seconds: float) -> float:
    if not 0.0 < timeout_seconds <= _LONGEST_TIMEOUT_S:
        raise InvalidArgument(
            "timeout_seconds", timeout_seconds, f"more than 0, to {_LONGEST_TIMEOUT_S:,.0f}"
        )
    return timeout_seconds
