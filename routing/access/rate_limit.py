"""A rate limit for each caller: a token bucket, stored as one number.

A bucket holds up to `burst` tokens and gains `per_second`; a call takes one. Instead of the token
count and the time of the last update, this stores only when the bucket will be full again. A call
moves that time forward by the interval of one token, and must wait if it would then lie further
ahead than that of an empty bucket. This is the generic cell rate algorithm (ITU-T I.371, annex A),
the same bucket in half the state.

A bucket whose time has passed is full, like that of a new caller, so evicting it changes nothing.
"""

from collections import OrderedDict

MAX_CALLERS = 16_384
"""Buckets kept, about 4 MB. Past it the least recently used one is evicted, which is most likely
full. A caller whose bucket was not full regains what it had spent, at most a burst. To exploit
that, it needs this many other names or addresses within `burst / per_second` seconds, with which
it could exceed any limit per caller anyway."""


class RateLimit:
    """A bucket for each caller: `per_second` calls in the long run, `burst` (1 or more) at once.

    State: {caller: when its bucket is full again}, the most recently used last.
    """

    def __init__(self, per_second: float, burst: float, *, max_callers: int = MAX_CALLERS) -> None:
        self.per_second = per_second
        self._interval_s = 1.0 / per_second
        self._slack_s = (burst - 1.0) * self._interval_s
        self._max_callers = max_callers
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<RateLimit {self.per_second:g}/s callers={len(self._full_at)}>"

    def take(self, caller: str, *, now: float) -> float:
        """Takes a token for one call. Returns 0, or the seconds until a token is available.

        `now` is in seconds of a monotonic clock. A refused call takes no token.

        >>> limit = RateLimit(per_second=10, burst=2)
        >>> [round(limit.take("uploader", now=100.0), 3) for _ in range(3)]
        [0.0, 0.0, 0.1]
        """
        full_at = max(self._full_at.get(caller, now), now)
        wait_s = max(full_at - now - self._slack_s, 0.0)
        self._full_at[caller] = full_at if wait_s else full_at + self._interval_s
        # A refused call counts as use, or the most persistent callers would be evicted first.
        self._full_at.move_to_end(caller)
        if len(self._full_at) > self._max_callers:
            self._full_at.popitem(last=False)
        return wait_s
