"""The synchronous RoutingClient, for scripts and threads.

The asynchronous client runs in an event loop on its own thread; each method here submits one
call to it and waits. Operations and blocks run in the calling thread.
"""

import functools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from routing.client.client import Asked
from routing.client.client import RoutingClient as AsyncClient
from routing.client.errors import ClientClosed
from routing.client.loop_thread import LoopThread
from routing.client.target import Tls
from routing.client.trial import Trial, noted
from routing.client.values import Selection
from routing.contract import DEFAULT_TARGET
from routing.core.model import Outcome
from routing.errors import InvalidArgument

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Given = ParamSpec("Given")


def _waiting(
    method: Callable[Concatenate[AsyncClient, Given], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate["RoutingClient", Given], Result]:
    """The asynchronous client's method, as one that waits for the result."""

    @functools.wraps(method)
    def call(self: "RoutingClient", /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        return self._loop.wait(lambda client: method(client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[AsyncClient, Given], AsyncGenerator[Result, None]],
) -> Callable[Concatenate["RoutingClient", Given], Generator[Result, None, None]]:
    """The asynchronous client's iterator, as one that waits for each item."""

    @functools.wraps(method)
    def iterate(
        self: "RoutingClient", /, *args: Given.args, **kwargs: Given.kwargs
    ) -> Generator[Result, None, None]:
        async def begin(client: AsyncClient) -> AsyncGenerator[Result, None]:
            return method(client, *args, **kwargs)

        items = self._loop.wait(begin)

        async def following(_: AsyncClient) -> Result | None:
            return await anext(items, None)

        async def leave(_: AsyncClient) -> None:
            await items.aclose()

        try:
            while (item := self._loop.wait(following)) is not None:
                yield item
        finally:
            # No wait here: the garbage collector may run this in the loop's own thread.
            with suppress(ClientClosed):
                self._loop.submit(leave)

    return iterate


class RoutingClient:
    """`routing.client.RoutingClient` without `await`.

    Threads may share one client. Its own thread starts with the first call and ends with
    `close` or the `with` block. Ctrl-C cancels the call that is waited for.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        tls: Tls = False,
        token: str | None = None,
        timeout_seconds: float = 10.0,
        retries: int = 4,
    ) -> None:
        self._loop = LoopThread[AsyncClient](
            AsyncClient(target, tls=tls, token=token, timeout_seconds=timeout_seconds, retries=retries)
        )

    @classmethod
    def of(cls, client: AbstractAsyncContextManager[AsyncClient]) -> Self:
        """The synchronous client around this asynchronous one, which must not be entered yet."""
        twin = cls.__new__(cls)
        twin._loop = LoopThread(client)
        return twin

    def __repr__(self) -> str:
        return f"<sync.RoutingClient on {self._loop!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection and ends the thread; calls of other threads end with ClientClosed."""
        self._loop.close()

    select = _waiting(AsyncClient.select)
    record = _waiting(AsyncClient.record)
    insights = _waiting(AsyncClient.insights)
    metrics = _iterating(AsyncClient.metrics)
    _report = _waiting(AsyncClient._report)

    @property
    def unrecorded(self) -> int:
        """The number of outcomes that `route` and `attempt` could not report; each is logged."""

        async def count(client: AsyncClient) -> int:
            return client.unrecorded

        return self._loop.wait(count)

    @contextmanager
    def route(self, **asked: Unpack[Asked]) -> Iterator[Trial]:
        """Selects, measures the block and reports its outcome, as the asynchronous method does.

        A block that ends by Ctrl-C or SystemExit is not reported.
        """
        selection = self.select(**asked)
        with self._measured(selection, selection.backend_id, asked) as trial:
            yield trial

    def attempt(
        self,
        operation: Callable[[str], Result],
        *,
        attempts: int = 3,
        fault: Callable[[Exception], str] | None = None,
        **asked: Unpack[Asked],
    ) -> Result:
        """Calls `operation(backend_id)` in this thread, for the selected backend, then for the
        alternatives, until one succeeds; reports every outcome. `fault` maps an exception to
        its fault, as in `record`; without it, it is the backend's.

        If all tries raise, the last exception is raised, with a note for each earlier one.
        """
        if attempts < 1:
            raise InvalidArgument("attempts", attempts, "1 or more")
        selection = self.select(**asked)
        failures: list[Exception] = []
        for backend_id in selection.backend_ids[:attempts]:
            with self._measured(selection, backend_id, asked, failures, fault):
                return operation(backend_id)
        raise noted(failures)

    def _measured(
        self,
        selection: Selection,
        backend_id: str,
        asked: Asked,
        failures: list[Exception] | None = None,
        fault: Callable[[Exception], str] | None = None,
    ) -> "_Measured":
        trial = Trial(selection, backend_id, asked, started_s=time.monotonic(), fault=fault)
        return _Measured(trial, self._report, failures)


class _Measured:
    """The synchronous `trial.Measured`: runs in the thread of the block."""

    __slots__ = ("_failures", "_report", "_trial")

    def __init__(
        self, trial: Trial, report: Callable[[Outcome], None], failures: list[Exception] | None
    ) -> None:
        self._trial = trial
        self._report = report
        self._failures = failures

    def __enter__(self) -> Trial:
        return self._trial

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> bool:
        outcome = self._trial.outcome(raised, now_s=time.monotonic())
        if outcome is not None:
            try:
                self._report(outcome)
            except ClientClosed as error:  # closed by the block itself, or by another thread
                log.warning("outcome not recorded backend=%s reason=%s", outcome.backend_id, error)
        if self._failures is None or not isinstance(raised, Exception):
            return False
        self._failures.append(raised)
        return True
