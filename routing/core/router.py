"""The router owns all state: `select` picks a backend, `record` learns from an outcome.

It is a fold over its events: the same queries, outcomes, clock values and random
numbers give the same state and the same answers.
"""

from collections.abc import Iterable, Mapping
from operator import attrgetter
from random import Random
from typing import Any

from routing.core.availability import Availability, availability
from routing.core.factors import FACTORS
from routing.core.holders import Holders
from routing.core.learning.context import context_of
from routing.core.learning.estimates import DRAW_ALL_SHARE, Learning
from routing.core.limits import Limits, limits_of
from routing.core.linking import LinkedOutcome, linked, reported_time
from routing.core.model import (
    Backend,
    Candidate,
    Decision,
    Outcome,
    Query,
    Recorded,
    State,
    SuspensionRules,
)
from routing.core.placement import MAX_PENDING, Placement
from routing.core.precedence import precedence
from routing.core.registry import Registry, discovered_among
from routing.core.scoring import STRATEGIES, default_weights, rank, scores, weight_table
from routing.core.suspension import Breaker, Suspensions
from routing.core.usage.recent import Recent
from routing.core.usage.windows import HOUR_S, Windows
from routing.errors import NoEligibleBackend

MAX_ALTERNATIVES = 32
"""The contract's limit."""


class Router:
    """Selects backends and learns from outcomes. Not thread-safe."""

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
        suspension: SuspensionRules | None = None,
        limits: Limits | None = None,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._random = random
        # The server's own; None if it has none.
        self._limits = None if limits == Limits() else limits
        self._weights = default_weights(weights)
        self._weight_table = weight_table(self._weights)
        # Grows when a client names a new backend; bounded by max_backends.
        self._registry = Registry(backends, discover=discover, max_backends=max_backends)
        self.mentions = self._registry.mentions
        # Changed by every outcome; bounded by backends × contexts.
        self._learning = Learning()
        # Changed by every outcome, and by decisions that wait for a probe; bounded by backends.
        self._suspensions = Suspensions(suspension)
        # Changed by outcomes; bounded by a fixed number of hashes.
        self._holders = Holders()
        # Changed by every decision and outcome; bounded by max_pending.
        self._placement = Placement(max_pending=max_pending)
        # Changed by every decision and outcome; bounded by backends × content types × intervals,
        # and by backends × 21.
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
        """All known backends, configured and discovered."""
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
        """What was learned from outcomes; to be read only."""
        return self._learning

    @property
    def windows(self) -> Windows:
        """The counts of the retention; to be read only."""
        return self._windows

    @property
    def recent(self) -> Recent:
        """The counts of the last minutes; to be read only."""
        return self._recent

    def knows(self, backend_id: str) -> bool:
        """Whether the backend is configured, or a client has named it."""
        return self._registry.find(backend_id) is not None

    def advance(self, now: float) -> float:
        """Moves the router's time forward to `now`, and returns it. It never runs backwards,
        even when the clock does."""
        if now > self._now:
            self._now = now
            self._placement.advance(now)
        return self._now

    def state(self, backend_id: str) -> State:
        """Whether the backend takes part in decisions, and if not, why."""
        backend = self._registry.find(backend_id)
        if backend is not None and not backend.enabled:
            return State.DISABLED
        return State.SUSPENDED if backend_id in self._suspensions.names else State.OK

    def suspension(self, backend_id: str) -> Breaker:
        """The backend's failures, and how its probes go; to be read only."""
        return self._suspensions.breaker(backend_id)

    def select(self, query: Query, *, now: float) -> Decision:
        """Picks a backend and adds the decision to the state.

        Raises NoEligibleBackend with the reason for each candidate, and InvalidArgument
        or LimitReached for an unknown name that cannot be admitted.
        """
        now = self.advance(now)
        self._registry.admit("available_backends", query.available_backends)
        holding = self._holders.asked_by(query)
        eligible, ineligible = self._registry.eligible(query, holding.known)
        if not eligible:
            raise NoEligibleBackend(ineligible)
        available = self._available(eligible, ineligible, query, now)
        weights = self._weight_table[query.strategy, query.priority]
        draws = STRATEGIES[query.strategy].draws
        candidates = self._candidates(query, available.backends, now, draws=draws)
        after = precedence(query, candidates, holding, silent=self._placement.silent, now=now)
        probe, limit = available.probe, 1 + MAX_ALTERNATIVES
        chosen, *others = rank(query, candidates, weights, first=probe, after=after, limit=limit)
        self._note_decision(query, chosen.backend_id, chosen.estimate.expected_ms, now)
        discovered = discovered_among(available.backends) if query.available_backends else frozenset()
        circumstances = (probe is not None, available.waiting, ineligible, available.gave_way, discovered)
        return Decision(query, chosen, tuple(others), weights, now, *circumstances)

    def record(self, outcome: Outcome, *, now: float) -> Recorded:
        """Learns from an outcome, and says whether it was recorded.

        Raises InvalidArgument for a time too far ahead, and InvalidArgument or LimitReached
        for an unknown name that cannot be admitted.
        """
        now = self.advance(now)
        at = reported_time(outcome, now=now)
        pending = self._placement.find_pending(outcome)
        link = self._holders.with_operation(linked(outcome, pending, at=at))
        hours = self._windows.retention_hours
        if link.at < now - hours * HOUR_S:
            return Recorded(False, f"not recorded: it happened longer than {hours} hours ago")
        self._registry.admit("backend_id", (outcome.backend_id,))
        if self._placement.is_repeat(outcome):
            self._holders.note_outcome(link)
            return Recorded(True, "recorded before; this repeat was not counted again")
        self._placement.note_outcome(outcome, pending, now=now)
        self._note_outcome(link, now)
        return Recorded(True, "recorded" if pending is None else "recorded for its decision")

    def cancel(self, request_id: str) -> None:
        """Cancels a pending decision that was not carried out; totals keep it."""
        self._placement.cancel(request_id)

    def note_discovered(self, names: Iterable[str]) -> None:
        """Admits names that clients used before a restart, as far as the configuration allows now."""
        self._registry.merge(names)

    def replay_decision(
        self,
        query: Query,
        backend_id: str,
        expected_ms: float,
        *,
        probe: bool,
        passed_over: Iterable[str],
        now: float,
    ) -> None:
        """Adds an earlier decision to the state as it was made, without scoring or drawing again."""
        now = self.advance(now)
        known = [name for name in passed_over if self.knows(name)]
        if known or probe:
            self._suspensions.note_decision(
                known, probe=backend_id if probe else None, request_id=query.request_id, now=now
            )
        self._note_decision(query, backend_id, expected_ms, now)

    def scores(self, *, content_type: str = "", backend_id: str = "", now: float) -> dict[str, float]:
        """{enabled backend: its score now under the default strategy}, for an object of unknown
        size and, if `content_type` is "", unknown type. `backend_id` limits it to one backend."""
        now = self.advance(now)
        backends = [
            backend
            for backend in sorted(self._registry.backends, key=attrgetter("id"))
            if backend.enabled and backend_id in ("", backend.id)
        ]
        query = Query(content_type=content_type)
        candidates = self._candidates(query, backends, now, draws=False)
        return dict(zip((one.id for one in backends), scores(query, candidates, self._weights), strict=True))

    def snapshot(self, *, now: float) -> dict[str, Any]:
        """The whole state, as plain JSON-able values."""
        return {
            "at": self.advance(now),
            "decisions_total": self._decisions_total,
            "outcomes_total": self._outcomes_total,
            "discovered": self._registry.snapshot(),
            "learning": self._learning.snapshot(),
            "suspensions": self._suspensions.snapshot(),
            "holders": self._holders.snapshot(),
            "placement": self._placement.snapshot(),
            "windows": self._windows.snapshot(),
            "recent": self._recent.snapshot(),
        }

    def merge(self, snapshot: Mapping[str, Any], *, now: float) -> None:
        """Adds the state of another server, or of this one before a restart."""
        now = self.advance(now)
        self._decisions_total += snapshot["decisions_total"]
        self._outcomes_total += snapshot["outcomes_total"]
        self._registry.merge(snapshot["discovered"])
        self._learning.merge(snapshot["learning"])
        self._suspensions.merge(snapshot["suspensions"], known=self.knows)
        self._holders.merge(snapshot["holders"], known=self.knows)
        self._placement.merge(snapshot["placement"], now=now)
        self._windows.merge(snapshot["windows"])
        self._recent.merge(snapshot["recent"])

    def _available(
        self, eligible: list[Backend], ineligible: dict[str, str], query: Query, now: float
    ) -> Availability:
        """The eligible backends to choose from, and the one to probe among them, if a probe is
        due. `ineligible` gets the reason for each that is left out."""
        suspended, limits = self._suspensions.names, self._limits
        limited = limits is not None or limits_of(query) is not None
        if not suspended and not limited:
            return Availability(eligible)
        means = self._candidates(query, eligible, now, draws=False) if limited else ()
        found = availability(eligible, query, suspended=suspended, limits=limits, means=means)
        if not found.backends:
            raise NoEligibleBackend({**ineligible, **found.reasons})
        if found.waiting:
            probe = self._suspensions.probe(found.waiting, request_id=query.request_id, now=now)
            if probe is not None:
                found = found.with_probe(probe, eligible)
        ineligible.update(found.reasons)
        return found

    def _candidates(
        self, query: Query, backends: list[Backend], now: float, *, draws: bool
    ) -> list[Candidate]:
        context = context_of(query.operation, query.location, query.content_type, query.size_bytes)
        size_bytes = query.assumed_bytes
        draw_all = draws and self._random.random() < DRAW_ALL_SHARE
        if draws:
            backends = sorted(backends, key=attrgetter("id"))
        distances = self._registry.distances_km(query.location, backends)
        inflight = [self._placement.inflight(backend.id) for backend in backends]
        learning = self._learning
        estimates = learning.estimates(backends, context, size_bytes, distances, inflight, now=now)
        candidates = list(map(Candidate, backends, estimates, inflight, distances))
        if draws:
            for index, backend in enumerate(backends):
                if draw_all or not learning.outcomes(backend.id):
                    distance_km, count = distances[index], inflight[index]
                    drawn = learning.draw(
                        backend, context, size_bytes, distance_km, count, now=now, random=self._random
                    )
                    candidates[index] = candidates[index]._replace(estimate=drawn)
        return candidates

    def _note_decision(self, query: Query, backend_id: str, expected_ms: float, now: float) -> None:
        self._decisions_total += 1
        context = context_of(query.operation, query.location, query.content_type, query.size_bytes)
        self._learning.note_decision(backend_id, context)
        self._placement.note_decision(query, backend_id, expected_ms, now=now)
        self._windows.note_decision(backend_id, query.content_type, query.size_bytes, now=now)
        self._recent.note_decision(now=now)

    def _note_outcome(self, link: LinkedOutcome, now: float) -> None:
        """Adds an outcome to the state."""
        outcome, at = link.outcome, link.at
        backend = self._registry.find(outcome.backend_id)
        assert backend is not None, "it was admitted"
        self._outcomes_total += 1
        self._holders.note_outcome(link)
        self._windows.note_outcome(
            backend.id, link.content_type, success=outcome.success, duration_ms=outcome.duration_ms, at=at
        )
        if link.judges_backend:
            self._recent.note_outcome(backend.id, success=outcome.success, at=at)
        if link.teaches:
            self._learn(backend, link)
        if link.judges_backend:
            self._suspensions.note_outcome(
                backend.id,
                success=outcome.success,
                probability=self._learning.overall_success(backend, now=now),
                outcomes=self._learning.outcomes(backend.id),
                at=at,
                now=now,
                decided_at=link.decided_at,
                request_id=link.request_id,
                caller=outcome.caller,
                kind=f"{link.operation or ''} {link.content_type}",
            )

    def _learn(self, backend: Backend, link: LinkedOutcome) -> None:
        self._learning.note(
            backend,
            context_of(link.operation, link.location, link.content_type, link.size_bytes),
            success=link.outcome.success,
            duration_ms=link.outcome.duration_ms,
            size_bytes=link.size_bytes,
            distance_km=self._registry.distances_km(link.location, (backend,))[0],
            inflight=link.inflight_before,
            at=link.at,
        )
