"""When a failing backend is left alone, and when it is tried again.

A backend is suspended for a run of failures, or for a poor record. Its run is the
failures since its last success, in the order in which things happened, not in which
they were told: a late word about yesterday neither condemns a backend nor clears it.
Of a run the last five times are kept; so two servers' runs combine by taking the later
success and the latest failures.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from heapq import nlargest
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


@dataclass(slots=True, order=True)
class Wait:
    """A suspended backend's wait for its next probe: until `probe_at`, or for
    `decisions` that it would have been eligible for, of which some are `left`.

    `probing` says that a probe is out whose end nobody has told yet. `probe_at` 0 means
    that the wait begins with the next decision. Waits are ordered: of two servers' words
    the one about the later suspension counts, and then the one that waits longer.
    """

    suspended_at: float = 0.0
    probe_at: float = 0.0
    seconds: float = FIRST_PROBE_S
    decisions: int = FIRST_PROBE_DECISIONS
    left: int = FIRST_PROBE_DECISIONS
    probing: bool = False

    def begin(self, now: float, *, probing: bool = False) -> None:
        """Waits all of it from now on."""
        self.probe_at = now + self.seconds
        self.left = self.decisions
        self.probing = probing

    def double(self, now: float) -> None:
        """Waits twice as long from now on: a probe has failed."""
        self.seconds = min(2 * self.seconds, LONGEST_PROBE_S)
        self.decisions = min(2 * self.decisions, LONGEST_PROBE_DECISIONS)
        self.begin(now)

    def over(self, now: float, *, eager: bool) -> bool:
        """Whether a probe is due. Where `eager`, the first wait's number of decisions is
        enough, however many probes have failed."""
        enough = FIRST_PROBE_DECISIONS if eager else self.decisions
        return self.probe_at > 0.0 and (now >= self.probe_at or self.decisions - self.left >= enough)


@dataclass(slots=True)
class Record:
    """One backend's run of failures, whether its record is poor, and its wait.

    `failures_at` are the last five failures since the last success, the latest first.
    `poor_at` is when `poor` last changed. `wait` means something while `suspended`.
    """

    success_at: float = 0.0
    failures_at: list[float] = field(default_factory=list)
    poor_at: float = 0.0
    poor: bool = False
    wait: Wait = field(default_factory=Wait)

    @property
    def suspended(self) -> bool:
        """Whether the backend is to be left alone."""
        return self.poor or len(self.failures_at) >= FAILURES_IN_A_ROW

    def note(self, success: bool, at: float) -> None:
        """Ends the run, but for failures that happened later, or lengthens it. Of things
        that happened at the same time, the one told later is the later one."""
        if success:
            self.success_at = max(self.success_at, at)
            self.failures_at = [failed_at for failed_at in self.failures_at if failed_at > at]
        elif at >= self.success_at:
            self.failures_at = nlargest(FAILURES_IN_A_ROW, [*self.failures_at, at])

    def note_poor(self, poor: bool, now: float) -> None:
        """Takes in what is now believed of the record."""
        if poor != self.poor:
            self.poor, self.poor_at = poor, now


class Suspensions:
    """Who is suspended. One record for each backend that had an outcome."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        # The names of the suspended: most of the time there is none to look for.
        self._names: set[str] = set()

    def __repr__(self) -> str:
        return f"Suspensions(suspended={sorted(self._names)})"

    @property
    def names(self) -> Collection[str]:
        """The suspended backends."""
        return self._names

    def record(self, backend_id: str) -> Record:
        """What is known of the backend; to be read only."""
        return self._records.get(backend_id) or Record()

    def due(self, names: Iterable[str], *, now: float, eager: bool) -> str | None:
        """Which of these suspended backends is to be probed now: the one that was due first.
        Where `eager`, the first wait's number of decisions is enough."""
        due = [name for name in names if self._records[name].wait.over(now, eager=eager)]
        return min(due, key=lambda name: (self._records[name].wait.probe_at, name), default=None)

    def note_passed_over(self, names: Iterable[str], *, now: float) -> None:
        """Counts a decision that these suspended backends would have been eligible for."""
        for name in names:
            wait = self._records[name].wait
            if not wait.probe_at:
                wait.begin(now)
            wait.left -= 1

    def note_probe(self, name: str, *, now: float) -> None:
        """A decision goes to this suspended backend, to see how it is. Should nobody
        tell how that went, another probe follows after the same wait."""
        self._records[name].wait.begin(now, probing=True)

    def note_outcome(
        self, name: str, *, success: bool, probability: float, outcomes: float, at: float, now: float
    ) -> None:
        """Takes in one outcome and what is believed after it.

        `probability` and `outcomes` are the learned probability of success and the
        number of outcomes behind it; `at` is when this outcome happened.
        """
        record = self._records.setdefault(name, Record())
        suspended_before = record.suspended
        record.note(success, at)
        poor = probability < LEAST_PROBABILITY and outcomes >= LEAST_OUTCOMES
        # Time alone betters a probability, too; but only a success lifts a suspension.
        record.note_poor(poor or (record.poor and not success), now)
        self._list(name, record)
        wait = record.wait
        if not record.suspended:
            record.wait = Wait()
        elif not suspended_before:
            record.wait = Wait(suspended_at=now)
            record.wait.begin(now)
        elif success and not record.failures_at:
            # It works again, but its record is still too poor: the next probe is due at once.
            record.wait = Wait(wait.suspended_at, probe_at=now)
        elif not success and wait.probing and at >= wait.suspended_at:
            wait.double(now)

    def snapshot(self) -> dict[str, Any]:
        """All records."""
        return {
            name: [
                record.success_at,
                [*record.failures_at],
                record.poor_at,
                record.poor,
                [*astuple(record.wait)],
            ]
            for name, record in self._records.items()
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Combines the runs of failures; of the rest the last word counts."""
        for name, (success_at, failures_at, poor_at, poor, wait) in snapshot.items():
            theirs = Record(success_at, failures_at, poor_at, poor, Wait(*wait))
            both = self._records[name] = _joined(self.record(name), theirs)
            self._list(name, both)

    def _list(self, name: str, record: Record) -> None:
        if record.suspended:
            self._names.add(name)
        else:
            self._names.discard(name)


def _joined(mine: Record, theirs: Record) -> Record:
    success_at = max(mine.success_at, theirs.success_at)
    # A failure that both know of is counted once, as far as its time can tell.
    failures_at = (Counter(mine.failures_at) | Counter(theirs.failures_at)).elements()
    return Record(
        success_at,
        nlargest(FAILURES_IN_A_ROW, [failed_at for failed_at in failures_at if failed_at >= success_at]),
        *max((mine.poor_at, mine.poor), (theirs.poor_at, theirs.poor)),
        max(mine.wait, theirs.wait),
    )
