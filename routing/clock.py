"""Clocks: the system's wall clock, which logs its jumps, and one that requests drive.

A jump is only logged, never corrected. The router uses the latest time that it has seen, so
after a jump back its time stands still until the clock catches up; a restart starts from the
clock as it is then. The log line tells an operator why decay and windows paused.
"""

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

JUMP_SECONDS = 60.0
"""Difference between the wall clock and the monotonic clock, from one reading to the next, that
is logged. NTP corrects by less every day, and a smaller step changes no decision."""


class WatchedClock:
    """The wall clock in Unix seconds. State: its offset from the monotonic clock."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset_s = wall() - monotonic()

    def __call__(self) -> float:
        now = self._wall()
        offset_s = now - self._monotonic()
        jump_s = offset_s - self._offset_s
        if not -JUMP_SECONDS < jump_s < JUMP_SECONDS:
            log.warning("clock jumped by_seconds=%+.0f", jump_s)
        # Updated with every reading, so many small corrections never add up to a jump.
        self._offset_s = offset_s
        return now

    def __repr__(self) -> str:
        return f"<WatchedClock offset_s={self._offset_s:.0f}>"


class RequestClock:
    """The latest timestamp of any request, for replaying a trace faster than real time.

    It is 0 until the first timestamp and never goes back.

    >>> clock = RequestClock()
    >>> clock.advance(100.0); clock.advance(40.0); clock.advance(None)
    >>> clock()
    100.0
    """

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def __repr__(self) -> str:
        return f"<RequestClock now={self._now}>"

    def advance(self, seconds: float | None) -> None:
        """Moves to this time, unless it is None or earlier."""
        if seconds is not None:
            self._now = max(self._now, seconds)
