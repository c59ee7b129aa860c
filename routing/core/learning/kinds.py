"""What outcomes taught about kinds of requests at one backend: operation, place, type, band of size.

A backend may fail, or be slow, for one kind only. Failures are explained as a noisy OR (Pearl,
"Probabilistic Reasoning in Intelligent Systems", 1988): each request may fail because of the
backend, or because of any of its kinds, independently. A failure is attributed to these
causes in proportion to how probable each was before it. So a type that always fails is soon
known to, while the backend's other requests, and the region of that type's clients, are
hardly blamed.

The latest outcomes of each kind are compared with the record to detect a change of that kind
alone (see `changepoint`).
"""

from bisect import insort
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from routing.core.learning.changepoint import (
    UNCHANGED,
    Change,
    detect_speed_change,
    detect_success_change,
)
from routing.core.learning.regression import Effects
from routing.core.learning.transfer import Transfer

MAX_KINDS = 48
"""Kinds for each backend, as many as effects on its speed; a new one evicts the one with the
fewest recent outcomes."""

PRIOR_KIND_OUTCOMES = 5.0
"""Each kind starts with so many successes. With fewer, one failure condemns a kind."""

KIND_SUSPICION = 0.001
BACKEND_SUSPICION = 0.05
"""The least weight of a cause in the attribution of a failure. A request has five kinds or so, and
most failures are the backend's. With five times as much for a kind, or a fifth for the backend,
regret over the requests of a type that fails goes from 0.066 to 0.077 and 0.086 (simulated, two
worlds of 3,000 requests); where no kind fails, the difference was within chance."""

LATEST_KIND_OUTCOMES = 6
"""Latest outcomes kept for each kind; three or four make a change clear."""

SUCCESS_CHANGE_RARITY = 0.02
SPEED_CHANGE_RARITY = 0.2
"""How rarely a change concerns one kind only, relative to the whole backend. There are fifty kinds
to be wrong about, so both are below 1. A change of speed is less rare, since several slow transfers
in a row show it, where failures come by chance. The values are judgement: how regret depends on
each alone was not measured."""

NOTABLE_RESIDUAL = 1.0
"""A change of speed is looked for if one of the latest transfers was off by a factor of e or more,
two and a half standard deviations: most outcomes then cost nothing."""

KIND_HALF_LIFE_S = 86_400.0
"""The half-life of a kind's record, as of the backend's."""

LatestOutcome = tuple[float, float, float, Transfer | None]
"""Time, decisions of this kind since the previous one, success (1 or 0), and the transfer, None if
it was not measured or a change of the whole backend explains it."""


class Kind:
    """One kind's record, its latest outcomes, and the changes detected in them.

    `count` outcomes and `failures` attributed to the kind decay; they are as of the time
    `at`. `latest` is ordered by time. `decisions_since` counts the decisions of this kind
    since its last outcome, while a change holds for any kind of the backend. `expected` is
    the success rate that changes were last compared with.
    """

    __slots__ = (
        "at",
        "count",
        "decisions_since",
        "expected",
        "failures",
        "latest",
        "speed_change",
        "success_change",
        "unremarkable",
    )

    def __init__(self, at: float) -> None:
        self.at = at
        self.count = 0.0
        self.failures = 0.0
        self.decisions_since = 0
        self.expected = 1.0
        self.latest: list[LatestOutcome] = []
        self.speed_change = UNCHANGED
        self.success_change = UNCHANGED
        # Outcomes since the last one that may show a change.
        self.unremarkable = 0

    @property
    def changed(self) -> bool:
        """Whether a change may hold."""
        return self.speed_change is not UNCHANGED or self.success_change is not UNCHANGED

    def failure_rate(self, now: float) -> float:
        """The probability that a request fails because of this kind."""
        if not self.failures:
            return 0.0
        decay = _decay(now - self.at)
        return self.failures * decay / (PRIOR_KIND_OUTCOMES + self.count * decay)

    def add(self, count: float, failures: float, at: float) -> None:
        """Adds sums as of the time `at`; the result is as of the later of both times."""
        mine, theirs = _decay(at - self.at), _decay(self.at - at)
        self.count = self.count * mine + count * theirs
        self.failures = self.failures * mine + failures * theirs
        self.at = max(self.at, at)

    def note_latest(self, latest: LatestOutcome, residual: float, expected: float, effects: Effects) -> None:
        """Adds one of the latest outcomes and detects changes. `residual` is what the record did
        not explain of its transfer, 0 without one; `expected` the success rate of the request."""
        insort(self.latest, latest, key=_time)
        if len(self.latest) > LATEST_KIND_OUTCOMES:
            del self.latest[0]
        notable = not latest[2] or abs(residual) > NOTABLE_RESIDUAL
        self.unremarkable = 0 if notable else self.unremarkable + 1
        if self.unremarkable <= LATEST_KIND_OUTCOMES:
            self.expected = expected
            self.detect_changes(effects)

    def forget_failures(self) -> None:
        """Drops the failures among the latest outcomes: the whole backend had changed, which is
        noticed only after some of them."""
        if self.success_change is not UNCHANGED:
            self.latest = [one for one in self.latest if one[2]]
            self.success_change = UNCHANGED

    def detect_changes(self, effects: Effects) -> None:
        """Detects what changed for this kind alone."""
        self.success_change = self.speed_change = UNCHANGED
        latest = self.latest
        if not all(success for _, _, success, _ in latest):
            times, decisions, successes, _ = zip(*latest, strict=True)
            self.success_change = detect_success_change(
                times, decisions, successes, self.expected, rarity=SUCCESS_CHANGE_RARITY
            )
        timed = [(at, since, transfer) for at, since, _, transfer in latest if transfer is not None]
        residuals = effects.residuals(transfer for _, _, transfer in timed)
        if any(abs(residual) > NOTABLE_RESIDUAL for residual in residuals):
            times, decisions, _ = zip(*timed, strict=True)
            self.speed_change = detect_speed_change(times, decisions, residuals, rarity=SPEED_CHANGE_RARITY)

    def snapshot(self) -> list[Any]:
        """The sums, the latest outcomes and the changes detected in them, as JSON-able values."""
        return [
            self.at,
            self.count,
            self.failures,
            self.decisions_since,
            self.expected,
            self.unremarkable,
            [
                [at, since, success, None if transfer is None else transfer.snapshot()]
                for at, since, success, transfer in self.latest
            ],
            [*astuple(self.speed_change)],
            [*astuple(self.success_change)],
        ]

    def merge(self, snapshot: Sequence[Any], effects: Effects) -> None:
        """Adds the sums of a snapshot, and keeps the latest outcomes of both."""
        at, count, failures, decisions_since, expected, unremarkable, rows, speed, success = snapshot
        latest: list[LatestOutcome] = [
            (at, since, success, None if row is None else Transfer.from_snapshot(row))
            for at, since, success, row in rows
        ]
        self.add(count, failures, at)
        if not self.latest:
            self.decisions_since, self.unremarkable = decisions_since, unremarkable
            self.latest, self.expected = latest, expected
            self.speed_change, self.success_change = _change(speed), _change(success)
            return
        self.decisions_since = min(self.decisions_since, decisions_since)
        self.unremarkable = min(self.unremarkable, unremarkable)
        self.expected = min(self.expected, expected)
        if latest:
            self.latest = sorted([*self.latest, *latest], key=_time)[-LATEST_KIND_OUTCOMES:]
            self.detect_changes(effects)


def _change(row: Sequence[float]) -> Change:
    return Change(*row) if row[0] else UNCHANGED


class Kinds:
    """The kinds of one backend by name; never more than MAX_KINDS."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}

    def __repr__(self) -> str:
        return f"Kinds({sorted(self._kinds)})"

    @property
    def changed(self) -> bool:
        """Whether a change may hold for any kind."""
        return any(kind.changed for kind in self._kinds.values())

    def known(self, names: Iterable[str]) -> list[Kind]:
        """The kinds of these names that had outcomes."""
        find = self._kinds.get
        return [kind for name in names if (kind := find(name)) is not None]

    def success_rate(self, names: Iterable[str], now: float) -> float:
        """The probability that a request does not fail because of any of these kinds."""
        rate = 1.0
        for kind in self.known(names):
            rate *= 1.0 - kind.failure_rate(now)
        return rate

    def get_or_add(self, names: Collection[str], at: float) -> list[Kind]:
        """The kinds of these names."""
        kinds = self._kinds
        for name in names:
            if name not in kinds:
                kinds[name] = Kind(at)
        if len(kinds) > MAX_KINDS:
            self._evict(names)
        return [kinds[name] for name in names]

    def snapshot(self) -> dict[str, Any]:
        """{name: its sums and latest outcomes}, as JSON-able values."""
        return {name: kind.snapshot() for name, kind in self._kinds.items()}

    def merge(self, snapshot: Mapping[str, Any], effects: Effects) -> None:
        """Adds the kinds of a snapshot; `effects` are those of both."""
        for name, theirs in snapshot.items():
            kind = self._kinds.get(name)
            if kind is None:
                kind = self._kinds[name] = Kind(theirs[0])
            kind.merge(theirs, effects)
        self._evict()

    def _evict(self, keep: Collection[str] = ()) -> None:
        """Evicts the kinds with the least decayed counts, equal ones by name, while there are too
        many: an order that follows from the sums alone."""
        kinds = self._kinds
        while len(kinds) > MAX_KINDS:
            now = max([kind.at for kind in kinds.values()])
            weakest = min(
                (name for name in kinds if name not in keep),
                key=lambda name: (kinds[name].count * _decay(now - kinds[name].at), name),
            )
            del kinds[weakest]


def attribute_failure(kinds: Sequence[Kind], backend_rate: float, at: float) -> tuple[float, list[float]]:
    """The parts of a failure that are due to the backend, whose success rate is `backend_rate`, and
    to each of the kinds; they sum to 1."""
    backend = 1.0 - backend_rate + BACKEND_SUSPICION
    suspicions = [kind.failure_rate(at) + KIND_SUSPICION for kind in kinds]
    total = backend + sum(suspicions)
    return backend / total, [suspicion / total for suspicion in suspicions]


def slowest(kinds: Sequence[Kind]) -> Kind | None:
    """The kind whose change of speed shifts durations the most, or None."""
    kind = max(kinds, key=lambda one: shift_of(one.speed_change), default=None)
    return kind if kind is not None and kind.speed_change.probability else None


def shift_of(change: Change) -> float:
    """By how much a change of speed shifts the expected logarithm of durations, either way."""
    return change.probability * abs(change.mean)


def rate_shift_of(change: Change, rate: float) -> float:
    """By how much a change of success shifts this rate, either way."""
    return change.probability * abs(change.mean - rate)


def _time(outcome: LatestOutcome) -> float:
    return outcome[0]


def _decay(age_s: float) -> float:
    return float(2.0 ** (-age_s / KIND_HALF_LIFE_S)) if age_s > 0.0 else 1.0
