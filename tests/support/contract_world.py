"""A server of the contract in memory, with a clock that goes on only when told."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import Any

from grpclib.client import Channel

from routing import wire
from routing.core.model import Backend
from routing.core.router import Router
from routing.rpc.calls import Admit, Calls
from routing.rpc.service import RoutingService
from routing.store import NullStore
from support.grpc_calls import ManualTime, in_memory

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()


class World:
    """A real client and server; the four calls in short, and the time."""

    def __init__(
        self, channel: Channel, router: Router, calls: Calls, clock: list[float], ticks: ManualTime
    ) -> None:
        self.channel = channel
        self.router = router
        self.calls = calls
        self.ticks = ticks
        self._clock = clock
        self._stub = wire.RoutingServiceStub(channel)

    @property
    def now(self) -> float:
        return self._clock[0]

    def wait(self, seconds: float) -> None:
        """Lets the server's time of day go on."""
        self._clock[0] += seconds

    async def select(
        self,
        *,
        metadata: Mapping[str, Any] | None = None,
        at: tuple[float, float, str] | None = None,
        **fields: Any,
    ) -> wire.SelectBackendResponse:
        message = wire.SelectBackendRequest(
            metadata=None if metadata is None else wire.write_struct(metadata),
            client_location=None if at is None else wire.SelectBackendRequestGeoLocation(*at),
            **fields,
        )
        return await self._stub.select_backend(message)

    async def record(
        self,
        backend_id: str = "",
        *,
        success: bool = True,
        ago_s: float | None = None,
        caller: str = "",
        **fields: Any,
    ) -> wire.RecordOutcomeResponse:
        timestamp = None if ago_s is None else wire.write_time(self.now - ago_s)
        message = wire.RecordOutcomeRequest(backend_id, success=success, timestamp=timestamp, **fields)
        return await self._stub.record_outcome(
            message, metadata={"authorization": caller} if caller else None
        )

    async def insights(self, **fields: Any) -> wire.GetInsightsResponse:
        return await self._stub.get_insights(wire.GetInsightsRequest(**fields))

    def updates(self, **fields: Any) -> AsyncIterator[wire.MetricsUpdate]:
        return self._stub.stream_metrics(wire.StreamMetricsRequest(**fields))

    async def update(self, **fields: Any) -> wire.MetricsUpdate:
        """The first update of a stream that is then left."""
        stream = self.updates(**fields)
        try:
            return await anext(stream)
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    async def metrics(self, **fields: Any) -> dict[str, Any]:
        return wire.read_struct((await self.update(**fields)).metrics)

    async def state(self, backend_id: str) -> str:
        backends = (await self.metrics(include_backends=True))["backends"]
        return str(backends[backend_id]["state"])

    async def factors(self, **fields: Any) -> dict[str, float]:
        """The factor scores of the choice, which most tests make a choice of one."""
        return wire.read_struct((await self.select(**fields)).factor_scores)


@asynccontextmanager
async def world(
    *backends: Backend, seed: int = 0, admit: Admit | None = None, **options: Any
) -> AsyncIterator[World]:
    """A server that knows these backends, with these options of the router."""
    clock, ticks = [NOON], ManualTime()
    router = Router(backends, random=Random(seed), **options)
    service = RoutingService(
        router,
        NullStore(),
        clock=lambda: clock[0],
        version="1.2.3",
        monotonic=ticks.monotonic,
        sleep=ticks.sleep,
    )
    calls = Calls(wire.Codec(), admit=admit)
    async with in_memory(calls, service) as channel:
        yield World(channel, router, calls, clock, ticks)
