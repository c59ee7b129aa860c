"""An event loop on its own thread, with one context manager entered in it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

from routing.client.errors import ClientClosed

Resident = TypeVar("Resident")
Result = TypeVar("Result")


class LoopThread(Generic[Resident]):
    """Enters the context in the loop with the first call, and exits it when closed.

    Calls are submitted under the lock, and so before the request to stop: each one starts,
    and ends with its result or with ClientClosed.
    """

    def __init__(self, context: AbstractAsyncContextManager[Resident]) -> None:
        self._context = context
        self._lock = threading.RLock()  # reentrant: a finalizer that runs while it is held may submit
        self._thread: threading.Thread | None = None
        self._entered: Future[tuple[Resident, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self._thread else "idle"
        return f"<LoopThread {state}: {self._context!r}>"

    def wait(self, call: Callable[[Resident], Coroutine[Any, Any, Result]]) -> Result:
        """Returns or raises what the coroutine does; interrupting the wait cancels it."""
        future = self.submit(call)
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed("the client is closed") from None
        finally:
            future.cancel()  # no effect on a future that is done

    def submit(self, call: Callable[[Resident], Coroutine[Any, Any, Result]]) -> "Future[Result]":
        """Starts the coroutine; waits only for the loop to start."""
        with self._lock:
            if self._closed:
                raise ClientClosed("the client is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="routing-client", daemon=True)
                self._thread.start()
            resident, loop, _ = self._entered.result()
            return asyncio.run_coroutine_threadsafe(call(resident), loop)

    def close(self) -> None:
        """Ends the thread and cancels its calls; a second call does nothing."""
        with self._lock:
            if self._thread is not None and not self._closed and not self._entered.exception():
                _, loop, ending = self._entered.result()
                loop.call_soon_threadsafe(ending.set)
            self._closed = True
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        ending = asyncio.Event()
        try:
            async with self._context as resident:
                self._entered.set_result((resident, asyncio.get_running_loop(), ending))
                await ending.wait()
        # Any exception: the caller's thread waits for this future, and raises it there.
        except BaseException as error:
            if self._entered.done():
                raise
            self._entered.set_exception(error)
