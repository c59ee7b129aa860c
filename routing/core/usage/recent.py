"""Counts of the last five minutes, from which the system's status and rate are computed."""

from typing import Any, NamedTuple

SLOT_S = 15
"""The width of a slot: short enough that "the last five minutes" are at most five and a quarter."""

WINDOW_S = 300
_MAX_SLOTS = WINDOW_S // SLOT_S + 1

RATE_WINDOW_S = 60
"""Decisions per second are averaged over the last minute: a shorter window fluctuates, a longer
one still shows a burst after it is over."""


class Rate(NamedTuple):
    """Outcomes of one backend in the last five minutes."""

    outcomes: int
    successes: int


class Recent:
    """Outcomes per backend and total decisions, per 15 seconds. Bounded by backends × 21."""

    def __init__(self) -> None:
        # {slot: {backend: [outcomes, successes]}}
        self._outcomes: dict[int, dict[str, list[int]]] = {}
        self._decisions: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"Recent(slots={len(self._outcomes)}, decisions={sum(self._decisions.values())})"

    def note_decision(self, *, now: float) -> None:
        """Counts one decision."""
        number = int(now // SLOT_S)
        if number not in self._decisions:
            _drop_old(self._decisions, number)
        self._decisions[number] = self._decisions.get(number, 0) + 1

    def note_outcome(self, backend_id: str, *, success: bool, at: float) -> None:
        """Counts one outcome."""
        number = int(at // SLOT_S)
        slot = self._outcomes.get(number)
        if slot is None:
            slot = self._outcomes[number] = {}
            _drop_old(self._outcomes, max(self._outcomes))
        counts = slot.setdefault(backend_id, [0, 0])
        counts[0] += 1
        counts[1] += success

    def rates(self, *, now: float) -> dict[str, Rate]:
        """{backend: its outcomes of the last five minutes}."""
        sums: dict[str, list[int]] = {}
        for number in range(int((now - WINDOW_S) // SLOT_S), int(now // SLOT_S) + 1):
            for backend_id, (outcomes, successes) in self._outcomes.get(number, {}).items():
                total = sums.setdefault(backend_id, [0, 0])
                total[0] += outcomes
                total[1] += successes
        return {backend_id: Rate(*counts) for backend_id, counts in sums.items()}

    def decisions_per_second(self, *, now: float, uptime_seconds: float) -> float:
        """The mean over the last minute, or over the uptime if that is shorter."""
        last = int(now // SLOT_S)
        first = int((now - RATE_WINDOW_S) // SLOT_S) + 1
        counted = sum(self._decisions.get(number, 0) for number in range(first, last + 1))
        span_s = min(now - first * SLOT_S, uptime_seconds)
        return counted / max(span_s, 1.0)

    def snapshot(self) -> dict[str, Any]:
        """All counts, as JSON-able values."""
        return {
            "outcomes": {
                str(number): {backend_id: [*counts] for backend_id, counts in slot.items()}
                for number, slot in sorted(self._outcomes.items())
            },
            "decisions": {str(number): count for number, count in sorted(self._decisions.items())},
        }

    def merge(self, snapshot: dict[str, Any]) -> None:
        """Adds the counts of a snapshot."""
        for text, count in snapshot["decisions"].items():
            self._decisions[int(text)] = self._decisions.get(int(text), 0) + count
        for text, slot in snapshot["outcomes"].items():
            mine = self._outcomes.setdefault(int(text), {})
            for backend_id, (outcomes, successes) in slot.items():
                counts = mine.setdefault(backend_id, [0, 0])
                counts[0] += outcomes
                counts[1] += successes
        for kept in (self._decisions, self._outcomes):
            if kept:
                _drop_old(kept, max(kept))


def _drop_old(slots: dict[int, Any], newest: int) -> None:
    for number in [number for number in slots if number <= newest - _MAX_SLOTS]:
        del slots[number]
