"""When a failing backend is left alone, and when it is tried again.

Every outcome gets a place in time. A backend's run of failures is the number of
failures after its last success, of which the last five times are kept; so two
servers' runs combine by taking the later success and the latest failures.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FAILURES_IN_A_ROW = 5
LEAST_PROBABILITY = 0.5
LEAST_OUTCOMES = 10
"""The contract's two reasons to suspend."""

FIRST_PROBE_S = 30.0
FIRST_PROBE_DECISIONS = 200
LONGEST_PROBE_S = 600.0
LONGEST_PROBE_DECISIONS = 4000
"""The contract's waits before a probe; each doubles with a failed probe."""


@dataclass(slots=True)
class Record:
    """One backend's run of failures and, while `suspended`, the wait for its next probe.

    `changed_at` is when it was last suspended or released: of two servers' words the
    later one counts.
    """

    success_at: float = 0.0
    failures_at: list[float] = field(default_factory=list)
    suspended: bool = False
    changed_at: float = 0.0
    probing: bool = False
    wait_s: float = FIRST_PROBE_S
    wait_decisions: int = FIRST_PROBE_DECISIONS
    probe_at: float = 0.0
    decisions_left: int = 0

    @property
    def failures_in_a_row(self) -> int:
        """Failures since the last success, counted up to five."""
        return sum(at > self.success_at for at in self.failures_at)

    def wait(self, now: float) -> None:
        """Starts waiting for the next probe."""
        self.probing = False
        self.probe_at = now + self.wait_s
        self.decisions_left = self.wait_decisions

    def probe_due(self, now: float) -> bool:
        """Whether the wait is over, by time or by decisions."""
        return now >= self.probe_at or self.decisions_left <= 0


class Suspensions:
    """Who is suspended. One record for each backend that had an outcome."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def __repr__(self) -> str:
        return f"Suspensions(suspended={sorted(name for name in self._records if self.suspended(name))})"

    def suspended(self, backend_id: str) -> bool:
        """Whether the backend is suspended."""
        record = self._records.get(backend_id)
        return record is not None and record.suspended

    def record(self, backend_id: str) -> Record:
        """What is known of the backend; to be read only."""
        return self._records.get(backend_id) or Record()

    def due(self, backend_ids: list[str], *, now: float) -> str | None:
        """Which of these suspended backends is to be probed now: the one that was due first."""
        due = [name for name in backend_ids if self._records[name].probe_due(now)]
        return min(due, key=lambda name: (self._records[name].probe_at, name), default=None)

    def note_passed_over(self, backend_ids: list[str]) -> None:
        """Counts a decision that these suspended backends would have been eligible for."""
        for name in backend_ids:
            self._records[name].decisions_left -= 1

    def note_probe(self, backend_id: str, *, now: float) -> None:
        """A decision goes to this suspended backend, to see how it is."""
        record = self._records[backend_id]
        record.wait(now)
        record.probing = True

    def note_outcome(
        self, backend_id: str, *, success: bool, probability: float, outcomes: float, at: float, now: float
    ) -> None:
        """Takes in one outcome and what is believed after it.

        `probability` and `outcomes` are the learned probability of success and the
        number of outcomes behind it; `at` orders this outcome among the others.
        """
        record = self._records.setdefault(backend_id, Record())
        if success:
            record.success_at = max(record.success_at, at)
        else:
            record.failures_at = heapq.nlargest(FAILURES_IN_A_ROW, [*record.failures_at, at])
        failing = record.failures_in_a_row >= FAILURES_IN_A_ROW or (
            probability < LEAST_PROBABILITY and outcomes >= LEAST_OUTCOMES
        )
        if not record.suspended:
            if failing:
                self._suspend(record, now)
        elif success:
            self._after_success(record, failing, now)
        elif record.probing:
            record.wait_s = min(2 * record.wait_s, LONGEST_PROBE_S)
            record.wait_decisions = min(2 * record.wait_decisions, LONGEST_PROBE_DECISIONS)
            record.wait(now)

    def _suspend(self, record: Record, now: float) -> None:
        record.suspended = True
        record.changed_at = now
        record.wait_s, record.wait_decisions = FIRST_PROBE_S, FIRST_PROBE_DECISIONS
        record.wait(now)

    def _after_success(self, record: Record, failing: bool, now: float) -> None:
        if not failing:
            record.suspended = False
            record.changed_at = now
        # Otherwise it works again, but its record is still too poor to release it: it
        # may prove itself at once.
        record.wait_s, record.wait_decisions = FIRST_PROBE_S, FIRST_PROBE_DECISIONS
        record.probing = False
        record.probe_at = now
        record.decisions_left = 0

    def snapshot(self) -> dict[str, Any]:
        """All records."""
        return {
            name: [
                one.success_at,
                one.failures_at,
                one.suspended,
                one.changed_at,
                one.probing,
                one.wait_s,
                one.wait_decisions,
                one.probe_at,
                one.decisions_left,
            ]
            for name, one in self._records.items()
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Combines the runs of failures; whoever suspended or released last is believed."""
        for name, row in snapshot.items():
            theirs = Record(*row)
            mine = self._records.setdefault(name, Record())
            success_at = max(mine.success_at, theirs.success_at)
            failures_at = heapq.nlargest(FAILURES_IN_A_ROW, {*mine.failures_at, *theirs.failures_at})
            if _word(theirs) > _word(mine):
                self._records[name] = mine = theirs
            mine.success_at, mine.failures_at = success_at, failures_at


def _word(record: Record) -> tuple[float, bool, float]:
    """Of two equally late words, the suspended one counts, and of those the longer wait."""
    return record.changed_at, record.suspended, record.probe_at
