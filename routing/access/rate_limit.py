"""How often each caller may call: a token bucket for each, kept in one number.

A bucket holds up to `burst` tokens and gains `per_second`; a call takes one. Instead of the
tokens and the time of the last look, only the moment is kept at which the bucket is full
again: a call moves it on by what one token takes to come back, and must wait where that
would lie further ahead than an empty bucket's. That is the generic cell rate algorithm
(ITU-T I.371, annex A), the same bucket in half the numbers.

A bucket whose moment has passed is full, as is that of a caller never seen. So forgetting
it changes nothing.
"""

from collections import OrderedDict

MAX_CALLERS = 16_384
"""Callers remembered, about 4 MB. Past it the one goes that has not tried for longest, whose
bucket is most likely full. One that is not gets back what it had spent, at most a burst;
whoever wants that must come with so many other names or addresses within `burst /
per_second` seconds, and with these is past any limit per caller anyway."""


class RateLimit:
    """A bucket for each caller: `per_second` calls in the long run, `burst` (1 or more) at once.

    State: by caller, when its bucket is full again; those that tried last stand last.
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
        """Takes a token for one call: 0 if there was one, else in how many seconds there is.

        `now` is in seconds of a clock that never goes back. A call that must wait costs
        no token.

        >>> limit = RateLimit(per_second=10, burst=2)
        >>> [round(limit.take("uploader", now=100.0), 3) for _ in range(3)]
        [0.0, 0.0, 0.1]
        """
        full_at = max(self._full_at.get(caller, now), now)
        wait_s = max(full_at - now - self._slack_s, 0.0)
        self._full_at[caller] = full_at if wait_s else full_at + self._interval_s
        # Also who must wait has tried: else those who never stop would be forgotten first.
        self._full_at.move_to_end(caller)
        if len(self._full_at) > self._max_callers:
            self._full_at.popitem(last=False)
        return wait_s
