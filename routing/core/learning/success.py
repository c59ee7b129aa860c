"""One backend's record of success, and the change detected in its latest outcomes.

The record is a beta distribution (Gelman et al., "Bayesian Data Analysis", 3rd edition,
section 2.4): the profile's rate is a prior worth a few outcomes, to which the outcomes are
added. Failures that are attributed to kinds of requests (see `kinds`) are not the backend's.
"""

from bisect import insort
from collections.abc import Mapping, Sequence
from typing import Any

from routing.core.learning.changepoint import LATEST_OUTCOMES, UNCHANGED, Change, detect_success_change
from routing.core.learning.kinds import Kind, attribute_failure
from routing.core.model import Backend

SUCCESS_HALF_LIFE_S = 86_400.0
"""The half-life of the record of success. A long one, since outages are changes, not record."""

PRIOR_OUTCOMES = 5.0
"""How many outcomes the profile's success rate is worth. With fewer, one early failure
condemns a backend; with more, a wrong profile misleads for long."""

MAX_EXPLAINED = 0.9
EXPLAINED_PRIOR_OUTCOMES = 20.0
"""An outcome that a change explains is left out of the record, in part: an outage of a day
ago says little about tomorrow, and after one a backend would else be avoided for days where
others are nearly as good. At most this part, or a profile that promises too much would never
be corrected; and hardly any while the record has fewer outcomes than this to differ from.
Mean regret is the same without, within 0.001; where another backend is nearly as good, the
traffic that returns within 900 decisions after an outage is three times as much with it."""

EXPLAINS = 0.5
"""A change of at least this probability explains an outcome that agrees with it, which then is no
evidence for other changes."""


class SuccessRecord:
    """`count` outcomes and `successes` decay; they are the values at the time `at`. So are the
    parts of them that changes explain, `explained_count` and `explained_successes`, and the
    failures attributed to kinds. `latest` holds (time, success, decisions since the previous
    outcome), at most LATEST_OUTCOMES, ordered by time. `expected` is the rate that the record
    predicts once the last of them is counted, which a change is compared with; None after a merge:
    then it is what the record predicts.
    """

    __slots__ = (
        "_change",
        "at",
        "count",
        "expected",
        "explained_count",
        "explained_successes",
        "kind_failures",
        "last_failure_at",
        "latest",
        "successes",
    )

    def __init__(self, at: float) -> None:
        self.at = at
        self.count = 0.0
        self.successes = 0.0
        self.explained_count = 0.0
        self.explained_successes = 0.0
        self.kind_failures = 0.0
        self.last_failure_at: float | None = None
        self.latest: list[tuple[float, float, float]] = []
        self.expected: float | None = None
        # None means that outcomes were added since it was detected.
        self._change: Change | None = UNCHANGED

    def note(
        self, backend: Backend, success: bool, kinds: Sequence[Kind], decisions_since: float, *, at: float
    ) -> bool:
        """Adds success or failure of a request of these kinds. Returns whether a change of the
        whole backend explains a failure."""
        by_kind = by_backend = False
        rate = self.long_term(backend, at)
        if not success:
            self._note_failure(at)
            by_kind = any(
                kind.success_change.probability_at(at, kind.decisions_since) > EXPLAINS
                for kind in kinds
                if kind.changed
            )
            change = self.change(backend)
            by_backend = not by_kind and change.probability_at(at, decisions_since) > EXPLAINS
        if not by_kind:
            insort(self.latest, (at, float(success), decisions_since), key=_time)
            del self.latest[:-LATEST_OUTCOMES]
            good, bad = self.beta(backend, at)
            self.expected = (good + success) / (good + bad + 1.0)
            self._change = None
        # Detected here, as is the change of speed, so that a report about a thousand backends
        # does not have to.
        explained = _explained_share(self.change(backend), self.count)
        if by_kind:
            explained = max(explained, *[_explained_share(kind.success_change, kind.count) for kind in kinds])
        counted = 1.0 - explained
        self._add(1.0, float(success), explained, explained * success, at)
        parts = [0.0] * len(kinds)
        if not success:
            backend_part, parts = attribute_failure(kinds, rate, at)
            self.kind_failures += counted * (1.0 - backend_part) * _decay(self.at - at)
        for kind, part in zip(kinds, parts, strict=True):
            kind.add(counted, counted * part, at)
        return by_backend

    def snapshot(self) -> dict[str, Any]:
        """The sums with their time base, and the latest outcomes, as JSON-able values."""
        return {
            "record": [self.at, self.count, self.successes, self.explained_count, self.explained_successes],
            "kind_failures": self.kind_failures,
            "last_failure_at": self.last_failure_at,
            "latest": [[*one] for one in self.latest],
            "expected": self.expected,
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Adds the sums of a snapshot, and keeps the latest outcomes of both."""
        at, count, successes, explained_count, explained_successes = snapshot["record"]
        self._add(count, successes, explained_count, explained_successes, at)
        self.kind_failures += snapshot["kind_failures"] * _decay(self.at - at)
        self._note_failure(snapshot["last_failure_at"])
        latest = [(at, success, decisions_since) for at, success, decisions_since in snapshot["latest"]]
        # If only the snapshot has any, their order is kept, also among outcomes of equal times.
        self.expected = None if self.latest else snapshot.get("expected")
        self.latest = sorted([*self.latest, *latest])[-LATEST_OUTCOMES:] if self.latest else latest
        self._change = None if self.latest else UNCHANGED

    def change(self, backend: Backend) -> Change:
        """Detected change in the success rate."""
        if self._change is None:
            if self.last_failure_at is None or self.last_failure_at < self.latest[0][0]:
                self._change = UNCHANGED
            else:
                times, successes, decisions_since = zip(*self.latest, strict=True)
                expected = self.long_term(backend, times[-1]) if self.expected is None else self.expected
                self._change = (
                    UNCHANGED
                    if all(successes)
                    else detect_success_change(times, decisions_since, successes, expected)
                )
        return self._change

    def beta(self, backend: Backend, now: float) -> tuple[float, float]:
        """The parameters of the record's beta distribution: successes and failures."""
        decay = _decay(now - self.at)
        good = PRIOR_OUTCOMES * backend.success_rate + (self.successes - self.explained_successes) * decay
        counted = self.count - self.explained_count - self.kind_failures
        bad = PRIOR_OUTCOMES + counted * decay - good
        return good, bad if bad > 0.0 else 0.0

    def evidence(self, now: float) -> float:
        """How much of the rate comes from outcomes, not the prior: in [0, 1)."""
        count = self.count * _decay(now - self.at)
        return count / (PRIOR_OUTCOMES + count)

    def long_term(self, backend: Backend, now: float) -> float:
        """The probability of success by the record alone."""
        good, bad = self.beta(backend, now)
        return good / (good + bad)

    def overall(self, backend: Backend, now: float) -> float:
        """Likewise, with outcomes that changes explain, and failures of kinds, counted in full."""
        decay = _decay(now - self.at)
        good = PRIOR_OUTCOMES * backend.success_rate + self.successes * decay
        return good / (PRIOR_OUTCOMES + self.count * decay)

    def _add(
        self, count: float, successes: float, explained_count: float, explained_successes: float, at: float
    ) -> None:
        """Adds sums as of the time `at`; the result is as of the later of both times."""
        mine, theirs = _decay(at - self.at), _decay(self.at - at)
        self.count = self.count * mine + count * theirs
        self.successes = self.successes * mine + successes * theirs
        self.kind_failures *= mine
        self.explained_count = self.explained_count * mine + explained_count * theirs
        self.explained_successes = self.explained_successes * mine + explained_successes * theirs
        self.at = max(self.at, at)

    def _note_failure(self, at: float | None) -> None:
        times = [one for one in (self.last_failure_at, at) if one is not None]
        self.last_failure_at = max(times, default=None)


def _explained_share(change: Change, count: float) -> float:
    """The part of an outcome that a change explains, where the record has so many."""
    return MAX_EXPLAINED * change.probability * count / (count + EXPLAINED_PRIOR_OUTCOMES)


def _time(outcome: tuple[float, float, float]) -> float:
    return outcome[0]


def _decay(age_s: float) -> float:
    return float(2.0 ** (-age_s / SUCCESS_HALF_LIFE_S)) if age_s > 0.0 else 1.0
