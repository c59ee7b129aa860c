"""One computation and one encoding for each tick of StreamMetrics, shared by all that listen."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable

SENDS_PER_TURN = 16
"""Updates sent in one turn of the event loop, each some 0.1 ms. Fewer turns cost more than they
give; more let a call that comes meanwhile wait longer than it takes."""


class FairQueue:
    """Lets few go on in each turn of the event loop, in the order in which they came.

    A thousand listeners wake at the same tick, and sending to all of them takes a tenth of
    a second. In turns, whoever calls meanwhile waits for a few sends, not for all.
    """

    def __init__(self, most: int = SENDS_PER_TURN) -> None:
        self._most = most
        self._going = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<FairQueue waiting={len(self._waiting)}>"

    async def wait(self) -> None:
        """Returns when it is the caller's turn: mostly at once."""
        loop = asyncio.get_running_loop()
        if self._going < self._most:
            if not self._going:
                loop.call_soon(self._next)
            self._going += 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next(self) -> None:
        self._going = 0
        while self._waiting and self._going < self._most:
            turn = self._waiting.popleft()
            if not turn.done():  # who waited for it may have been cancelled
                turn.set_result(None)
                self._going += 1
        if self._going:
            asyncio.get_running_loop().call_soon(self._next)


class Updates:
    """The updates of one option set: one computation per tick, however many listen.

    Ticks lie an interval apart, counted from the first listener. Each listener sleeps
    to the next tick; the first to wake computes the update, the others find it done.
    One that is slow to take an update misses those in between, so nothing piles up.
    """

    def __init__(
        self,
        interval_s: float,
        compute: Callable[[], bytes],
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.subscribers = 0
        self._interval_s = interval_s
        self._compute = compute
        self._monotonic = monotonic
        self._sleep = sleep
        self._started_at = monotonic()
        self._tick = 0
        self._latest: bytes | None = None

    async def next_tick(self, tick: int) -> int:
        """Waits for the first tick that is still to come, and later than `tick`."""
        elapsed_s = self._monotonic() - self._started_at
        # A timer may fire a hair early: the same tick must not come twice.
        tick = max(math.floor(elapsed_s / self._interval_s), tick) + 1
        await self._sleep(tick * self._interval_s - elapsed_s)
        return tick

    def at(self, tick: int) -> bytes:
        """The update of this tick, or of a later one that somebody has seen already."""
        if self._latest is None or self._tick < tick:
            self._tick, self._latest = tick, self._compute()
        return self._latest
