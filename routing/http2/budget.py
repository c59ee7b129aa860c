"""What one client may cost: the limits of a connection, and the budget that it lives on."""

from collections.abc import Callable

from routing.config.http2_limits import Http2Limits

__all__ = ["MAX_FRAME_BYTES", "Budget", "Http2Limits"]

HEADER_LIST_HARD_FACTOR = 4
"""A header list above the limit ends its call alone; one above this multiple of it ends the
connection. Each block must be decoded, since it changes the table for all later ones: with more,
decoding costs more; with less, one oversized call ends its neighbours."""

MAX_FRAME_BYTES = 16_384
"""HTTP/2's default, which we never raise: a frame is buffered until it is whole, so
its limit is what a connection may make us keep for nothing."""


class Budget:
    """Tokens that frames cost and answers earn: a bucket that refills with time.

    Whoever only costs runs dry; whoever gets answers for it does not. `spent` is all
    that was ever spent.
    """

    __slots__ = ("_at", "_burst", "_clock", "_refill_per_s", "_tokens", "spent")

    def __init__(self, limits: Http2Limits, clock: Callable[[], float]) -> None:
        self._burst = float(limits.burst)
        self._refill_per_s = limits.refill_per_s
        self._clock = clock
        self._tokens = self._burst
        self._at = clock()
        self.spent = 0

    def __repr__(self) -> str:
        return f"<Budget {self._tokens:.0f} of {self._burst:.0f}>"

    def earn(self, frames: int = 1) -> None:
        """Frames of an answer went out."""
        if self._tokens < self._burst:
            self._tokens = min(self._burst, self._tokens + frames)

    def spend(self) -> bool:
        """One frame that is no call came in; False once there is nothing left to spend."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._refill_per_s)
        self._at = now
        self.spent += 1
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
