"""The time of day, with a word in the log when it jumps.

Nothing is put right here: the router keeps to the latest time that it has seen, so after
a jump back its time stands still until the clock has caught up, and a restart takes the
clock as it then is. But an operator who wonders should find the reason.
"""

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

JUMP_SECONDS = 60.0
"""Between two readings, beyond the time that has passed. Less is the daily work of NTP,
and changes no decision."""


class WatchedClock:
    """Tells the time in Unix seconds. Remembers how far that is ahead of the monotonic clock."""

    def __init__(
        self, tell: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._monotonic = monotonic
        self._ahead = tell() - monotonic()

    def __call__(self) -> float:
        now = self._tell()
        ahead = now - self._monotonic()
        jump = ahead - self._ahead
        if not -JUMP_SECONDS < jump < JUMP_SECONDS:
            log.warning("clock jumped by_seconds=%+.0f", jump)
        # Kept up to date, so that what is put right little by little is no jump.
        self._ahead = ahead
        return now

    def __repr__(self) -> str:
        return f"<WatchedClock ahead={self._ahead:.0f}>"


class RequestClock:
    """Time as the requests tell it, for replaying a trace faster than it happened.

    Stands at 0 until the first timestamp; never runs backwards.

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
        """Moves to this time, if it is given and later."""
        if seconds is not None:
            self._now = max(self._now, seconds)
