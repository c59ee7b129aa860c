"""Clocks: the router's own time, which goes on evenly, and one that requests drive.

The wall clock may jump: an operator sets it, or a machine starts with a wrong one. Were the
router to follow, failures would count as old or as future ones, windows would have gaps, and
nothing would decay until the clock catches up. So its time goes on with a clock that counts
what has passed, and the difference to the wall clock is kept: timestamps of clients are read,
and responses written, by the wall clock. A state continues the time that it was written in.
"""

import logging
import time
from collections.abc import Callable
from functools import partial

log = logging.getLogger(__name__)

JUMP_SECONDS = 60.0
"""Change of the difference between the wall clock and the router's time, from one reading to the
next, that is logged. NTP corrects by less every day, and a smaller step changes no decision."""


def _elapsed_clock() -> Callable[[], float]:
    """A clock that no one can set and that counts sleep: CLOCK_BOOTTIME where there is one.
    CLOCK_MONOTONIC stands still while a Linux machine sleeps."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if boottime is None else partial(time.clock_gettime, boottime)


class SystemClock:
    """The router's time in Unix seconds: the wall clock's when it starts, and even from then on.

    State: `ahead_s`, how far the wall clock was ahead of it at the latest reading.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] | None = None
    ) -> None:
        self._wall = wall
        self._elapsed = elapsed or _elapsed_clock()
        self.ahead_s = 0.0
        self._offset_s = wall() - self._elapsed()

    def __call__(self) -> float:
        now = self._elapsed() + self._offset_s
        ahead_s = self._wall() - now
        jump_s = ahead_s - self.ahead_s
        if not -JUMP_SECONDS < jump_s < JUMP_SECONDS:
            log.warning("clock jumped by_seconds=%+.0f", jump_s)
        # Updated with every reading, so many small corrections never add up to a jump.
        self.ahead_s = ahead_s
        return now

    def __repr__(self) -> str:
        return f"<SystemClock ahead_s={self.ahead_s:.0f}>"

    def resume(self, ahead_s: float) -> None:
        """Continues the time of a state that was written when the wall clock was so far ahead
        of it."""
        self.ahead_s = ahead_s
        self._offset_s = self._wall() - ahead_s - self._elapsed()


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
