"""What the connections of one listener share: turns of the event loop, and room in memory.

Limits of a connection alone are no limits to a client that opens many. Where the room
for all is used up, whoever has waited longest makes room: a request that does not come
to its end, an answer that is not taken. Others come and go meanwhile.
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
    """State: `watches`, the server streams that are open; `held_bytes` of requests that are not
    whole yet, by stream, oldest first; `unsent_bytes` of answers, by the patience with their
    clients, oldest first; and the line of those who have had their share of a turn.
    """

    __slots__ = ("_held", "_limits", "_line", "_moving", "_unsent", "held_bytes", "unsent_bytes", "watches")

    def __init__(self, limits: Http2Limits) -> None:
        self._limits = limits
        self._held: dict[Evictable, int] = {}
        self._unsent: dict[asyncio.Timeout, int] = {}
        self._line: deque[Callable[[], None]] = deque()
        self._moving = False
        self.watches = 0
        self.held_bytes = 0
        self.unsent_bytes = 0

    def __repr__(self) -> str:
        held, unsent = self.held_bytes, self.unsent_bytes
        return f"<SharedLimits held={held} unsent={unsent} watches={self.watches} line={len(self._line)}>"

    def schedule(self, go_on: Callable[[], None]) -> None:
        """Calls `go_on` in a later turn of the loop, one of all who stand here in each: however
        many they are, they take no more of a turn than one does."""
        self._line.append(go_on)
        if not self._moving:
            self._moving = True
            asyncio.get_running_loop().call_soon(self._move)

    def _move(self) -> None:
        go_on = self._line.popleft()
        try:
            go_on()
        finally:
            self._moving = bool(self._line)
            if self._moving:
                asyncio.get_running_loop().call_soon(self._move)

    def hold(self, stream: Evictable, size_bytes: int) -> None:
        """Request bytes of this stream came to wait for the rest of their message, or went."""
        if size_bytes < 0 and stream not in self._held:
            return  # it has been given up
        held = self._held[stream] = self._held.get(stream, 0) + size_bytes
        self.held_bytes += size_bytes
        if not held:
            del self._held[stream]
        while self.held_bytes > self._limits.max_held_in_all_bytes and len(self._held) > 1:
            oldest = next(iter(self._held))
            self.forget(oldest)
            oldest.give_up()

    def forget(self, stream: Evictable) -> None:
        """The stream holds nothing any more."""
        self.held_bytes -= self._held.pop(stream, 0)

    def wait(self, patience: asyncio.Timeout, size_bytes: int) -> None:
        """An answer waits for its client, which is asked for this patience."""
        self._unsent[patience] = size_bytes
        self.unsent_bytes += size_bytes
        while self.unsent_bytes > self._limits.max_unsent_in_all_bytes and len(self._unsent) > 1:
            oldest = next(iter(self._unsent))
            self.go_on(oldest)
            if not oldest.expired():
                oldest.reschedule(0.0)

    def go_on(self, patience: asyncio.Timeout) -> None:
        """The wait is over, one way or the other."""
        self.unsent_bytes -= self._unsent.pop(patience, 0)
