"""When a backend that gets no ordinary decisions is probed: its wait, and what came of it."""

from dataclasses import dataclass

from routing.core.model import NEVER, SuspensionRules


@dataclass(slots=True, order=True)
class ProbeSchedule:
    """The wait of one backend for its next probe.

    `since` is its last probe, or when the wait began; NEVER means that it begins with the next
    decision that could have chosen the backend. `passed` counts those decisions. `failures`
    counts the failed probes since a successful one, as far as they lengthen the wait. `sent`
    means that the probe at `since`, with this `request_id`, has not been reported yet. The
    order of the fields decides between two servers: the later probe wins.
    """

    since: float = NEVER
    failures: int = 0
    passed: int = 0
    sent: bool = False
    request_id: str = ""

    def wait_s(self, rules: SuspensionRules) -> float:
        """How long a backend with little traffic waits."""
        return float(min(rules.first_wait_seconds * 2.0**self.failures, rules.longest_wait_seconds))

    def due(self, now: float, rules: SuspensionRules, *, soon: bool) -> bool:
        """Whether the next probe is due. `soon` means that the last one succeeded."""
        if self.since == NEVER:
            return False
        waited_s = now - self.since
        if self.passed >= rules.probe_decisions and waited_s >= rules.probe_seconds:
            return True
        return self.passed >= rules.least_decisions and (soon or waited_s >= self.wait_s(rules))

    def note_passed(self, now: float) -> None:
        """Counts a decision that could have chosen the backend."""
        if self.since == NEVER:
            self.since = now
        self.passed += 1

    def note_probe(self, request_id: str, now: float) -> None:
        """Counts a probe. If it is never reported, another follows after the same wait."""
        self.since, self.passed, self.sent, self.request_id = now, 0, True, request_id

    def is_of_probe(self, decided_at: float, request_id: str | None) -> bool:
        """Whether an operation that was decided then is the probe. Without a remembered
        decision (`request_id` None), any since the probe passes for it. Asked while it is `sent`."""
        if request_id is None:
            return decided_at >= self.since
        return decided_at == self.since and request_id == self.request_id

    def note_failure(self, rules: SuspensionRules) -> None:
        """Doubles the wait, up to the longest."""
        if self.wait_s(rules) < rules.longest_wait_seconds:
            self.failures += 1
