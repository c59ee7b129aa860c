"""Events: the events of one router, applied to another, leave the same state."""

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.core.events import apply_event, decision_event, discovery_event, outcome_event
from routing.core.model import Backend, Decision, Location, Operation, Outcome, Query, State
from routing.core.router import Router
from routing.core.scoring import STRATEGIES
from routing.errors import NoEligibleBackend
from support.makers import NOON, Clock, router

FRANKFURT = Location(50.1, 8.7, "eu")
BACKENDS = (Backend("near", latitude=50.1, longitude=8.7), Backend("far", latency_ms=900.0), Backend("third"))
FOREVER = float("inf")


class Witness(Clock):
    """A router, and the rows of its events, as JSON has them."""

    def __init__(self, subject: Router) -> None:
        super().__init__(subject)
        self.rows: list[str] = []

    def store(self, row: tuple[object, ...]) -> None:
        self.rows.append(json.dumps(row, allow_nan=False))

    def ask(self, query: Query) -> Decision:
        known = len(self.router.backends)
        try:
            decision = self.router.select(query, now=self.now)
        finally:
            self.store(discovery_event(backend.id for backend in self.router.backends[known:]))
        self.store(decision_event(decision))
        return decision

    def report(self, outcome: Outcome) -> None:
        if self.router.record(outcome, now=self.now).recorded:
            self.store(outcome_event(outcome, now=self.router.advance(self.now)))

    def replayed(
        self, *, latest: float = FOREVER, backends: tuple[Backend, ...] = BACKENDS, **options
    ) -> Router:
        fresh = router(backends, seed=99, **options)
        for row in self.rows:
            apply_event(fresh, json.loads(row), latest=latest)
        return fresh


def walk(witness: Witness, seed: int, steps: int) -> None:
    """Decisions of every kind and outcomes that come in time, late, twice or never, most of them bad."""
    dice = Random(seed)
    outcomes: list[Outcome] = []
    for step in range(steps):
        witness.now += dice.choice([0.0, 0.01, 1.0, 45.0])
        query = Query(
            content_hash=dice.choice(["", f"h{dice.randrange(20)}"]),
            content_type=dice.choice(["", "image/png"]),
            size_bytes=dice.choice([0, 10**6]),
            operation=dice.choice([*Operation]),
            strategy=dice.choice(sorted(STRATEGIES)),
            available_backends=dice.choice([(), (), ("near", "newcomer"), ("third",)]),
            exclude_backends=dice.choice([frozenset(), frozenset({"third"})]),
            location=dice.choice([None, FRANKFURT, Location(region="au")]),
            request_id=dice.choice(["", f"r{step}"]),
            max_ms=dice.choice([None, None, 200.0]),
            min_success=dice.choice([None, None, 0.6]),
        )
        try:
            chosen = witness.ask(query).chosen.backend_id
        except NoEligibleBackend:
            continue
        outcomes.append(
            Outcome(
                chosen,
                dice.random() < 0.3,
                content_hash=query.content_hash,
                duration_ms=dice.choice([None, 1, 250]),
                happened_at=dice.choice([None, witness.now - dice.uniform(0.0, 3000.0)]),
                request_id=query.request_id,
                caller=dice.choice(["", "one", "two"]),
            )
        )
        for _ in range(dice.randrange(3)):
            witness.report(dice.choice(outcomes))


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_a_replay_leaves_the_same_state_to_the_last_digit(seed: int) -> None:
    witness = Witness(router(BACKENDS, seed=seed))
    walk(witness, seed, 150)
    ours = json.dumps(witness.router.snapshot(now=witness.now))
    assert json.dumps(witness.replayed().snapshot(now=witness.now)) == ours


def test_an_adaptive_decision_is_replayed_as_it_fell() -> None:
    witness = Witness(router(BACKENDS, seed=1))
    chosen = [witness.ask(Query(strategy="adaptive")).chosen.backend_id for _ in range(50)]
    assert len(set(chosen)) > 1
    totals = witness.replayed().windows.totals(1, now=witness.now)
    assert {name: cell.decisions for name, cell in totals.items()} == {
        name: chosen.count(name) for name in set(chosen)
    }


def test_a_suspension_and_its_wait_are_replayed() -> None:
    witness = Witness(router(BACKENDS))
    for _ in range(5):
        witness.report(Outcome("near", False))
    for _ in range(7):
        witness.ask(Query())
    fresh = witness.replayed()
    assert fresh.state("near") is State.SUSPENDED
    assert fresh.suspension("near") == witness.router.suspension("near")


def test_what_concerns_a_backend_that_was_taken_out_is_left_out() -> None:
    witness = Witness(router(BACKENDS))
    witness.report(Outcome("far", True))
    witness.report(Outcome("near", True))
    witness.ask(Query(available_backends=("far",)))
    fresh = witness.replayed(backends=BACKENDS[:1])
    assert [backend.id for backend in fresh.backends] == ["near"]
    assert (fresh.outcomes_total, fresh.decisions_total) == (1, 0)


@pytest.mark.parametrize(("options", "known"), [({"discover": False}, 3), ({"max_backends": 4}, 4), ({}, 5)])
def test_discovered_names_come_back_as_far_as_they_would_be_taken_now(options: dict, known: int) -> None:
    witness = Witness(router(BACKENDS))
    witness.ask(Query(available_backends=("new", "newer")))
    assert len(witness.replayed(**options).backends) == known


def test_a_clock_that_was_ahead_is_set_right_by_a_replay() -> None:
    witness = Witness(router(BACKENDS))
    witness.now = NOON + 86_400.0
    witness.ask(Query())
    witness.report(Outcome("near", True, happened_at=witness.now - 1.0))
    fresh = witness.replayed(latest=NOON)
    assert fresh.advance(0.0) == NOON
    totals = fresh.windows.totals(1, now=NOON)
    assert sum(cell.outcomes + cell.decisions for cell in totals.values()) == 2
