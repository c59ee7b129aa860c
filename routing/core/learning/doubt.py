"""How long what was learned of a backend's speed is believed without a new outcome.

A backend that seems slow is left, so no outcome ever shows that it has recovered. Therefore
what was learned is doubted: with decisions that pass without an outcome, and with time, its
correction of the profile shrinks, until the backend is tried again. Only of a correction
towards slower: what seems faster than its profile is tried anyway. A backend that is slow
for good is then tried at ever longer intervals: what proves true after such an interval is
believed for that much longer.
"""

from collections.abc import Sequence

DOUBT_AFTER_DECISIONS = 50
"""Decisions without an outcome before doubt begins. Fewer would doubt a backend whose
operations are merely still in flight."""

DOUBT_HALF_LIFE_DECISIONS = 150.0
DOUBT_HALF_LIFE_S = 86_400.0
"""Doubt halves the correction with so many further decisions, and with each day. Longer leaves a
backend that was slow for a day unused on the next, where requests are few; without doubt, one
slow first transfer costs a new backend a fortnight."""

MAX_CONFIRMED_DECISIONS = 5_000.0
MAX_HALF_LIFE_DAYS = 7.0
"""What was confirmed after long intervals is believed for so long at most: a backend whose
profile promises too much is then tried about once in ten thousand decisions, or once a month (by
calculation from the half-lives)."""


NEVER = 0.0
"""The time of what has not happened."""


class Doubt:
    """When one backend's learned speed was last confirmed, and after which intervals.

    `confirmed_then` is this server's number of decisions when an outcome last was nearer to
    what was learned than to the profile, `confirmed_at` the time of that or of the first
    transfer. `believed_then` is the number from which doubt counts: the same, or that of a
    later decision for the backend whose outcome is awaited. `intervals` sums the decisions
    without an outcome that a confirmation ended.
    """

    __slots__ = ("believed_then", "confirmed_at", "confirmed_then", "intervals")

    def __init__(self, decisions: int) -> None:
        self.confirmed_at = NEVER
        self.confirmed_then = self.believed_then = decisions
        self.intervals = 0.0

    @property
    def half_life_decisions(self) -> float:
        """Decisions that halve the belief."""
        return DOUBT_HALF_LIFE_DECISIONS + self.intervals

    def belief_by_time(self, now: float) -> float:
        """The part of the correction that time has left, in (0, 1]."""
        if self.confirmed_at == NEVER:
            return 1.0
        days = min(self.half_life_decisions / DOUBT_HALF_LIFE_DECISIONS, MAX_HALF_LIFE_DAYS)
        return float(2.0 ** (min(0.0, self.confirmed_at - now) / (DOUBT_HALF_LIFE_S * days)))

    def belief_by_decisions(self, decisions: int) -> float:
        """The part of the correction that decisions have left, in (0, 1]."""
        doubted = decisions - self.believed_then - DOUBT_AFTER_DECISIONS
        return float(2.0 ** (-doubted / self.half_life_decisions)) if doubted > 0 else 1.0

    def belief(self, now: float, decisions: int) -> float:
        """The part of the correction that time and decisions have left, in (0, 1]."""
        return self.belief_by_time(now) * self.belief_by_decisions(decisions)

    def note_decision(self, decisions: int) -> None:
        """A decision for this backend. Until its outcome is known, the next decisions go by what
        was learned: one request tries it, not all that arrive meanwhile."""
        if decisions - self.believed_then > DOUBT_AFTER_DECISIONS:
            self.believed_then = decisions

    def note_transfer(self, *, confirms: bool, at: float, decisions_since: float, decisions: int) -> None:
        """A transfer, `decisions_since` the backend's previous outcome."""
        if confirms or self.confirmed_at == NEVER:
            if decisions_since > DOUBT_AFTER_DECISIONS:
                self.intervals = min(self.intervals + decisions_since, MAX_CONFIRMED_DECISIONS)
            self.confirmed_then = self.believed_then = decisions
            self.confirmed_at = max(self.confirmed_at, at)
        elif decisions - self.confirmed_then > DOUBT_AFTER_DECISIONS:
            # Doubt stays, so the backend is tried again at once: two or three transfers decide.
            self.intervals /= 2.0
            self.believed_then = self.confirmed_then

    def snapshot(self, decisions: int) -> list[float]:
        """The state, in decisions before the server's current number."""
        return [
            self.confirmed_at,
            decisions - self.confirmed_then,
            decisions - self.believed_then,
            self.intervals,
        ]

    def merge(self, snapshot: Sequence[float], decisions: int) -> None:
        """Keeps the later confirmation and the longer intervals."""
        confirmed_at, confirmed_since, believed_since, intervals = snapshot
        if self.confirmed_at == NEVER:
            self.confirmed_then = self.believed_then = decisions - int(confirmed_since)
        self.confirmed_at = max(self.confirmed_at, confirmed_at)
        self.confirmed_then = max(self.confirmed_then, decisions - int(confirmed_since))
        self.believed_then = max(self.believed_then, decisions - int(believed_since))
        self.intervals = max(self.intervals, intervals)
