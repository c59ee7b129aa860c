"""The RPC handlers: read, ask the router, write."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

from routing import wire
from routing.convert import (
    MetricsRequest,
    read_insights_request,
    read_metrics_request,
    read_outcome,
    read_query,
    write_decision,
    write_insights,
    write_metrics,
    write_recorded,
)
from routing.core.model import Decision, Outcome, Recorded
from routing.core.report import Insights, Metrics, SystemFacts, gathering, insights, metrics
from routing.core.router import Router
from routing.decided import DecisionWriter
from routing.reported import ReportWriter

SENDS_PER_TURN = 16
"""Updates sent in one turn of the event loop, each some 0.1 ms. Fewer turns cost more than they
give; more let a call that comes meanwhile wait longer than it takes."""


class RequestClock:
    """Time as the requests tell it, for replaying a trace faster than it happened.

    Stands at 0 until the first timestamp; never runs backwards.

    >>> clock = RequestClock()
    >>> clock.advance(100.0); clock.advance(40.0); clock.advance(None)
    >>> clock()
    100.0
    """

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def __repr__(self) -> str:
        return f"<RequestClock now={self._now}>"

    def advance(self, seconds: float | None) -> None:
        """Moves to this time, if it is given and later."""
        if seconds is not None:
            self._now = max(self._now, seconds)


class Store(Protocol):
    """Who hears of every decision and outcome, and says when an outcome may be answered."""

    def decided(self, decision: Decision) -> None: ...

    async def reported(self, outcome: Outcome, recorded: Recorded, *, now: float) -> Recorded: ...


class Turns:
    """Lets few go on in each turn of the event loop, in the order in which they came.

    A thousand listeners wake at the same tick, and sending to all of them takes a tenth of
    a second. In turns, whoever calls meanwhile waits for a few sends, not for all.
    """

    def __init__(self, most: int = SENDS_PER_TURN) -> None:
        self._most = most
        self._going = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<Turns waiting={len(self._waiting)}>"

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


class Update:
    """What there is to tell at one moment, as a message and as its bytes: each made once, when
    the first listener is there to get it."""

    def __init__(self, metrics: Metrics, now: float, reports: ReportWriter) -> None:
        self._metrics = metrics
        self._now = now
        self._reports = reports

    @cached_property
    def message(self) -> wire.MetricsUpdate:
        return write_metrics(self._metrics, now=self._now)

    @cached_property
    def encoded(self) -> bytes:
        return self._reports.metrics(self._metrics, now=self._now)


class Updates:
    """The updates of one option set: one computation per tick, however many listen.

    Ticks lie an interval apart, counted from the first listener. Each listener sleeps
    to the next tick; the first to wake computes the update, the others find it done.
    One that is slow to take an update misses those in between, so nothing piles up.
    """

    def __init__(
        self,
        interval_s: float,
        compute: Callable[[], Update],
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.listeners = 0
        self._interval_s = interval_s
        self._compute = compute
        self._monotonic = monotonic
        self._sleep = sleep
        self._started_at = monotonic()
        self._tick = 0
        self._latest: Update | None = None

    async def next_tick(self, tick: int) -> int:
        """Waits for the first tick that is still to come, and later than `tick`."""
        elapsed_s = self._monotonic() - self._started_at
        # A timer may fire a hair early: the same tick must not come twice.
        tick = max(math.floor(elapsed_s / self._interval_s), tick) + 1
        await self._sleep(tick * self._interval_s - elapsed_s)
        return tick

    def at(self, tick: int) -> Update:
        """The update of this tick, or of a later one that somebody has seen already."""
        if self._latest is None or self._tick < tick:
            self._tick, self._latest = tick, self._compute()
        return self._latest


class RoutingService(wire.RoutingServiceBase):
    """The contract's four methods on one router.

    `clock` tells the time of day, in Unix seconds; waits and durations go by
    `monotonic` and `sleep`, whatever the clock does.
    """

    def __init__(
        self,
        router: Router,
        store: Store,
        *,
        clock: Callable[[], float],
        version: str,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._router = router
        self._store = store
        self._clock = clock
        self._version = version
        self._monotonic = monotonic
        self._sleep = sleep
        self._started_at = monotonic()
        self._codec = wire.Codec()
        self._decisions = DecisionWriter()
        self._reports = ReportWriter()
        # Grows with the option sets that somebody listens to, and falls with them.
        self._updates: dict[MetricsRequest, Updates] = {}
        # Those among them whose tick has come, and who wait to send.
        self._turns = Turns()

    def __repr__(self) -> str:
        return f"<RoutingService streams={self.active_streams} option_sets={len(self._updates)}>"

    @property
    def active_streams(self) -> int:
        """How many listen to metrics now."""
        return sum(updates.listeners for updates in self._updates.values())

    @property
    def encoded(self) -> Mapping[str, Callable[[Any], Any]]:
        """The methods that answer with bytes, by the name of those that do the same with messages."""
        return {
            "SelectBackend": self.select_backend_encoded,
            "GetInsights": self.get_insights_encoded,
            "StreamMetrics": self.stream_metrics_encoded,
        }

    async def select_backend(self, message: wire.SelectBackendRequest) -> wire.SelectBackendResponse:
        decision, now = self._decide(message)
        return write_decision(decision, explain=message.explain, now=now)

    async def select_backend_encoded(self, message: wire.SelectBackendRequest) -> bytes:
        """The same, as the bytes of the response."""
        decision, now = self._decide(message)
        if message.explain:
            response = write_decision(decision, explain=True, now=now)
            return self._codec.encode(response, wire.SelectBackendResponse)
        return self._decisions.write(decision, now=now)

    async def record_outcome(self, message: wire.RecordOutcomeRequest) -> wire.RecordOutcomeResponse:
        outcome = read_outcome(message)
        now = self._now(message.timestamp)
        recorded = self._router.record(outcome, now=now)
        return write_recorded(await self._store.reported(outcome, recorded, now=now), now=now)

    async def get_insights(self, message: wire.GetInsightsRequest) -> wire.GetInsightsResponse:
        shown, now = await self._insights(message)
        return write_insights(shown, now=now)

    async def get_insights_encoded(self, message: wire.GetInsightsRequest) -> bytes:
        """The same, as the bytes of the response."""
        shown, now = await self._insights(message)
        steps = self._reports.insights(shown, now=now)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return bytes(end.value)
            await asyncio.sleep(0)  # by backend and type it may be a quarter of a million numbers

    async def stream_metrics(self, message: wire.StreamMetricsRequest) -> AsyncIterator[wire.MetricsUpdate]:
        async with aclosing(self._updates_of(read_metrics_request(message))) as updates:
            async for update in updates:
                yield update.message

    async def stream_metrics_encoded(self, message: wire.StreamMetricsRequest) -> AsyncIterator[bytes]:
        """The same, as the bytes of the updates."""
        async with aclosing(self._updates_of(read_metrics_request(message))) as updates:
            async for update in updates:
                yield update.encoded

    async def _updates_of(self, asked: MetricsRequest) -> AsyncGenerator[Update, None]:
        with self._listening(asked) as updates:
            yield self._update(asked)
            tick = 0
            while True:  # so the first wait may be the shorter one: ticks are shared
                tick = await updates.next_tick(tick)
                await self._turns.wait()
                yield updates.at(tick)

    async def _insights(self, message: wire.GetInsightsRequest) -> tuple[Insights, float]:
        asked = read_insights_request(message)
        now = self._clock()
        for _ in gathering(self._router, content_type=asked.content_type, hours=asked.hours, now=now):
            await asyncio.sleep(0)  # let others have their turn: adding a week up takes a second
        shown = insights(
            self._router,
            backend_id=asked.backend_id,
            content_type=asked.content_type,
            hours=asked.hours,
            now=now,
        )
        return shown, now

    def _decide(self, message: wire.SelectBackendRequest) -> tuple[Decision, float]:
        query = read_query(message)
        now = self._now(message.timestamp)
        decision = self._router.select(query, now=now)
        self._store.decided(decision)
        return decision, now

    def _now(self, told: datetime | None) -> float:
        """The clock, after a request has told it the time, if it is one that can be told."""
        if isinstance(self._clock, RequestClock):
            self._clock.advance(wire.read_time(told))
        return self._clock()

    @contextmanager
    def _listening(self, asked: MetricsRequest) -> Iterator[Updates]:
        updates = self._updates.get(asked)
        if updates is None:
            updates = self._updates[asked] = Updates(
                asked.interval_s,
                lambda: self._update(asked),
                monotonic=self._monotonic,
                sleep=self._sleep,
            )
        updates.listeners += 1
        try:
            yield updates
        finally:
            updates.listeners -= 1
            if not updates.listeners:
                del self._updates[asked]

    def _update(self, asked: MetricsRequest) -> Update:
        now = self._clock()
        shown = metrics(
            self._router,
            sections=asked.sections,
            include_backends=asked.include_backends,
            include_content_types=asked.include_content_types,
            system=SystemFacts(self._monotonic() - self._started_at, self.active_streams, self._version),
            now=now,
        )
        return Update(shown, now, self._reports)
