"""The handlers of the four RPCs: read the request, ask the router, write the response."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Protocol

from routing import wire
from routing.clock import RequestClock
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

    `clock` returns Unix seconds. Intervals and uptime use `monotonic` and `sleep`, so jumps of
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
            response = write_decision(decision, explain=True, now=now)
            return self._codec.encode(response, wire.SelectBackendResponse)
        return self._decisions.write(decision, now=now)

    async def record_outcome(
        self, message: wire.RecordOutcomeRequest, caller: Caller | None = None
    ) -> wire.RecordOutcomeResponse:
        outcome = read_outcome(message, caller=caller.digest(self._caller_key) if caller else "")
        now = self._now(message.timestamp)
        recorded = self._router.record(outcome, now=now)
        if self._router.mentions:
            self._log_mentions()
        return write_recorded(await self._sink.note_outcome(outcome, recorded, now=now), now=now)

    async def get_insights(  # type: ignore[override]  # as select_backend
        self, message: wire.GetInsightsRequest
    ) -> bytes:
        values, now = await self._insights(message)
        steps = self._reports.insights(values, now=now)
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
        return self._reports.metrics(values, now=now)
