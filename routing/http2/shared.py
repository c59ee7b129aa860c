"""What the connections of one listener share: turns of the event loop, and memory limits.

Limits for each connection do not stop a client that opens many. When a limit for all
connections is reached, the oldest entry is dropped: an unfinished request, or an answer that
its client does not read. Requests and answers that finish in time are not affected.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from routing.http2.budget import Http2Limits


class Evictable(Protocol):
    """A call whose unfinished request can be dropped."""

    def give_up(self) -> None: ...


class SharedLimits:
    """State: `watches`, the number of open server streams; `held_bytes` of unfinished requests,
    by stream, oldest first; `unsent_bytes` of answers, by the timeout that bounds their wait,
    oldest first; and the queue of connections that have used up their turn.
    """

    __slots__ = (
        "_held", "_limits", "_queue", "_running", "_unsent", "held_bytes", "unsent_bytes", "watches",
    )  # fmt: skip

    def __init__(self, limits: Http2Limits) -> None:
        self._limits = limits
        self._held: dict[Evictable, int] = {}
        self._unsent: dict[asyncio.Timeout, int] = {}
        self._queue: deque[Callable[[], None]] = deque()
        self._running = False
        self.watches = 0
        self.held_bytes = 0
        self.unsent_bytes = 0

    def __repr__(self) -> str:
        held, unsent = self.held_bytes, self.unsent_bytes
        return f"<SharedLimits held={held} unsent={unsent} watches={self.watches} queue={len(self._queue)}>"

    def schedule(self, callback: Callable[[], None]) -> None:
        """Calls `callback` in a later turn of the loop. Each turn runs one callback of the queue,
        so however many connections are busy, together they take no more of a turn than one does."""
        self._queue.append(callback)
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._run_next)

    def _run_next(self) -> None:
        callback = self._queue.popleft()
        try:
            callback()
        finally:
            self._running = bool(self._queue)
            if self._running:
                asyncio.get_running_loop().call_soon(self._run_next)

    def hold(self, stream: Evictable, size_bytes: int) -> None:
        """Adds to the unfinished request bytes of this stream; negative once they are read or dropped."""
        if size_bytes < 0 and stream not in self._held:
            return  # the stream was evicted
        held = self._held[stream] = self._held.get(stream, 0) + size_bytes
        self.held_bytes += size_bytes
        if not held:
            del self._held[stream]
        while self.held_bytes > self._limits.max_held_in_all_bytes and len(self._held) > 1:
            oldest = next(iter(self._held))
            self.forget(oldest)
            oldest.give_up()

    def forget(self, stream: Evictable) -> None:
        """Removes the stream and its bytes."""
        self.held_bytes -= self._held.pop(stream, 0)

    def note_unsent(self, timeout: asyncio.Timeout, size_bytes: int) -> None:
        """Adds an answer that waits for its client to read; evicting it expires `timeout`."""
        self._unsent[timeout] = size_bytes
        self.unsent_bytes += size_bytes
        while self.unsent_bytes > self._limits.max_unsent_in_all_bytes and len(self._unsent) > 1:
            oldest = next(iter(self._unsent))
            self.forget_unsent(oldest)
            if not oldest.expired():
                oldest.reschedule(0.0)

    def forget_unsent(self, timeout: asyncio.Timeout) -> None:
        """Removes an answer that no longer waits, whether its client reads on or was given up."""
        self.unsent_bytes -= self._unsent.pop(timeout, 0)
