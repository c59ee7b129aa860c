"""Circuit breaking: when a failing backend is suspended, and when it is probed.

A backend is suspended for consecutive failures, or for a low learned probability of
success. Consecutive failures are those since its last success, ordered by when they
happened and not by when they were reported, so a late report about yesterday neither
suspends a backend nor lifts its suspension. The five latest of them are kept, so two
servers' records merge by taking the later success and the latest failures.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from heapq import nlargest
from typing import Any

CONSECUTIVE_FAILURES = 5
MIN_SUCCESS_PROBABILITY = 0.5
MIN_OUTCOMES = 10
"""The contract's two reasons to suspend: so many failures in a row; or, after at least
so many outcomes, a lower learned probability of success."""

INITIAL_BACKOFF_S = 30.0
INITIAL_BACKOFF_DECISIONS = 200
MAX_BACKOFF_S = 600.0
MAX_BACKOFF_DECISIONS = 4000
"""The contract's waits before a probe; both double with each failed probe."""


@dataclass(slots=True, order=True)
class Backoff:
    """The wait of a suspended backend for its next probe: until `probe_at`, or for
    `interval_decisions` decisions that could have chosen it, of which `decisions_left`
    remain (negative once a probe is overdue).

    `probing` means that a probe was sent and its outcome is not known yet. `probe_at` 0
    means that the wait starts with the next decision. The order of the fields decides
    between two servers: the later suspension wins, then the later probe.
    """

    suspended_at: float = 0.0
    probe_at: float = 0.0
    interval_s: float = INITIAL_BACKOFF_S
    interval_decisions: int = INITIAL_BACKOFF_DECISIONS
    decisions_left: int = INITIAL_BACKOFF_DECISIONS
    probing: bool = False

    def restart(self, now: float, *, probing: bool = False) -> None:
        """Starts the current wait again from now."""
        self.probe_at = now + self.interval_s
        self.decisions_left = self.interval_decisions
        self.probing = probing

    def double(self, now: float) -> None:
        """Doubles the wait, up to its maximum, and starts it from now: a probe failed."""
        self.interval_s = min(2 * self.interval_s, MAX_BACKOFF_S)
        self.interval_decisions = min(2 * self.interval_decisions, MAX_BACKOFF_DECISIONS)
        self.restart(now)

    def probe_due(self, now: float, *, eager: bool) -> bool:
        """Whether the next probe is due. `eager` counts decisions without backing off:
        INITIAL_BACKOFF_DECISIONS are enough after any number of failed probes."""
        decisions = INITIAL_BACKOFF_DECISIONS if eager else self.interval_decisions
        passed = self.interval_decisions - self.decisions_left
        return self.probe_at > 0.0 and (now >= self.probe_at or passed >= decisions)


@dataclass(slots=True)
class FailureRecord:
    """One backend's consecutive failures, whether its probability of success is too low,
    and its backoff, which has a meaning only while the backend is `suspended`.

    `failures_at` holds the latest five failures since `last_success_at`, latest first.
    `low_success_at` is when `low_success` last changed.
    """

    last_success_at: float = 0.0
    failures_at: list[float] = field(default_factory=list)
    low_success_at: float = 0.0
    low_success: bool = False
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def suspended(self) -> bool:
        """Whether the backend gets no calls but probes."""
        return self.low_success or len(self.failures_at) >= CONSECUTIVE_FAILURES

    def note(self, success: bool, at: float) -> None:
        """Adds one outcome. A success clears the failures that did not happen after it;
        of two outcomes with the same time, the one reported later counts as later."""
        if success:
            self.last_success_at = max(self.last_success_at, at)
            self.failures_at = [failed_at for failed_at in self.failures_at if failed_at > at]
        elif at >= self.last_success_at:
            self.failures_at = nlargest(CONSECUTIVE_FAILURES, [*self.failures_at, at])

    def note_low_success(self, low_success: bool, now: float) -> None:
        """Sets whether the learned probability of success is too low."""
        if low_success != self.low_success:
            self.low_success, self.low_success_at = low_success, now


class Suspensions:
    """The failure record of each backend that had an outcome, and who is suspended."""

    def __init__(self) -> None:
        self._records: dict[str, FailureRecord] = {}
        # Usually empty, so that most decisions need not look at the records.
        self._suspended: set[str] = set()

    def __repr__(self) -> str:
        return f"Suspensions(suspended={sorted(self._suspended)})"

    @property
    def names(self) -> Collection[str]:
        """The suspended backends."""
        return self._suspended

    def record(self, backend_id: str) -> FailureRecord:
        """The backend's failure record; to be read only."""
        return self._records.get(backend_id) or FailureRecord()

    def due_probe(self, names: Iterable[str], *, now: float, eager: bool) -> str | None:
        """Which of these suspended backends to probe now: the one whose probe has been
        due longest, or None. For `eager` see `Backoff.probe_due`."""
        due = [name for name in names if self._records[name].backoff.probe_due(now, eager=eager)]
        return min(due, key=lambda name: (self._records[name].backoff.probe_at, name), default=None)

    def note_passed_over(self, names: Iterable[str], *, now: float) -> None:
        """Counts a decision that could have chosen these backends, were they not suspended."""
        for name in names:
            backoff = self._records[name].backoff
            if not backoff.probe_at:
                backoff.restart(now)
            backoff.decisions_left -= 1

    def note_probe(self, name: str, *, now: float) -> None:
        """Counts a decision that probes this suspended backend. If the probe's outcome is
        never reported, another probe follows after the same wait."""
        self._records[name].backoff.restart(now, probing=True)

    def note_outcome(
        self, name: str, *, success: bool, probability: float, outcomes: float, at: float, now: float
    ) -> None:
        """Adds one outcome, which happened at `at`; suspends the backend or lifts that.

        `probability` is the learned probability of success including this outcome,
        `outcomes` the number of outcomes that it is learned from.
        """
        record = self._records.setdefault(name, FailureRecord())
        suspended_before = record.suspended
        record.note(success, at)
        low = probability < MIN_SUCCESS_PROBABILITY and outcomes >= MIN_OUTCOMES
        # The probability recovers with time alone, too; but only a success lifts a suspension.
        record.note_low_success(low or (record.low_success and not success), now)
        self._update_suspended(name, record)
        backoff = record.backoff
        if not record.suspended:
            record.backoff = Backoff()
        elif not suspended_before:
            record.backoff = Backoff(suspended_at=now)
            record.backoff.restart(now)
        elif success and not record.failures_at:
            # The backend works again, but its probability of success is still too low: the
            # next probe is due at once.
            record.backoff = Backoff(backoff.suspended_at, probe_at=now)
        elif not success and backoff.probing and at >= backoff.suspended_at:
            backoff.double(now)

    def snapshot(self) -> dict[str, Any]:
        """All failure records, as JSON-able rows."""
        return {
            name: [
                record.last_success_at,
                [*record.failures_at],
                record.low_success_at,
                record.low_success,
                [*astuple(record.backoff)],
            ]
            for name, record in self._records.items()
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Merges the failures of a snapshot; of everything else, the later state wins."""
        for name, (last_success_at, failures_at, low_success_at, low_success, backoff) in snapshot.items():
            theirs = FailureRecord(
                last_success_at, failures_at, low_success_at, low_success, Backoff(*backoff)
            )
            merged = self._records[name] = _merged(self.record(name), theirs)
            self._update_suspended(name, merged)

    def _update_suspended(self, name: str, record: FailureRecord) -> None:
        if record.suspended:
            self._suspended.add(name)
        else:
            self._suspended.discard(name)


def _merged(mine: FailureRecord, theirs: FailureRecord) -> FailureRecord:
    last_success_at = max(mine.last_success_at, theirs.last_success_at)
    # A failure that both servers know counts once, as far as its time identifies it.
    known = (Counter(mine.failures_at) | Counter(theirs.failures_at)).elements()
    failures_at = nlargest(CONSECUTIVE_FAILURES, [at for at in known if at >= last_success_at])
    low_success_at, low_success = max(
        (mine.low_success_at, mine.low_success), (theirs.low_success_at, theirs.low_success)
    )
    return FailureRecord(
        last_success_at,
        nlargest(CONSECUTIVE_FAILURES, failures_at),
        low_success_at,
        low_success,
        max(mine.backoff, theirs.backoff),
    )
