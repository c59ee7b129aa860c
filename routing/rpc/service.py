"""The handlers of the four RPCs: read the request, ask the router, write the response."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Protocol

from routing import wire
from routing.clock import RequestClock, SystemClock
from routing.core.model import Decision, Outcome, Recorded
from routing.core.report import Insights, SystemFacts, insights, metrics, prepare
from routing.core.router import Router
from routing.rpc.caller import Caller
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
from routing.rpc.streaming import FanOut

log = logging.getLogger(__name__)


class EventSink(Protocol):
    """Receives every decision and outcome. `note_outcome` returns once the outcome may be acknowledged."""

    def note_decision(self, decision: Decision) -> None: ...

    async def note_outcome(self, outcome: Outcome, recorded: Recorded, *, now: float) -> Recorded: ...


class RoutingService(wire.RoutingServiceBase):
    """The contract's four methods on one router.

    `clock` returns Unix seconds; where it is a SystemClock, those of the router, and messages have those
    of the wall clock. Intervals and uptime use `monotonic` and `sleep`, so jumps of
    `clock` do not affect them. The core knows callers by their hash under `caller_key`.
    """

    def __init__(
        self,
        router: Router,
        sink: EventSink,
        *,
        clock: Callable[[], float],
        version: str,
        caller_key: bytes = b"",
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._router = router
        self._sink = sink
        self._clock = clock
        self._system_clock = clock if isinstance(clock, SystemClock) else None
        self._version = version
        self._caller_key = caller_key
        self._monotonic = monotonic
        self._started_at = monotonic()
        self._codec = wire.Codec()
        self._decisions = DecisionWriter()
        self._reports = ReportWriter()
        self._fan_out = FanOut(self._update, monotonic=monotonic, sleep=sleep)

    def __repr__(self) -> str:
        return f"<RoutingService {self._fan_out!r}>"

    @property
    def active_streams(self) -> int:
        """The number of open metrics streams."""
        return self._fan_out.streams

    # Three handlers return encoded bytes: as a message, a decision is thirty objects and a report about a
    # thousand backends fifteen thousand.

    async def select_backend(  # type: ignore[override]  # `rpc.calls` sends bytes as they are
        self, message: wire.SelectBackendRequest
    ) -> bytes:
        query = read_query(message)
        now = self._now(message.timestamp)
        decision = self._router.select(query, now=now)
        if self._router.mentions:
            self._log_mentions()
        self._sink.note_decision(decision)
        if message.explain:
            response = write_decision(decision, explain=True, now=self._wall_time(now))
            return self._codec.encode(response, wire.SelectBackendResponse)
        return self._decisions.write(decision, now=self._wall_time(now))

    async def record_outcome(
        self, message: wire.RecordOutcomeRequest, caller: Caller | None = None
    ) -> wire.RecordOutcomeResponse:
        digest = caller.digest(self._caller_key) if caller else ""
        ahead_s = 0.0 if message.timestamp is None else self._clock_ahead_s()
        outcome = read_outcome(message, caller=digest, clock_ahead_s=ahead_s)
        now = self._now(message.timestamp)
        recorded = self._router.record(outcome, now=now)
        if self._router.mentions:
            self._log_mentions()
        recorded = await self._sink.note_outcome(outcome, recorded, now=now)
        return write_recorded(recorded, now=self._wall_time(now))

    async def get_insights(  # type: ignore[override]  # as select_backend
        self, message: wire.GetInsightsRequest
    ) -> bytes:
        values, now = await self._insights(message)
        steps = self._reports.insights(values, now=self._wall_time(now))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return bytes(end.value)
            await asyncio.sleep(0)  # lets other calls run: there may be a quarter of a million numbers

    async def stream_metrics(  # type: ignore[override]  # as select_backend
        self, message: wire.StreamMetricsRequest
    ) -> AsyncIterator[bytes]:
        async with aclosing(self._fan_out.subscribe(read_metrics_request(message))) as updates:
            async for update in updates:
                yield update

    async def _insights(self, message: wire.GetInsightsRequest) -> tuple[Insights, float]:
        request = read_insights_request(message)
        now = self._clock()
        for _ in prepare(self._router, content_type=request.content_type, hours=request.hours, now=now):
            await asyncio.sleep(0)  # lets other calls run: summing a week takes a second
        values = insights(
            self._router,
            backend_id=request.backend_id,
            content_type=request.content_type,
            hours=request.hours,
            now=now,
        )
        return values, now

    def _log_mentions(self) -> None:
        """Logs the first mention of each name that is not configured: it may be mistyped."""
        for name, resembles in self._router.mentions:
            log.info("backend discovered name=%s resembles=%s", name, resembles or "none")
        self._router.mentions.clear()

    def _now(self, timestamp: datetime | None) -> float:
        """The time now; a request clock first advances to the request's timestamp."""
        if isinstance(self._clock, RequestClock):
            self._clock.advance(wire.read_time(timestamp))
        return self._clock()

    def _wall_time(self, now: float) -> float:
        """The time of day when the router's time is `now`, for a response."""
        return now if self._system_clock is None else now + self._system_clock.ahead_s

    def _clock_ahead_s(self) -> float:
        """How far the wall clock, and so a client's timestamp, is ahead of the router's time."""
        if self._system_clock is None:
            return 0.0
        self._system_clock()  # the wall clock may have jumped since the last reading
        return self._system_clock.ahead_s

    def _update(self, request: MetricsRequest) -> bytes:
        now = self._clock()
        values = metrics(
            self._router,
            sections=request.sections,
            include_backends=request.include_backends,
            include_content_types=request.include_content_types,
            system=SystemFacts(self._monotonic() - self._started_at, self.active_streams, self._version),
            now=now,
        )
        return self._reports.metrics(values, now=self._wall_time(now))
