"""Fans out the updates of StreamMetrics: one computation and one encoding per tick for all subscribers."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager

from routing.rpc.requests import MetricsRequest

SENDS_PER_TURN = 16
"""Updates sent in one turn of the event loop, each some 0.1 ms. Fewer cost more in turns than they
save in latency; more let a call that arrives meanwhile wait longer than it takes."""


class FairQueue:
    """Admits a few waiters in each turn of the event loop, in the order of their arrival.

    A thousand subscribers wake at the same tick, and sending to all of them takes a tenth of a
    second. With the queue, a call that arrives meanwhile waits for a few sends only.
    """

    def __init__(self, per_turn: int = SENDS_PER_TURN) -> None:
        self._per_turn = per_turn
        self._admitted = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<FairQueue waiting={len(self._waiting)}>"

    async def wait(self) -> None:
        """Returns once the caller is admitted: at once, unless many wait."""
        loop = asyncio.get_running_loop()
        if self._admitted < self._per_turn:
            if not self._admitted:
                loop.call_soon(self._next_turn)
            self._admitted += 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next_turn(self) -> None:
        self._admitted = 0
        while self._waiting and self._admitted < self._per_turn:
            turn = self._waiting.popleft()
            if not turn.done():  # done already where the waiter was cancelled
                turn.set_result(None)
                self._admitted += 1
        if self._admitted:
            asyncio.get_running_loop().call_soon(self._next_turn)


class Updates:
    """The updates of one request: one computation per tick for all its subscribers.

    Ticks are an interval apart, counted from the first subscriber. Each subscriber sleeps until the
    next tick; the first to wake computes the update, the others reuse it. One that is slow to send
    an update skips the ticks in between, so there is no backlog.
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
        """Waits for the next tick after now and after `tick`."""
        elapsed_s = self._monotonic() - self._started_at
        # A timer may fire slightly early; `max` prevents returning the same tick twice.
        tick = max(math.floor(elapsed_s / self._interval_s), tick) + 1
        await self._sleep(tick * self._interval_s - elapsed_s)
        return tick

    def at(self, tick: int) -> bytes:
        """The update of this tick, or a later one that another subscriber has computed."""
        if self._latest is None or self._tick < tick:
            self._tick, self._latest = tick, self._compute()
        return self._latest


class FanOut:
    """The open metrics streams, grouped by request.

    `compute` returns the encoded update of a request at the current time. State: for each distinct
    request of an open stream, the updates that its subscribers share.
    """

    def __init__(
        self,
        compute: Callable[[MetricsRequest], bytes],
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._compute = compute
        self._monotonic = monotonic
        self._sleep = sleep
        self._updates: dict[MetricsRequest, Updates] = {}
        self._sends = FairQueue()

    def __repr__(self) -> str:
        return f"<FanOut streams={self.streams} requests={len(self._updates)}>"

    @property
    def streams(self) -> int:
        """The number of open streams."""
        return sum(updates.subscribers for updates in self._updates.values())

    async def subscribe(self, request: MetricsRequest) -> AsyncGenerator[bytes, None]:
        """An update now, and one at each tick."""
        with self._shared_updates(request) as updates:
            yield self._compute(request)
            tick = 0
            while True:  # ticks are shared, so the first wait may be shorter than the interval
                tick = await updates.next_tick(tick)
                await self._sends.wait()
                yield updates.at(tick)

    @contextmanager
    def _shared_updates(self, request: MetricsRequest) -> Iterator[Updates]:
        updates = self._updates.get(request)
        if updates is None:
            updates = self._updates[request] = Updates(
                request.interval_s,
                lambda: self._compute(request),
                monotonic=self._monotonic,
                sleep=self._sleep,
            )
        updates.subscribers += 1
        try:
            yield updates
        finally:
            updates.subscribers -= 1
            if not updates.subscribers:
                del self._updates[request]
