"""Calls with a deadline, tried again when the server is unavailable, or says when to come again."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from grpclib.metadata import Deadline

from routing.client.connection import Link
from routing.client.errors import DeadlineExceeded, Overloaded, RoutingCallError, ServerUnavailable
from routing.client.messages import Answer, Method, Request
from routing.errors import InvalidArgument

BASE_S = 0.1
CAP_S = 5.0
"""The wait's bound after the first failure, and the highest. With four retries a call
spends 0.75 s waiting on average, which outlives a restart that hands over quickly; a
longer outage is the caller's to judge."""

_LONGEST_TIMEOUT_S = 99_999_999.0
"""What the header that carries a deadline can say (gRPC over HTTP/2: eight digits)."""

_MOST_DOUBLINGS = 30
"""Past the cap, and far from what a float cannot hold."""


def backoff_s(failures: int, dice: random.Random) -> float:
    """The wait after so many failures in a row: anywhere up to a bound that doubles with each.

    Full jitter: spreading over the whole range keeps clients that lost the server at
    the same moment from coming back at the same moment (Marc Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015).
    """
    return dice.uniform(0.0, min(CAP_S, BASE_S * 2.0 ** min(failures - 1, _MOST_DOUBLINGS)))


def retry_wait_s(error: RoutingCallError, failures: int, dice: random.Random) -> float | None:
    """How long to wait before another try after such an error; None where none should be made.

    Where the server says how long, at least that: all who were refused at the same moment
    hear the same, hence the random wait besides.
    """
    spread_s = backoff_s(failures, dice)
    if error.pushback_s is None:
        return None if isinstance(error, Overloaded) else spread_s
    return error.pushback_s + spread_s if error.pushback_s >= 0.0 else None


class Caller:
    """Makes the calls of one client over its link."""

    def __init__(
        self,
        link: Link,
        *,
        timeout_seconds: float,
        retries: int,
        dice: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._link = link
        self._timeout_seconds = _checked(timeout_seconds)
        self._retries = retries
        self._dice = dice or random.Random()  # noqa: S311 (spreads waits, keeps no secret)
        self._sleep = sleep

    async def unary(
        self, method: Method[Request, Answer], message: Request, timeout_seconds: float | None
    ) -> Answer:
        """The answer, within the timeout, waits included."""
        timeout_seconds = self._timeout_seconds if timeout_seconds is None else _checked(timeout_seconds)
        deadline = Deadline.from_timeout(timeout_seconds)
        failures = 0
        while True:
            try:
                return await self._link.unary(method, message, deadline)
            except (ServerUnavailable, Overloaded) as error:
                failures += 1
                wait_s = retry_wait_s(error, failures, self._dice)
                if wait_s is None or failures > self._retries or wait_s >= deadline.time_remaining():
                    raise
            await self._sleep(wait_s)

    async def stream(
        self, method: Method[Request, Answer], message: Request, *, interval_s: float
    ) -> AsyncGenerator[Answer, None]:
        """The answers, over as many connections as it takes.

        A server that was heard is waited for without end, one that was never there
        for as many retries as a call makes.
        """
        patience_s = interval_s + self._timeout_seconds
        heard, failures = False, 0
        while True:
            try:
                async with aclosing(self._link.stream(method, message, patience_s=patience_s)) as answers:
                    async for answer in answers:
                        heard, failures = True, 0
                        yield answer
                return
            except (ServerUnavailable, Overloaded, DeadlineExceeded) as error:
                failures += 1
                wait_s = retry_wait_s(error, failures, self._dice)
                if wait_s is None or (not heard and failures > self._retries):
                    raise
            await self._sleep(wait_s)


def _checked(timeout_seconds: float) -> float:
    if not 0.0 < timeout_seconds <= _LONGEST_TIMEOUT_S:
        raise InvalidArgument(
            "timeout_seconds", timeout_seconds, f"more than 0, to {_LONGEST_TIMEOUT_S:,.0f}"
        )
    return timeout_seconds
