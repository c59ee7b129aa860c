"""grpc.health.v1: whether the server accepts calls, as a single answer or as a stream of changes."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from routing_pb.grpc.health.v1 import (
    HealthBase,
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from routing_pb.grpc.health.v1 import (
    HealthCheckResponseServingStatus as ServingStatus,
)

from routing.errors import LimitReached, NotServed, listed, shown

MAX_WATCHERS = 1024
"""Load balancers watch once per connection. More are most likely a client's leak, and each one
keeps a call open indefinitely."""


class Health(HealthBase):
    """The health of the named services, and of the server as a whole under the empty name.

    A service may be NOT_SERVING alone; the empty name says whether the server accepts calls.
    """

    def __init__(self, services: Iterable[str], *, max_watchers: int = MAX_WATCHERS) -> None:
        self._serving = dict.fromkeys(("", *sorted(services)), True)
        self._max_watchers = max_watchers
        self._watchers = 0
        # Set at the next change, which wakes all watchers, and then replaced by a new one.
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Health serving={all(self._serving.values())} watchers={self._watchers}>"

    def set_serving(self, serving: bool, *services: str) -> None:
        """Sets the health of these services, or of all, and wakes the watchers if it changes."""
        before = dict(self._serving)
        self._serving.update(dict.fromkeys(services or before, serving))
        if self._serving != before:
            self._changed.set()
            self._changed = asyncio.Event()

    async def check(self, message: HealthCheckRequest) -> HealthCheckResponse:
        if message.service not in self._serving:
            served = listed(name for name in self._serving if name)
            raise NotServed(f"service: {shown(message.service)} is not served; served are {served}")
        return HealthCheckResponse(self._status(message.service))

    async def list(self, message: HealthListRequest) -> HealthListResponse:  # noqa: ARG002 - an empty message
        return HealthListResponse({name: HealthCheckResponse(self._status(name)) for name in self._serving})

    async def watch(self, message: HealthCheckRequest) -> AsyncIterator[HealthCheckResponse]:
        if self._watchers >= self._max_watchers:
            raise LimitReached(f"{self._max_watchers:,} health watchers already; no more are accepted")
        self._watchers += 1
        sent = None
        try:
            while True:
                # Read before the yield, so a change while a slow client reads is not missed.
                changed, status = self._changed, self._status(message.service)
                if status != sent:
                    sent = status
                    yield HealthCheckResponse(status)
                await changed.wait()
        finally:
            self._watchers -= 1

    def _status(self, service: str) -> ServingStatus:
        if service not in self._serving:
            return ServingStatus.SERVICE_UNKNOWN
        return ServingStatus.SERVING if self._serving[service] else ServingStatus.NOT_SERVING
