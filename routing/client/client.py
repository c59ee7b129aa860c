"""The asynchronous client: a method for each RPC, and two that also report outcomes."""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

from grpclib.client import Channel

from routing import wire
from routing.client import messages
from routing.client.connection import ClientConnection, bearer
from routing.client.retries import RetryingCaller
from routing.client.target import Tls, opener
from routing.client.trial import Measured, Trial, noted
from routing.client.values import Acknowledgement, Insights, Metrics, Selection
from routing.contract import DEFAULT_TARGET
from routing.core.model import Location, Outcome
from routing.errors import InvalidArgument, RoutingError

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Asked(TypedDict, total=False):
    """The arguments of `select`, for the methods that call it."""

    content_hash: str
    content_type: str
    size_bytes: int
    metadata: Mapping[str, Any] | None
    strategy: str
    priority: str
    available_backends: Sequence[str]
    location: Location | None
    request_id: str | None
    at: datetime | None
    explain: bool
    timeout_seconds: float | None


class RoutingClient:
    """A client of one routing server; its methods take and return plain values.

    It connects with the first call, uses one connection for all calls, and reconnects when
    that is lost. If the server is unavailable or sends a retry delay, the call is retried after
    a random wait, at most `retries` times and within its deadline; other errors are not retried.
    It belongs to one event loop; use it with `async with`, or close it with `aclose`.

    `target` is HOST:PORT, or a grpclib channel with `wire.Codec`, which the client does not
    close. `tls` True verifies the server with the system's certificates. `token` is sent as a
    bearer token.
    """

    def __init__(
        self,
        target: str | Channel = DEFAULT_TARGET,
        *,
        tls: Tls = False,
        token: str | None = None,
        timeout_seconds: float = 10.0,
        retries: int = 4,
        dice: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = ClientConnection(
            (lambda: target) if isinstance(target, Channel) else opener(target, tls),
            bearer(token),
            name=str(target),
            owned=isinstance(target, str),
        )
        self._calls = RetryingCaller(
            self._connection, timeout_seconds=timeout_seconds, retries=retries, dice=dice, sleep=sleep
        )
        self._clock = clock
        self._unrecorded = 0

    def __repr__(self) -> str:
        return f"<RoutingClient on {self._connection!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connection; open calls end with ClientClosed."""
        await self._connection.aclose()

    @property
    def unrecorded(self) -> int:
        """The number of outcomes that `route` and `attempt` could not report; each is logged."""
        return self._unrecorded

    async def select(
        self,
        *,
        content_hash: str = "",
        content_type: str = "",
        size_bytes: int = 0,
        metadata: Mapping[str, Any] | None = None,
        strategy: str = "",
        priority: str = "",
        available_backends: Sequence[str] = (),
        location: Location | None = None,
        request_id: str | None = None,
        at: datetime | None = None,
        explain: bool = False,
        timeout_seconds: float | None = None,
    ) -> Selection:
        """Selects one backend. Raises NoBackend, with the reason for each, if none is eligible.

        Without `request_id` the client generates one, which links outcomes to the decision.
        """
        request = wire.SelectBackendRequest(
            content_hash=content_hash,
            content_type=content_type,
            content_size=messages.whole("size_bytes", size_bytes, bits=64),
            metadata=None if metadata is None else wire.write_struct(metadata),
            strategy=strategy,
            priority=priority,
            available_backends=messages.names("available_backends", available_backends),
            client_location=messages.write_location(location),
            request_id=uuid.uuid4().hex if request_id is None else request_id,
            timestamp=messages.moment("at", at),
            explain=explain,
        )
        return messages.read_selection(await self._calls.unary(messages.SELECT, request, timeout_seconds))

    async def record(
        self,
        backend_id: str,
        success: bool,
        *,
        request_id: str = "",
        content_hash: str = "",
        content_type: str = "",
        size_bytes: int = 0,
        duration_ms: float | None = None,
        error: str = "",
        fault: str = "",
        at: datetime | None = None,
        timeout_seconds: float | None = None,
    ) -> Acknowledgement:
        """Reports the outcome of an operation; `request_id` is that of its selection.

        `duration_ms` None means not measured, `at` None means now. `fault` says what caused a
        failure: "backend" (or empty), "caller" or "content". The server counts one outcome
        for each request and backend, so a retry counts once.
        """
        outcome = Outcome(
            backend_id=backend_id,
            success=success,
            content_hash=content_hash,
            content_type=content_type,
            size_bytes=size_bytes,
            duration_ms=None if duration_ms is None else round(duration_ms),
            error=error,
            happened_at=wire.read_time(messages.moment("at", at)),
            request_id=request_id,
            fault=fault,
        )
        return await self._record(outcome, timeout_seconds)

    async def insights(
        self,
        *,
        backend_id: str = "",
        content_type: str = "",
        hours: int = 0,
        timeout_seconds: float | None = None,
    ) -> Insights:
        """Aggregates over the last `hours` (0 means 24), for one backend or content type if given."""
        request = wire.GetInsightsRequest(
            backend_id=backend_id,
            content_type=content_type,
            time_window_hours=messages.whole("hours", hours, bits=32),
        )
        return messages.read_insights(await self._calls.unary(messages.INSIGHTS, request, timeout_seconds))

    async def metrics(
        self,
        *,
        interval_seconds: int = 1,
        sections: Sequence[str] = (),
        include_backends: bool = False,
        include_content_types: bool = False,
    ) -> AsyncGenerator[Metrics, None]:
        """Yields updates until the caller stops; reconnects whenever the connection is lost.

        After a first update the number of retries is unlimited; before it, the limit is that
        of a call. The connection counts as lost if an update is overdue by the timeout.
        """
        request = wire.StreamMetricsRequest(
            update_interval_seconds=messages.whole("interval_seconds", interval_seconds, bits=32),
            metrics_types=messages.names("sections", sections),
            include_backends=include_backends,
            include_content_types=include_content_types,
        )
        stream = self._calls.stream(messages.METRICS, request, interval_s=max(interval_seconds, 1))
        async with aclosing(stream) as updates:
            async for update in updates:
                yield messages.read_metrics(update)

    @asynccontextmanager
    async def route(self, **asked: Unpack[Asked]) -> AsyncIterator[Trial]:
        """Selects, measures the block and reports its outcome. Takes the arguments of `select`.

        A block that raises is a failure; a cancelled block is not reported. Put a timeout
        inside the block: around it, it is a cancellation. An outcome that cannot be reported
        is logged and counted in `unrecorded`; the block is not affected.
        """
        selection = await self.select(**asked)
        async with self._measured(selection, selection.backend_id, asked) as trial:
            yield trial

    async def attempt(
        self,
        operation: Callable[[str], Awaitable[Result]],
        *,
        attempts: int = 3,
        fault: Callable[[Exception], str] | None = None,
        **asked: Unpack[Asked],
    ) -> Result:
        """Calls `operation(backend_id)` for the selected backend, then for the alternatives, best
        first, until one succeeds; reports every outcome as `route` does.

        `fault` maps an exception to its fault, as in `record`; without it, it is the backend's.

        If all tries raise, the last exception is raised, with a note for each earlier one.
        """
        if attempts < 1:
            raise InvalidArgument("attempts", attempts, "1 or more")
        selection = await self.select(**asked)
        failures: list[Exception] = []
        for backend_id in selection.backend_ids[:attempts]:
            async with self._measured(selection, backend_id, asked, failures, fault):
                return await operation(backend_id)
        raise noted(failures)

    def _measured(
        self,
        selection: Selection,
        backend_id: str,
        asked: Asked,
        failures: list[Exception] | None = None,
        fault: Callable[[Exception], str] | None = None,
    ) -> Measured:
        trial = Trial(selection, backend_id, asked, started_s=self._clock(), fault=fault)
        return Measured(trial, self._report, self._clock, failures)

    async def _record(self, outcome: Outcome, timeout_seconds: float | None = None) -> Acknowledgement:
        request = messages.write_outcome(outcome)
        return messages.read_acknowledgement(
            await self._calls.unary(messages.RECORD, request, timeout_seconds)
        )

    async def _report(self, outcome: Outcome) -> None:
        recorded = False
        try:
            acknowledgement = await self._record(outcome)
            recorded, why = acknowledgement.recorded, acknowledgement.message
        except RoutingError as error:
            why = str(error)
        finally:
            self._unrecorded += not recorded
        if not recorded:
            log.warning("outcome not recorded backend=%s reason=%s", outcome.backend_id, why)
