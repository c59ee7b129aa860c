"""Circuit breakers: when a failing backend is suspended, when it is probed, what lifts that.

A backend is suspended for consecutive failures, or for a low learned probability of
success. While it is, a trickle of decisions probes it (half-open): of all decisions that
had a suspended candidate, at most one in `least_decisions`, whichever backends are
suspended and however slow the traffic. Consecutive successes of operations that were
decided after the suspension began lift it; failures from before then count no more.

A backend that only a limit on time or success keeps from decisions waits for probes in
the same way. It has nothing to lift: outcomes change what is believed about it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from heapq import nlargest
from math import inf
from typing import Any

from routing.core.failures import FailureRecord
from routing.core.model import SuspensionRules
from routing.core.probes import ProbeSchedule


@dataclass(slots=True)
class Breaker:
    """One backend's failures, whether it is suspended (`open`), and how its probes went.

    `changes` counts how often it opened or closed, the last time at `changed_at`; it last
    closed at `lifted_at`. `succeeded_at` holds the latest successes of operations decided
    while it was open, or of probes, since the last such failure, at `failed_at`.
    """

    failures: FailureRecord = field(default_factory=FailureRecord)
    changed_at: float = 0.0
    changes: int = 0
    open: bool = False
    lifted_at: float = 0.0
    probes: ProbeSchedule = field(default_factory=ProbeSchedule)
    succeeded_at: list[float] = field(default_factory=list)
    failed_at: float = 0.0

    def suspend(self, now: float) -> None:
        """Opens the circuit; the wait for the first probe begins."""
        self._change(now, ProbeSchedule(now))
        self.open = True

    def lift(self, now: float) -> None:
        """Closes the circuit. Nothing from before suspends the backend again."""
        self._change(now, ProbeSchedule())
        self.open, self.lifted_at = False, now
        self.failures.forget_before(inf)

    def note_success(self, at: float, *, most: int) -> None:
        """Adds a success of an operation that may lift the suspension."""
        if at >= self.failed_at:
            self.succeeded_at = nlargest(most, [*self.succeeded_at, at])

    def note_failure(self, at: float) -> None:
        """Adds a failure of such an operation. It ends the run of successes before it."""
        self.failed_at = max(self.failed_at, at)
        self.succeeded_at = [succeeded_at for succeeded_at in self.succeeded_at if succeeded_at > at]

    def _change(self, now: float, probes: ProbeSchedule) -> None:
        self.changed_at, self.changes = now, self.changes + 1
        self.probes, self.succeeded_at, self.failed_at = probes, [], 0.0


class Suspensions:
    """The breaker of each backend that had an outcome or waits for a probe, and who is suspended."""

    def __init__(self, rules: SuspensionRules | None = None) -> None:
        self._rules = rules or SuspensionRules()
        self._breakers: dict[str, Breaker] = {}
        # Usually empty, so that most decisions need not look at the breakers.
        self._suspended: set[str] = set()
        # Decisions with suspended candidates since the last probe of any backend.
        self._since_probe = self._rules.least_decisions

    def __repr__(self) -> str:
        return f"Suspensions(suspended={sorted(self._suspended)})"

    @property
    def names(self) -> Collection[str]:
        """The suspended backends."""
        return self._suspended

    def breaker(self, backend_id: str) -> Breaker:
        """The backend's breaker; to be read only."""
        return self._breakers.get(backend_id) or Breaker()

    def probe(self, waiting: tuple[str, ...], *, request_id: str, now: float) -> str | None:
        """Counts a decision that could choose these backends, which wait for a probe, and
        answers which of them it probes: the one whose probe has been due longest, or none."""
        due: list[str] = []
        if self._since_probe >= self._rules.least_decisions - 1:
            due = [name for name in waiting if self._due(name, now)]
        probe = min(due, key=lambda name: (self._breakers[name].probes.since, name), default=None)
        passed_over = [name for name in waiting if name != probe]
        self.note_decision(passed_over, probe=probe, request_id=request_id, now=now)
        return probe

    def note_decision(
        self, passed_over: Iterable[str], *, probe: str | None, request_id: str, now: float
    ) -> None:
        """Adds a decision that was made: which backends it passed over, and which it probed."""
        self._since_probe = min(self._since_probe + 1, self._rules.least_decisions)
        for name in passed_over:
            breaker = self._breaker(name)
            if name in self._suspended and not breaker.open:
                breaker.suspend(now)  # two servers' failures, merged, were a run
            breaker.probes.note_passed(now)
        if probe is not None:
            self._breaker(probe).probes.note_probe(request_id, now)
            self._since_probe = 0

    def note_outcome(
        self,
        name: str,
        *,
        success: bool,
        probability: float,
        outcomes: float,
        at: float,
        now: float,
        decided_at: float | None = None,
        request_id: str | None = None,
        caller: str = "",
        kind: str = "",
    ) -> None:
        """Adds one outcome, which happened at `at`; suspends the backend or lifts that.

        `probability` is the learned probability of success including this outcome,
        `outcomes` the number of outcomes that it is learned from. `decided_at` and
        `request_id` are those of the operation's decision; where none is remembered,
        `request_id` is None and `decided_at` when the operation began, at the latest.
        """
        breaker, rules = self._breaker(name), self._rules
        decided_at = at if decided_at is None else decided_at
        if success:
            breaker.failures.note_success(at, caller, kind)
        elif at >= breaker.lifted_at:
            breaker.failures.note_failure(at, caller, kind, most=rules.failures_in_a_row)
        of_probe = breaker.probes.sent and breaker.probes.is_of_probe(decided_at, request_id)
        if of_probe or (breaker.open and decided_at >= breaker.changed_at):
            self._note_trial(breaker, success=success, at=at, of_probe=of_probe)
        if breaker.open:
            if len(breaker.succeeded_at) >= rules.successes_to_lift:
                breaker.lift(now)
        elif breaker.failures.failures:
            low = probability < rules.least_success and outcomes >= rules.least_outcomes
            in_a_row = breaker.failures.in_row >= rules.failures_in_a_row
            if (low or in_a_row) and not breaker.failures.isolated(rules):
                breaker.suspend(now)
        self._set_suspended(name, breaker.open)

    def snapshot(self) -> dict[str, Any]:
        """All breakers, as JSON-able rows."""
        return {
            "since_probe": self._since_probe,
            "breakers": {
                name: [
                    one.failures.snapshot(),
                    [one.changed_at, one.changes, one.open],
                    one.lifted_at,
                    [*astuple(one.probes)],
                    [*one.succeeded_at],
                    one.failed_at,
                ]
                for name, one in self._breakers.items()
            },
        }

    def merge(self, snapshot: Mapping[str, Any], *, known: Callable[[str], bool]) -> None:
        """Merges the failures of a snapshot; of everything else, the later state wins. Backends
        that are not `known` are left out: nothing else would ever forget them."""
        self._since_probe = min(self._since_probe, snapshot["since_probe"])
        for name, row in snapshot["breakers"].items():
            if not known(name):
                continue
            theirs = _restored(*row)
            merged = self._breakers[name] = _merged(self.breaker(name), theirs, self._rules)
            self._set_suspended(name, merged.open or merged.failures.in_a_row(self._rules))

    def _breaker(self, name: str) -> Breaker:
        breaker = self._breakers.get(name)
        if breaker is None:
            breaker = self._breakers[name] = Breaker()
        return breaker

    def _due(self, name: str, now: float) -> bool:
        breaker = self._breakers.get(name)
        if breaker is None:
            return False
        # Successes lift nothing where a limit keeps the backend out. So after as many of them
        # the pace slows down again: more of the same would teach nothing new.
        soon = 0 < len(breaker.succeeded_at) < self._rules.successes_to_lift
        return breaker.probes.due(now, self._rules, soon=soon)

    def _note_trial(self, breaker: Breaker, *, success: bool, at: float, of_probe: bool) -> None:
        """Adds the outcome of a probe, or of another operation decided during the suspension."""
        probes = breaker.probes
        if of_probe:
            probes.sent = False
        if not success:
            breaker.note_failure(at)
        elif len(breaker.succeeded_at) < self._rules.successes_to_lift:
            breaker.note_success(at, most=self._rules.successes_to_lift)
            probes.failures = 0
            return
        if of_probe:
            probes.note_failure(self._rules)

    def _set_suspended(self, name: str, suspended: bool) -> None:
        if suspended:
            self._suspended.add(name)
        else:
            self._suspended.discard(name)


def _restored(
    failures: list[Any],
    change: tuple[float, int, bool],
    lifted_at: float,
    probes: list[Any],
    succeeded_at: list[float],
    failed_at: float,
) -> Breaker:
    """The breaker of a snapshot's row."""
    record, schedule = FailureRecord.restored(failures), ProbeSchedule(*probes)
    return Breaker(record, *change, lifted_at, schedule, [*succeeded_at], failed_at)


def _merged(mine: Breaker, theirs: Breaker, rules: SuspensionRules) -> Breaker:
    """Both in one: the later change with what followed it, and of one change all that followed."""
    changes = [(one.changed_at, one.changes, one.open) for one in (mine, theirs)]
    latest = [one for one, change in zip((mine, theirs), changes, strict=True) if change == max(changes)]
    failed_at = max(one.failed_at for one in latest)
    known: Counter[float] = Counter()
    for one in latest:
        known |= Counter(one.succeeded_at)
    succeeded_at = [at for at in known.elements() if at >= failed_at]
    failures = mine.failures.merged(theirs.failures, most=rules.failures_in_a_row)
    lifted_at = max(mine.lifted_at, theirs.lifted_at)
    failures.forget_before(lifted_at)
    return Breaker(
        failures,
        *max(changes),
        lifted_at,
        max(one.probes for one in latest),
        nlargest(rules.successes_to_lift, succeeded_at),
        failed_at,
    )
