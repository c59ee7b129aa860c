"""The router: the one owner of all state, with two verbs, select and record.

It is a fold over its events: the same queries and outcomes, clock values and dice
give the same state and the same answers.
"""

from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter
from random import Random
from typing import Any

from routing.core.factors import FACTORS
from routing.core.learning.estimates import DRAWN_SHARE, Learning, context_of
from routing.core.model import (
    Backend,
    Candidate,
    Decision,
    Operation,
    Outcome,
    Query,
    Recorded,
    State,
)
from routing.core.placement import Pending, Placement
from routing.core.registry import Registry
from routing.core.scoring import STRATEGIES, default_weights, rank, scores, weight_table
from routing.core.suspension import Record, Suspensions
from routing.core.usage.recent import Recent
from routing.core.usage.windows import HOUR_S, Windows
from routing.errors import InvalidArgument, NoEligibleBackend

MAX_ALTERNATIVES = 32
"""The contract's limit."""

FUTURE_S = 300.0
"""How far ahead of ours a client's clock may be: the contract's 5 minutes."""


class Router:
    """Selects backends and learns from outcomes. Not safe for several threads."""

    def __init__(
        self,
        backends: Iterable[Backend],
        *,
        random: Random,
        weights: Mapping[str, float] | None = None,
        discover: bool = True,
        max_backends: int = 1024,
        max_content_types: int = 256,
        retention_hours: int = 168,
    ) -> None:
        self._random = random
        self._weights = default_weights(weights)
        self._weight_table = weight_table(self._weights)
        # Grows when a client names a new backend; bounded by max_backends.
        self._registry = Registry(backends, discover=discover, max_backends=max_backends)
        # Changed by every outcome; bounded by backends × contexts.
        self._learning = Learning()
        # Changed by every outcome and, where somebody is suspended, decision; by backends.
        self._suspensions = Suspensions()
        # Changed by every decision and outcome; by fixed numbers of hashes and decisions.
        self._placement = Placement()
        # Likewise; by backends × content types × intervals, and backends × 21.
        self._windows = Windows(retention_hours=retention_hours, max_content_types=max_content_types)
        self._recent = Recent()
        self._decisions_total = 0
        self._outcomes_total = 0
        self._now = float("-inf")

    def __repr__(self) -> str:
        return (
            f"Router(backends={len(self._registry.backends)}, decisions={self._decisions_total},"
            f" outcomes={self._outcomes_total})"
        )

    @property
    def backends(self) -> tuple[Backend, ...]:
        """All backends known."""
        return self._registry.backends

    @property
    def weights(self) -> Mapping[str, float]:
        """{factor: default weight}, summing to 1."""
        return dict(zip(FACTORS, self._weights, strict=True))

    @property
    def decisions_total(self) -> int:
        """Decisions ever made."""
        return self._decisions_total

    @property
    def outcomes_total(self) -> int:
        """Outcomes ever recorded."""
        return self._outcomes_total

    @property
    def learning(self) -> Learning:
        """What outcomes taught; to be read only."""
        return self._learning

    @property
    def windows(self) -> Windows:
        """The counts of the last hours; to be read only."""
        return self._windows

    @property
    def recent(self) -> Recent:
        """The counts of the last minutes; to be read only."""
        return self._recent

    def knows(self, backend_id: str) -> bool:
        """Whether the backend is configured, or a client has named it."""
        return self._registry.find(backend_id) is not None

    def advance(self, now: float) -> float:
        """Lets time pass, and answers what time it is here: whatever the clock does, it
        never runs backwards."""
        if now > self._now:
            self._now = now
            self._placement.advance(now)
        return self._now

    def state(self, backend_id: str) -> State:
        """Whether the backend takes part in decisions."""
        backend = self._registry.find(backend_id)
        if backend is not None and not backend.enabled:
            return State.DISABLED
        return State.SUSPENDED if backend_id in self._suspensions.names else State.OK

    def suspension(self, backend_id: str) -> Record:
        """The backend's run of failures and its wait for a probe; to be read only."""
        return self._suspensions.record(backend_id)

    def select(self, query: Query, *, now: float) -> Decision:
        """Picks a backend, and remembers that it did.

        NoEligibleBackend says for each candidate why not; InvalidArgument and
        LimitReached are about names that the server does not know.
        """
        now = self.advance(now)
        self._registry.admit("available_backends", query.available_backends)
        may, why_not = self._registry.eligible(query, self._holders(query))
        if not may:
            raise NoEligibleBackend(why_not)
        may, probe, passed_over = self._set_aside(may, why_not, query, now)
        weights = self._weight_table[query.strategy, query.priority]
        candidates = self._candidates(query, may, now)
        chosen, *others = rank(query, candidates, weights, first=probe, most=1 + MAX_ALTERNATIVES)
        self._note_decision(query, chosen.backend_id, chosen.estimate.expected_ms, now)
        return Decision(query, chosen, tuple(others), weights, now, probe is not None, passed_over, why_not)

    def record(self, outcome: Outcome, *, now: float) -> Recorded:
        """Learns from an outcome, and says whether it was recorded.

        InvalidArgument for a time too far ahead; that and LimitReached for a name
        that the server does not know.
        """
        now = self.advance(now)
        at = now if outcome.happened_at is None else outcome.happened_at
        if at > now + FUTURE_S:
            ahead = f"{at - now:,.0f} seconds ahead of the server's clock"
            raise InvalidArgument("timestamp", ahead, f"at most {FUTURE_S:g} seconds ahead")
        at = min(at, now)
        hours = self._windows.retention_hours
        if at < now - hours * HOUR_S:
            return Recorded(False, f"not recorded: it happened longer than {hours} hours ago")
        self._registry.admit("backend_id", (outcome.backend_id,))
        pending = self._placement.link(outcome)
        if pending is not None and outcome.backend_id in pending.reported:
            return Recorded(True, "recorded before; this repeat was not counted again")
        self._note_outcome(outcome, pending, at, now)
        return Recorded(True, "recorded" if pending is None else "recorded for its decision")

    def withdraw(self, request_id: str) -> None:
        """Lets go of a decision that was not carried out. It stays counted."""
        self._placement.withdraw(request_id)

    def note_discovered(self, names: Iterable[str]) -> None:
        """Takes in names that clients have used before, as far as they would be taken now."""
        self._registry.merge(names)

    def note_decided(
        self,
        query: Query,
        backend_id: str,
        expected_ms: float,
        *,
        probe: bool,
        passed_over: Iterable[str],
        now: float,
    ) -> None:
        """Takes in a decision that fell before, as it fell: nothing is weighed or drawn again."""
        now = self.advance(now)
        suspended = self._suspensions.names
        if probe and backend_id in suspended:
            self._suspensions.note_probe(backend_id, now=now)
        self._suspensions.note_passed_over([name for name in passed_over if name in suspended], now=now)
        self._note_decision(query, backend_id, expected_ms, now)

    def scores(self, *, content_type: str = "", backend_id: str = "", now: float) -> dict[str, float]:
        """{enabled backend: its score now under the default strategy}, for an object of
        which at most the type is known; only one where `backend_id` is given."""
        now = self.advance(now)
        asked = [
            backend
            for backend in sorted(self._registry.backends, key=attrgetter("id"))
            if backend.enabled and backend_id in ("", backend.id)
        ]
        query = Query(content_type=content_type)
        candidates = self._candidates(query, asked, now)
        return dict(zip((one.id for one in asked), scores(query, candidates, self._weights), strict=True))

    def snapshot(self, *, now: float) -> dict[str, Any]:
        """All that was learned, counted and placed, as plain JSON-able values."""
        return {
            "at": self.advance(now),
            "decisions_total": self._decisions_total,
            "outcomes_total": self._outcomes_total,
            "discovered": self._registry.snapshot(),
            "learning": self._learning.snapshot(),
            "suspensions": self._suspensions.snapshot(),
            "placement": self._placement.snapshot(),
            "windows": self._windows.snapshot(),
            "recent": self._recent.snapshot(),
        }

    def merge(self, snapshot: Mapping[str, Any], *, now: float) -> None:
        """Adds what somebody else, or this server before a restart, has learned."""
        now = self.advance(now)
        self._decisions_total += snapshot["decisions_total"]
        self._outcomes_total += snapshot["outcomes_total"]
        self._registry.merge(snapshot["discovered"])
        self._learning.merge(snapshot["learning"])
        self._suspensions.merge(snapshot["suspensions"])
        self._placement.merge(snapshot["placement"], now=now)
        self._windows.merge(snapshot["windows"])
        self._recent.merge(snapshot["recent"])

    def _holders(self, query: Query) -> Collection[str]:
        if query.operation is not Operation.RETRIEVE or not query.content_hash:
            return ()
        return self._placement.holders(query.content_hash)

    def _set_aside(
        self, may: list[Backend], why_not: dict[str, str], query: Query, now: float
    ) -> tuple[list[Backend], str | None, tuple[str, ...]]:
        """Who is left without the suspended, unless all are; whose probe is due, which stays;
        and who was left out.

        `adaptive` re-checks as often as after the first wait, however often it failed.
        """
        names = self._suspensions.names
        suspended = sorted(backend.id for backend in may if backend.id in names) if names else []
        if not suspended or len(suspended) == len(may):
            return may, None, ()
        probe = self._suspensions.due(suspended, now=now, eager=STRATEGIES[query.strategy].draws)
        if probe is not None:
            suspended.remove(probe)
            self._suspensions.note_probe(probe, now=now)
        self._suspensions.note_passed_over(suspended, now=now)
        why_not.update(dict.fromkeys(suspended, "suspended: it keeps failing"))
        left_out = set(suspended)
        return [backend for backend in may if backend.id not in left_out], probe, tuple(suspended)

    def _candidates(self, query: Query, backends: list[Backend], now: float) -> list[Candidate]:
        context = context_of(query.location, query.content_type)
        size_bytes = query.assumed_bytes
        draws = STRATEGIES[query.strategy].draws
        every = draws and self._random.random() < DRAWN_SHARE
        if draws:
            backends = sorted(backends, key=attrgetter("id"))
        distances = self._registry.distances_km(query.location, backends)
        inflight = [self._placement.inflight(backend.id) for backend in backends]
        learning = self._learning
        estimates = learning.estimates(backends, context, size_bytes, distances, inflight, now=now)
        candidates = list(map(Candidate, backends, estimates, inflight, distances))
        if draws:
            for index, (backend, _, busy, distance_km) in enumerate(candidates):
                if every or not learning.outcomes(backend.id):
                    drawn = learning.draw(
                        backend, context, size_bytes, distance_km, busy, now=now, random=self._random
                    )
                    candidates[index] = candidates[index]._replace(estimate=drawn)
        return candidates

    def _note_decision(self, query: Query, backend_id: str, expected_ms: float, now: float) -> None:
        self._decisions_total += 1
        self._learning.note_decision()
        self._placement.note_decision(query, backend_id, expected_ms, now=now)
        self._windows.note_decision(backend_id, query.content_type, query.size_bytes, now=now)
        self._recent.note_decision(now=now)

    def _note_outcome(self, outcome: Outcome, pending: Pending | None, at: float, now: float) -> None:
        """What the outcome leaves unsaid, its decision says."""
        backend = self._registry.find(outcome.backend_id)
        assert backend is not None, "it was admitted"
        content_hash = outcome.content_hash or (pending.content_hash if pending else "")
        content_type = outcome.content_type or (pending.content_type if pending else "")
        size_bytes = outcome.size_bytes or (pending.size_bytes if pending else 0)
        location = pending.location if pending else None
        # Found by its hash alone, it may be of a store that nobody asked about.
        retrieved = pending is not None and pending.operation is Operation.RETRIEVE and outcome.request_id
        self._outcomes_total += 1
        self._placement.note_outcome(outcome, pending)
        if outcome.success and content_hash and not retrieved:
            self._placement.note_holder(content_hash, backend.id, at=at)
        self._windows.note_outcome(
            backend.id, content_type, success=outcome.success, duration_ms=outcome.duration_ms, at=at
        )
        self._recent.note_outcome(backend.id, success=outcome.success, at=at)
        self._learning.note(
            backend,
            context_of(location, content_type),
            success=outcome.success,
            duration_ms=outcome.duration_ms,
            size_bytes=size_bytes,
            distance_km=self._registry.distances_km(location, (backend,))[0],
            inflight=pending.beside if pending and pending.backend_id == backend.id else 0,
            at=at,
        )
        self._suspensions.note_outcome(
            backend.id,
            success=outcome.success,
            probability=self._learning.overall_success(backend, now=now),
            outcomes=self._learning.outcomes(backend.id),
            at=at,
            now=now,
        )
