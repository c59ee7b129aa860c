"""The RPC handlers: read, ask the router, write."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import datetime
from typing import Protocol

from routing import wire
from routing.clock import RequestClock
from routing.core.model import Decision, Outcome, Recorded
from routing.core.report import Insights, SystemFacts, gathering, insights, metrics
from routing.core.router import Router
from routing.rpc.requests import (
    MetricsRequest,
    read_insights_request,
    read_metrics_request,
    read_outcome,
    read_query,
)
from routing.rpc.responses import (
    DecisionWriter,
    ReportWriter,
    write_decision,
    write_recorded,
)
from routing.rpc.streaming import FairQueue, Updates


class EventSink(Protocol):
    """Who hears of every decision and outcome, and says when an outcome may be answered."""

    def note_decision(self, decision: Decision) -> None: ...

    async def note_outcome(self, outcome: Outcome, recorded: Recorded, *, now: float) -> Recorded: ...


class RoutingService(wire.RoutingServiceBase):
    """The contract's four methods on one router.

    `clock` tells the time of day, in Unix seconds; waits and durations go by
    `monotonic` and `sleep`, whatever the clock does.
    """

    def __init__(
        self,
        router: Router,
        sink: EventSink,
        *,
        clock: Callable[[], float],
        version: str,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._router = router
        self._sink = sink
        self._clock = clock
        self._version = version
        self._monotonic = monotonic
        self._sleep = sleep
        self._started_at = monotonic()
        self._codec = wire.Codec()
        self._decisions = DecisionWriter()
        self._reports = ReportWriter()
        # One for each option set that has a subscriber now.
        self._updates: dict[MetricsRequest, Updates] = {}
        # Those among them whose tick has come, and who wait to send.
        self._turns = FairQueue()

    def __repr__(self) -> str:
        return f"<RoutingService streams={self.active_streams} option_sets={len(self._updates)}>"

    @property
    def active_streams(self) -> int:
        """How many listen to metrics now."""
        return sum(updates.subscribers for updates in self._updates.values())

    # These three answer with the bytes of their message: as messages, a choice costs thirty objects and a
    # report about a thousand backends fifteen thousand.

    async def select_backend(  # type: ignore[override]  # `rpc.calls` takes bytes for any message
        self, message: wire.SelectBackendRequest
    ) -> bytes:
        query = read_query(message)
        now = self._now(message.timestamp)
        decision = self._router.select(query, now=now)
        self._sink.note_decision(decision)
        if message.explain:
            response = write_decision(decision, explain=True, now=now)
            return self._codec.encode(response, wire.SelectBackendResponse)
        return self._decisions.write(decision, now=now)

    async def record_outcome(self, message: wire.RecordOutcomeRequest) -> wire.RecordOutcomeResponse:
        outcome = read_outcome(message)
        now = self._now(message.timestamp)
        recorded = self._router.record(outcome, now=now)
        return write_recorded(await self._sink.note_outcome(outcome, recorded, now=now), now=now)

    async def get_insights(  # type: ignore[override]  # as select_backend
        self, message: wire.GetInsightsRequest
    ) -> bytes:
        shown, now = await self._insights(message)
        steps = self._reports.insights(shown, now=now)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return bytes(end.value)
            await asyncio.sleep(0)  # by backend and type it may be a quarter of a million numbers

    async def stream_metrics(  # type: ignore[override]  # as select_backend
        self, message: wire.StreamMetricsRequest
    ) -> AsyncIterator[bytes]:
        async with aclosing(self._updates_of(read_metrics_request(message))) as updates:
            async for update in updates:
                yield update

    async def _updates_of(self, asked: MetricsRequest) -> AsyncGenerator[bytes, None]:
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

    def _now(self, timestamp: datetime | None) -> float:
        """The clock; a request clock first advances to the request's own timestamp."""
        if isinstance(self._clock, RequestClock):
            self._clock.advance(wire.read_time(timestamp))
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
        updates.subscribers += 1
        try:
            yield updates
        finally:
            updates.subscribers -= 1
            if not updates.subscribers:
                del self._updates[asked]

    def _update(self, asked: MetricsRequest) -> bytes:
        now = self._clock()
        shown = metrics(
            self._router,
            sections=asked.sections,
            include_backends=asked.include_backends,
            include_content_types=asked.include_content_types,
            system=SystemFacts(self._monotonic() - self._started_at, self.active_streams, self._version),
            now=now,
        )
        return self._reports.metrics(shown, now=now)
