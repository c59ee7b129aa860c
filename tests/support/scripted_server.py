"""A server that answers what the test wrote down, and clients that need not wait for it."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.testing import ChannelFor

from routing import wire
from routing.client import Metrics, RoutingClient

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

UNAVAILABLE = GRPCError(Status.UNAVAILABLE, "gone for a moment")


def chosen(backend_id: str = "s3", *others: str, **fields: Any) -> wire.SelectBackendResponse:
    return wire.SelectBackendResponse(
        backend_id=backend_id,
        score=0.5,
        alternatives=[wire.SelectBackendResponseAlternative(other, 0.25) for other in others],
        **{"request_id": "r1", "timestamp": AT, **fields},
    )


def recorded(success: bool = True, message: str = "") -> wire.RecordOutcomeResponse:
    return wire.RecordOutcomeResponse(success=success, message=message, timestamp=AT)


class Script(wire.RoutingServiceBase):
    """Answers in the order given, the last one for ever; keeps what it was asked.

    An answer that is an exception is raised, one that can be awaited is awaited first.
    """

    def __init__(self, **answers: Any) -> None:
        self._answers = {
            name: list(each) if isinstance(each, list) else [each] for name, each in answers.items()
        }
        self.asked: dict[str, list[Any]] = {}
        self._was_asked = asyncio.Event()

    async def _answer(self, name: str, message: Any) -> Any:
        self.asked.setdefault(name, []).append(message)
        self._was_asked.set()
        answers = self._answers[name]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = await answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def select_backend(self, message: wire.SelectBackendRequest) -> wire.SelectBackendResponse:
        return await self._answer("select", message)

    async def record_outcome(self, message: wire.RecordOutcomeRequest) -> wire.RecordOutcomeResponse:
        return await self._answer("record", message)

    async def get_insights(self, message: wire.GetInsightsRequest) -> wire.GetInsightsResponse:
        return await self._answer("insights", message)

    async def stream_metrics(self, message: wire.StreamMetricsRequest) -> AsyncIterator[wire.MetricsUpdate]:
        for update in await self._answer("metrics", message):
            if isinstance(update, Exception):
                raise update
            yield update

    async def is_asked(self) -> None:
        """Returns once it was asked for anything."""
        async with asyncio.timeout(10):
            await self._was_asked.wait()


def update(number: float) -> wire.MetricsUpdate:
    return wire.MetricsUpdate(metrics=wire.write_struct({"success_rates": {"s3": number}}), timestamp=AT)


def number(metrics: Metrics) -> float:
    assert metrics.success_rates is not None
    return metrics.success_rates["s3"]


class Endless(Script):
    """Updates for ever; knows when its listener has left."""

    def __init__(self) -> None:
        super().__init__()
        self.left = asyncio.Event()

    async def stream_metrics(self, message: wire.StreamMetricsRequest) -> AsyncIterator[wire.MetricsUpdate]:
        try:
            while True:
                yield update(0.1)
                await asyncio.sleep(0)
        finally:
            self.left.set()


async def forever() -> None:
    await asyncio.Event().wait()


class Waits:
    """A sleep that does not: it keeps what it was asked for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Highest(random.Random):
    """Dice that always show the most."""

    def uniform(self, a: float, b: float) -> float:
        return b


@asynccontextmanager
async def client_of(script: Script, **options: Any) -> AsyncIterator[RoutingClient]:
    """A client of this script, in memory."""
    options = {"sleep": Waits(), "dice": Highest(), **options}
    async with (
        ChannelFor([script], codec=wire.Codec()) as channel,
        RoutingClient(channel, **options) as client,
    ):
        yield client
