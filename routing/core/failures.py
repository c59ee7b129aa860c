"""A backend's latest failures, whose they were, and who has succeeded there since.

Failures are ordered by when they happened and not by when they were reported, so a late
report about yesterday changes nothing today. A success ends the run of failures that did
not happen after it. Two servers' records merge by taking the later successes and the
latest failures.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from routing.core.model import NEVER, SuspensionRules

MAX_NAMES = 16
"""The contract's callers and kinds of operation whose last success is kept for each backend.
With fewer, a busy backend forgets the caller whose success proves that it works; more cost
memory for each backend. The one that succeeded longest ago is evicted."""


class Failure(NamedTuple):
    """One failure: when it happened, who called (as a digest), for which operation and type;
    "" is not known. `in_row` means that no success has ended the run that it belongs to.
    """

    at: float
    caller: str
    kind: str
    in_row: bool = True


@dataclass(slots=True)
class FailureRecord:
    """`failures` holds the latest ones, latest first; of two with the same time, the one
    reported later comes first. `in_row` of them are one run: no success came in between or
    after. `callers` and `kinds` are {name: its last success}."""

    last_success_at: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    callers: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, float] = field(default_factory=dict)
    in_row: int = field(init=False)

    def __post_init__(self) -> None:
        self._count()

    def note_success(self, at: float, caller: str, kind: str) -> None:
        """Adds a success. Of two outcomes with the same time, the one reported later counts
        as later."""
        if at > self.last_success_at:
            self.last_success_at = at
        _note_name(self.callers, caller, at)
        _note_name(self.kinds, kind, at)
        if self.in_row:
            self.failures = [
                failure._replace(in_row=failure.in_row and failure.at > at) for failure in self.failures
            ]
            self._count()

    def note_failure(self, at: float, caller: str, kind: str, *, most: int) -> None:
        """Adds a failure, and keeps the latest `most`."""
        failure = Failure(at, caller, kind, in_row=at >= self.last_success_at)
        place = next((index for index, known in enumerate(self.failures) if known.at <= at), None)
        self.failures.insert(len(self.failures) if place is None else place, failure)
        del self.failures[most:]
        self._count()

    def in_a_row(self, rules: SuspensionRules) -> bool:
        """Whether the run of failures is long enough to suspend the backend."""
        return self.in_row >= rules.failures_in_a_row and not self.isolated(rules)

    def isolated(self, rules: SuspensionRules) -> bool:
        """Whether the latest failures are all of one caller, or of one operation and type,
        while others succeed: at most `window_seconds` before the latest failure, and after
        that caller's, or kind's, own last success. Then the backend is not to blame."""
        if len(self.failures) < rules.failures_in_a_row:
            return False
        since = self.failures[0].at - rules.window_seconds
        return _others_succeed({failure.caller for failure in self.failures}, self.callers, since) or (
            _others_succeed({failure.kind for failure in self.failures}, self.kinds, since)
        )

    def forget_before(self, at: float) -> None:
        """Forgets the failures that happened before that."""
        self.failures = [failure for failure in self.failures if failure.at >= at]
        self._count()

    def snapshot(self) -> list[Any]:
        """The record as a JSON-able row, the same for equal records."""
        return [
            self.last_success_at,
            sorted(([*failure] for failure in self.failures), reverse=True),
            dict(sorted(self.callers.items())),
            dict(sorted(self.kinds.items())),
        ]

    @classmethod
    def restored(cls, row: list[Any]) -> "FailureRecord":
        """The record of a snapshot's row."""
        last_success_at, failures, callers, kinds = row
        return cls(last_success_at, [Failure(*one) for one in failures], dict(callers), dict(kinds))

    def merged(self, other: "FailureRecord", *, most: int) -> "FailureRecord":
        """Both records in one. A failure that both know counts once, as far as its time,
        caller and kind identify it."""
        last_success_at = max(self.last_success_at, other.last_success_at)
        known = Counter(one[:3] for one in self.failures) | Counter(one[:3] for one in other.failures)
        in_row = _in_row(self) | _in_row(other)
        failures = [
            Failure(
                *one, in_row=one[0] > last_success_at or (one[0] == last_success_at and index < in_row[one])
            )
            for one, count in known.items()
            for index in range(count)
        ]
        failures.sort(reverse=True)
        return FailureRecord(
            last_success_at,
            failures[:most],
            _merged_names(self.callers, other.callers),
            _merged_names(self.kinds, other.kinds),
        )

    def _count(self) -> None:
        self.in_row = sum([failure.in_row for failure in self.failures])


def _in_row(record: FailureRecord) -> Counter[tuple[float, str, str]]:
    return Counter(one[:3] for one in record.failures if one.in_row)


def _others_succeed(names: set[str], last_success: Mapping[str, float], since: float) -> bool:
    """Whether these are one name alone, and another has succeeded since and after its own success."""
    if len(names) > 1 or not last_success:
        return False
    (name,) = names
    latest = max(last_success.values())
    if last_success.get(name) == latest:
        return False
    return latest >= since and all(_differ(name, other) for other, at in last_success.items() if at == latest)


def _differ(one: str, other: str) -> bool:
    """Whether two callers, or two kinds, are not the same. A kind is an operation and a type;
    what is not known of it, "", differs from nothing: a client that reports types with its
    successes only must not keep a dead backend in use.

    >>> _differ("store image/png", "store video/mp4"), _differ("store image/png", " image/png")
    (True, False)
    """
    parts = zip(one.split(" ", 1), other.split(" ", 1), strict=False)
    return any(mine and theirs and mine != theirs for mine, theirs in parts)


def _note_name(last_success: dict[str, float], name: str, at: float) -> None:
    if at > last_success.get(name, NEVER):
        last_success[name] = at
        if len(last_success) > MAX_NAMES:
            del last_success[min(last_success, key=lambda one: (last_success[one], one))]


def _merged_names(mine: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    later = {name: max(mine.get(name, NEVER), theirs.get(name, NEVER)) for name in {*mine, *theirs}}
    kept = sorted(later, key=lambda name: (later[name], name))[-MAX_NAMES:]
    return {name: later[name] for name in kept}
