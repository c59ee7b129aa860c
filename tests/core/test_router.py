"""The router as a whole: select, record, snapshot, merge."""

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.core.model import Backend, Decision, Location, Operation, Outcome, Query, State
from routing.core.router import MAX_ALTERNATIVES, Router
from routing.core.scoring import PRIORITIES, STRATEGIES
from routing.errors import InvalidArgument, LimitReached, NoEligibleBackend, RoutingError
from support.makers import NOON, Clock, merged, numbers, router

FRANKFURT = Location(50.1, 8.7, "eu")
SYDNEY = Location(-33.9, 151.2, "au")

BACKENDS = (
    Backend("frankfurt", region="eu", latitude=50.1, longitude=8.7, latency_ms=40.0, throughput_mbps=400.0),
    Backend("sydney", region="au", latitude=-33.9, longitude=151.2, latency_ms=60.0, max_inflight=20),
    Backend(
        "archive",
        latency_ms=9000.0,
        storage_usd_per_gb_month=0.001,
        success_rate=0.9,
        tags=frozenset({"cold"}),
        content_affinity={"application/*": 0.9, "*/*": 0.3},
    ),
)


def written(subject: Router, now: float) -> str:
    """All of a router's state as one text; nothing in it may be more than JSON can say."""
    return json.dumps(subject.snapshot(now=now), allow_nan=False)


def random_walk(clock: Clock, seed: int, steps: int) -> list[Decision]:
    """Queries of every kind, outcomes that come in time, late, twice, wrong or never."""
    dice = Random(seed)
    reported: list[Outcome] = []
    decisions = []
    for step in range(steps):
        clock.now += dice.choice([0.0, 0.01, 1.0, 45.0])
        query = Query(
            content_hash=dice.choice(["", f"h{dice.randrange(20)}"]),
            content_type=dice.choice(["", "image/png", "application/zip"]),
            size_bytes=dice.choice([0, 1, 10**6, 10**10]),
            operation=dice.choice([Operation.STORE, Operation.RETRIEVE]),
            strategy=dice.choice(sorted(STRATEGIES)),
            priority=dice.choice(sorted(PRIORITIES)),
            available_backends=dice.choice([(), (), ("sydney", "archive"), ("frankfurt", "newcomer")]),
            location=dice.choice([None, FRANKFURT, SYDNEY, Location(region="au")]),
            request_id=dice.choice(["", f"r{seed}-{step}"]),
        )
        try:
            decision = clock.router.select(query, now=clock.now)
        except NoEligibleBackend:
            continue
        decisions.append(decision)
        reported.append(
            Outcome(
                dice.choice([decision.chosen.backend_id, "sydney"]),
                dice.random() < 0.6,
                content_hash=dice.choice(["", query.content_hash]),
                duration_ms=dice.choice([None, 1, 250, 2**31 - 1]),
                happened_at=dice.choice([None, clock.now - dice.uniform(0.0, 3000.0)]),
                request_id=query.request_id,
            )
        )
        for _ in range(dice.randrange(3)):
            clock.router.record(dice.choice(reported), now=clock.now)
    return decisions


# --- what a decision says ---


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("priority", PRIORITIES)
def test_a_score_is_the_dot_product_of_the_factors_and_the_weights_in_force(
    strategy: str, priority: str
) -> None:
    clock = Clock(router(BACKENDS))
    clock.succeed("sydney", 5, duration_ms=900)
    decision = clock.select(strategy=strategy, priority=priority, location=FRANKFURT, content_type="a/b")
    assert sum(decision.weights) == pytest.approx(1.0, abs=1e-12)
    for one in (decision.chosen, *decision.others):
        dot = sum(map(float.__mul__, decision.weights, one.factor_scores))
        assert one.score == pytest.approx(dot, abs=1e-12)
        assert 0.0 <= one.score <= 1.0


def test_without_a_strategy_the_weights_are_those_that_are_reported() -> None:
    subject = router(BACKENDS, weights={"cost": 3.0})
    decision = subject.select(Query(), now=NOON)
    assert decision.weights == tuple(subject.weights.values())
    assert subject.weights["cost"] == pytest.approx(3.0 / 3.8)


def test_the_others_are_all_that_were_eligible_best_first() -> None:
    decision = router(BACKENDS).select(Query(location=SYDNEY), now=NOON)
    scores = [one.score for one in (decision.chosen, *decision.others)]
    assert scores == sorted(scores, reverse=True)
    assert {decision.chosen.backend_id, *(one.backend_id for one in decision.others)} == {
        "frankfurt",
        "sydney",
        "archive",
    }


@pytest.mark.parametrize(("backends", "expected"), [(1, 0), (2, 1), (33, 32), (34, 32), (100, 32)])
def test_at_most_32_alternatives_are_named_and_they_are_the_best(backends: int, expected: int) -> None:
    names = [Backend(f"b{number:03}", success_rate=number / 100) for number in range(backends)]
    decision = router(names).select(Query(), now=NOON)
    assert MAX_ALTERNATIVES == 32
    ids = [decision.chosen.backend_id, *(one.backend_id for one in decision.others)]
    assert ids == [f"b{number:03}" for number in reversed(range(backends))][: expected + 1]


def test_equal_scores_go_by_id() -> None:
    decision = router(["c", "b", "a"]).select(Query(), now=NOON)
    assert decision.chosen.backend_id == "a"
    assert [one.backend_id for one in decision.others] == ["b", "c"]


def test_a_decision_carries_its_query_its_time_and_why_the_rest_was_left_out() -> None:
    query = Query(exclude_backends=frozenset({"sydney"}), require_tags=frozenset({"cold"}), request_id="r")
    decision = router(BACKENDS).select(query, now=NOON)
    assert (decision.query, decision.decided_at, decision.probe) == (query, NOON, False)
    assert decision.ineligible == {"frankfurt": "lacks the tags cold", "sydney": "excluded by the request"}


# --- what is asked for, and what is not ---


def test_the_client_s_place_decides_under_geographic() -> None:
    subject = router(BACKENDS)
    for location, nearest in ((FRANKFURT, "frankfurt"), (SYDNEY, "sydney")):
        decision = subject.select(Query(location=location, strategy="geographic"), now=NOON)
        assert decision.chosen.backend_id == nearest


def test_the_distance_costs_time() -> None:
    subject = router(BACKENDS)
    near, far = (
        subject.select(Query(location=place, available_backends=("sydney",)), now=NOON).chosen.estimate
        for place in (SYDNEY, FRANKFURT)
    )
    assert far.expected_ms > near.expected_ms + 100.0
    assert far.prior_ms == far.expected_ms


def test_an_unknown_size_is_1_mib_for_the_score_and_0_in_what_is_counted() -> None:
    subject = router(BACKENDS)
    unknown, reported = (subject.select(Query(size_bytes=size), now=NOON) for size in (0, 1 << 20))
    assert unknown.chosen.factor_scores[:2] == reported.chosen.factor_scores[:2]
    assert sum(cell.bytes_total for cell in subject.windows.totals(1, now=NOON).values()) == 1 << 20


@pytest.mark.parametrize("size_bytes", [0, 1, 2**63 - 1])
@pytest.mark.parametrize("amount", [0.0, 1e308])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_largest_and_the_smallest_of_everything_still_gives_scores_between_0_and_1(
    size_bytes: int, amount: float, strategy: str
) -> None:
    extremes = [
        Backend("slow", throughput_mbps=0.001, latency_ms=1e9, latitude=90.0, longitude=180.0),
        Backend("fast", throughput_mbps=1e9, latency_ms=0.0, latitude=-90.0, longitude=-180.0),
        Backend("dear", storage_usd_per_gb_month=1e9, egress_usd_per_gb=1e9, request_usd_per_1000=1e9),
        Backend("free", storage_usd_per_gb_month=0.0, egress_usd_per_gb=0.0, request_usd_per_1000=0.0),
        Backend("never", success_rate=0.0),
        Backend("always", success_rate=1.0),
    ]
    clock = Clock(router(extremes))
    for _ in range(5):
        decision = clock.select(
            size_bytes=size_bytes,
            retention_months=amount,
            expected_reads=amount,
            location=Location(-90.0, 180.0),
            strategy=strategy,
        )
        for one in (decision.chosen, *decision.others):
            assert all(0.0 <= score <= 1.0 for score in (one.score, *one.factor_scores))
        for duration_ms in (1, 2**31 - 1):
            clock.succeed(decision.chosen.backend_id, duration_ms=duration_ms, size_bytes=size_bytes)
            clock.fail(decision.chosen.backend_id, duration_ms=duration_ms)
    assert written(clock.router, clock.now)


# --- equal inputs, equal answers ---


def test_the_same_events_give_the_same_state_to_the_last_byte() -> None:
    clocks = [Clock(router(BACKENDS, seed=7)) for _ in range(2)]
    first, second = (random_walk(clock, seed=3, steps=300) for clock in clocks)
    assert first == second
    texts = [written(clock.router, clock.now) for clock in clocks]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"adaptive"}))
def test_equal_inputs_and_equal_state_give_equal_answers_whatever_the_dice(strategy: str) -> None:
    clocks = [Clock(router(BACKENDS, seed=seed)) for seed in (1, 2)]
    for clock in clocks:
        for _ in range(20):
            clock.select(content_type="image/png")
            clock.succeed("archive", duration_ms=17)
    assert clocks[0].select(strategy=strategy) == clocks[1].select(strategy=strategy)


def test_the_order_of_the_configuration_changes_no_answer_under_any_strategy() -> None:
    forth, back = router(BACKENDS, seed=5), router(BACKENDS[::-1], seed=5)
    for strategy in sorted(STRATEGIES) * 5:
        query = Query(strategy=strategy, location=SYDNEY)
        assert forth.select(query, now=NOON) == back.select(query, now=NOON)


def test_adaptive_tries_what_is_little_known_and_its_dice_decide() -> None:
    names = [Backend(name, success_rate=0.9) for name in "abcd"]
    chosen = set()
    for seed in range(20):
        clock = Clock(router(names, seed=seed))
        chosen |= {clock.select(strategy="adaptive").chosen.backend_id for _ in range(5)}
    assert chosen == set("abcd")


def test_asking_about_scores_changes_nothing() -> None:
    clock = Clock(router(BACKENDS))
    random_walk(clock, seed=1, steps=50)
    before = written(clock.router, clock.now)
    assert set(clock.router.scores(now=clock.now)) == {"frankfurt", "sydney", "archive", "newcomer"}
    assert written(clock.router, clock.now) == before


# --- the clock ---


def test_time_never_runs_backwards() -> None:
    subject = router(BACKENDS)
    assert subject.select(Query(), now=NOON).decided_at == NOON
    assert subject.select(Query(), now=NOON - 9999.0).decided_at == NOON
    assert subject.record(Outcome("sydney", True, duration_ms=5), now=NOON - 9999.0).recorded
    assert subject.snapshot(now=0.0)["at"] == NOON
    assert subject.windows.totals(1, now=NOON)["sydney"].outcomes == 1


# --- discovery ---


def test_a_name_from_a_client_is_known_from_then_on() -> None:
    subject = router(["a"])
    subject.select(Query(available_backends=("new",)), now=NOON)
    subject.record(Outcome("newer", True), now=NOON)
    assert [backend.id for backend in subject.backends] == ["a", "new", "newer"]
    assert [backend.discovered for backend in subject.backends] == [False, True, True]
    decision = subject.select(Query(available_backends=("a", "new", "newer")), now=NOON)
    assert {decision.chosen.backend_id, *(one.backend_id for one in decision.others)} == {"a", "new", "newer"}


@pytest.mark.parametrize("field", ["available_backends", "backend_id"])
def test_with_discovery_off_an_unknown_name_changes_nothing(field: str) -> None:
    subject = router(["a"], discover=False)
    before = written(subject, NOON)
    with pytest.raises(InvalidArgument, match=f"{field}: 'new' is not valid"):
        if field == "backend_id":
            subject.record(Outcome("new", True), now=NOON)
        else:
            subject.select(Query(available_backends=("a", "new")), now=NOON)
    assert written(subject, NOON) == before


@pytest.mark.parametrize("field", ["available_backends", "backend_id"])
def test_past_the_limit_of_backends_nothing_changes(field: str) -> None:
    subject = router(["a"], max_backends=1)
    before = written(subject, NOON)
    with pytest.raises(LimitReached, match=f"{field}: 'new' is not known"):
        if field == "backend_id":
            subject.record(Outcome("new", True), now=NOON)
        else:
            subject.select(Query(available_backends=("a", "new")), now=NOON)
    assert written(subject, NOON) == before


# --- outcomes ---


def test_the_next_decision_already_reflects_an_outcome() -> None:
    clock = Clock(router(["a", "b"]))
    assert clock.select().chosen.backend_id == "a"
    clock.fail("a")
    assert clock.select().chosen.backend_id == "b"


def test_an_outcome_says_whether_it_was_recorded_never_whether_the_operation_succeeded() -> None:
    clock = Clock(router(["a"]))
    for success in (True, False):
        assert clock.record("a", success).recorded


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"duration_ms": None},
        {"size_bytes": 0},
        {"content_type": ""},
        {"content_hash": ""},
        {"request_id": ""},
        {"happened_at": None},
    ],
    ids=lambda fields: "".join(fields),
)
@pytest.mark.parametrize("success", [True, False])
def test_an_outcome_with_an_unset_field_is_counted_and_spoils_nothing(
    fields: dict[str, Any], success: bool
) -> None:
    full = {
        "duration_ms": 120,
        "size_bytes": 1000,
        "content_type": "image/png",
        "content_hash": "h",
        "request_id": "r",
        "happened_at": NOON,
    }
    clock = Clock(router(["a", "b"]))
    clock.select(request_id="r", content_hash="h")
    assert clock.record("a", success, **(full | fields)).recorded
    cell = clock.router.windows.totals(1, now=NOON)["a"]
    assert (cell.outcomes, cell.successes) == (1, success)
    assert (cell.durations is None) == (not success or "duration_ms" in fields)
    assert clock.select().chosen.score > 0.0


@pytest.mark.parametrize("duration_ms", [None, 1, 2**31 - 1])
def test_a_failure_says_nothing_about_speed(duration_ms: int | None) -> None:
    clock = Clock(router(["a"]))
    before = clock.select().chosen.estimate.expected_ms
    clock.fail("a", 3, duration_ms=duration_ms)
    assert clock.select().chosen.estimate.expected_ms == before


def test_an_outcome_without_a_duration_says_nothing_about_speed() -> None:
    clock = Clock(router(["a"]))
    before = clock.select().chosen.estimate
    clock.succeed("a", 3)
    after = clock.select().chosen.estimate
    assert after.expected_ms == before.expected_ms
    assert after.success_probability > before.success_probability


@pytest.mark.parametrize("link", ["request_id", "content_hash"])
def test_an_outcome_teaches_about_the_place_the_type_and_the_size_of_its_request(link: str) -> None:
    """The outcome itself says none of them; the decision knows all three."""
    clock = Clock(router(["a"]))
    for number in range(40):
        for location, kind, duration_ms in ((SYDNEY, "image/png", 1500), (FRANKFURT, "video/mp4", 150)):
            name = {link: f"{number} {kind}"}
            clock.select(**name, location=location, content_type=kind, size_bytes=1000)
            assert clock.record("a", True, **name, duration_ms=duration_ms).message.endswith("its decision")
            clock.now += 1.0
    far, near = (
        clock.select(location=place, content_type=kind, size_bytes=1000).chosen.estimate.expected_ms
        for place, kind in ((SYDNEY, "image/png"), (FRANKFURT, "video/mp4"))
    )
    assert far > 2 * near
    assert clock.router.windows.totals(1, content_type="image/png", now=clock.now)["a"].outcomes == 40


def test_an_outcome_learns_the_size_from_its_decision() -> None:
    """Ten seconds are slow for a megabyte, and quick for a gigabyte."""
    after = {}
    for size_bytes in (10**6, 10**9):
        clock = Clock(router(["a"]))
        for number in range(5):
            clock.select(request_id=f"r{number}", size_bytes=size_bytes)
            clock.succeed("a", request_id=f"r{number}", duration_ms=10_000)
        estimate = clock.select(size_bytes=size_bytes).chosen.estimate
        after[size_bytes] = estimate.expected_ms / estimate.prior_ms
    assert after[10**6] > 5.0
    assert after[10**9] < 0.5


@pytest.mark.parametrize("late_s", [3600.0, 2 * 86_400.0])
@pytest.mark.parametrize("fields", [{"request_id": "r"}, {"content_hash": "h"}])
def test_an_outcome_that_comes_after_its_decision_s_hour_stands_for_itself(
    fields: dict[str, str], late_s: float
) -> None:
    clock = Clock(router(["a"]))
    clock.select(**fields, content_type="image/png")
    clock.now += late_s
    assert clock.record("a", True, **fields, duration_ms=100, happened_at=NOON).message == "recorded"
    clock.now += 3600.0
    assert clock.record("a", False, **fields).message == "recorded"
    totals = clock.router.windows.totals(168, content_type="unknown", now=clock.now)
    assert (totals["a"].outcomes, totals["a"].successes) == (2, 1)


def test_an_outcome_that_overtakes_its_decision_does_no_harm() -> None:
    """Told first, or with a clock that is behind: the decision is then linked to the next word on it."""
    clock = Clock(router([Backend("a", max_inflight=4)]))
    assert clock.record("a", True, request_id="r").message == "recorded"
    clock.select(request_id="r")
    again = clock.record("a", True, request_id="r", happened_at=NOON - 5.0)
    assert again.message == "recorded for its decision"
    assert clock.select().chosen.factor_scores[-1] == 1.0


def test_decisions_that_nobody_ever_reports_weigh_on_nothing_after_a_while() -> None:
    quiet, busy = (Clock(router([Backend("a", max_inflight=4), Backend("b", max_inflight=4)])) for _ in "ab")
    for number in range(1000):
        busy.select(
            content_hash=f"h{number}" if number % 2 else "", request_id=f"r{number % 7}" * (number % 3)
        )
    assert busy.select().chosen.factor_scores[-1] == 0.0
    for clock in (quiet, busy):
        clock.now += 31.0
    assert busy.select(request_id="now").chosen == quiet.select(request_id="now").chosen


deliveries = st.lists(
    st.tuples(
        st.sampled_from(["frankfurt", "sydney", "archive"]),
        st.booleans(),
        st.sampled_from(["", "image/png"]),
        # How much an odd transfer counts is judged by what came before it: these are ordinary,
        # and fifty times as long on the archive.
        st.integers(40, 400),
        st.sampled_from(["reported", "reported", "never reported"]),
        st.integers(1, 3),
    ),
    max_size=20,
)


@settings(max_examples=60)
@given(deliveries, st.randoms(use_true_random=False))
def test_outcomes_late_twice_or_out_of_order_teach_what_they_would_have_taught_in_time(
    events: list[tuple[str, bool, str, int, str, int]], dice: Random
) -> None:
    """And those that never come teach nothing, and are in flight no more.

    What was in flight beside a decision is what had been reported by then: so all are decided first.
    """
    in_time, otherwise = Clock(router(BACKENDS)), Clock(router(BACKENDS))
    for step, (backend_id, _, content_type, _, _, _) in enumerate(events):
        query = Query(available_backends=(backend_id,), content_type=content_type, request_id=f"r{step}")
        for clock in (in_time, otherwise):
            clock.router.select(query, now=NOON + step)
    reported: list[Outcome] = []
    for step, (backend_id, success, _, duration_ms, fate, _) in enumerate(events):
        if fate == "reported":
            # No two at one time: of those the one reported later counts as later.
            at = NOON + 60.0 + 10.0 * step
            ms = 50 * duration_ms if backend_id == "archive" else duration_ms
            outcome = Outcome(backend_id, success, duration_ms=ms, request_id=f"r{step}")
            reported.append(replace(outcome, happened_at=at))
            in_time.router.record(reported[-1], now=at)
    often = [outcome for outcome in reported for _ in range(events[int(outcome.request_id[1:])][-1])]
    dice.shuffle(often)
    for clock in (in_time, otherwise):
        clock.now = NOON + 1800.0
    for outcome in often:
        assert otherwise.router.record(outcome, now=otherwise.now).recorded
    assert otherwise.router.outcomes_total == in_time.router.outcomes_total == len(reported)
    assert otherwise.snapshot()["windows"] == in_time.snapshot()["windows"]
    for name in ("frankfurt", "sydney", "archive"):
        # A success between failures that is reported after all of them does not lift a suspension.
        if sum(one.backend_id == name and not one.success for one in reported) < 5:
            assert otherwise.router.state(name) is in_time.router.state(name)
        fields = {"available_backends": (name,), "request_id": "probe"}
        one, other = (clock.select(**fields).chosen for clock in (in_time, otherwise))
        # Speed is solved for step by step, and how far a change explains a failure
        # depends on what was known then: transfers of one kind differ by five times as much.
        assert 1 / 3 < one.estimate.expected_ms / other.estimate.expected_ms < 3.0
        rates = [numbers(each.estimate)[1:] for each in (one, other)]
        assert rates[0] == pytest.approx(rates[1], rel=0.25)
        assert one.factor_scores[-1] == other.factor_scores[-1]


def test_an_outcome_s_own_fields_go_before_those_of_its_decision() -> None:
    clock = Clock(router(["a"]))
    clock.select(request_id="r", content_type="image/png", content_hash="h", size_bytes=5)
    clock.succeed("a", request_id="r", content_type="text/plain", content_hash="g")
    assert "a" not in clock.router.windows.totals(1, content_type="image/png", now=NOON) or (
        clock.router.windows.totals(1, content_type="image/png", now=NOON)["a"].outcomes == 0
    )
    assert clock.router.windows.totals(1, content_type="text/plain", now=NOON)["a"].outcomes == 1
    assert clock.snapshot()["holders"]["holders"] == {"g": {"a": NOON}}


def test_an_outcome_is_linked_only_once() -> None:
    clock = Clock(router(["a", "b"]))
    clock.select(request_id="r")
    first = clock.record("a", True, request_id="r")
    repeat = clock.record("a", True, request_id="r")
    other = clock.record("b", True, request_id="r")
    assert (first.message, other.message) == ("recorded for its decision",) * 2
    assert repeat.recorded
    assert "not counted again" in repeat.message
    assert clock.router.outcomes_total == 2
    assert clock.record("a", True).message == "recorded"


def test_five_minutes_ahead_is_taken_for_now_and_a_moment_more_is_refused() -> None:
    clock = Clock(router(["a"]))
    assert clock.record("a", True, happened_at=NOON + 300.0).recorded
    assert clock.router.windows.totals(1, now=NOON)["a"].outcomes == 1
    before = written(clock.router, NOON)
    with pytest.raises(InvalidArgument, match="timestamp") as caught:
        clock.record("a", True, happened_at=NOON + 300.001)
    assert caught.value.field == "timestamp"
    with pytest.raises(InvalidArgument):
        clock.record("unheard of", True, happened_at=253_402_300_799.0)
    assert written(clock.router, NOON) == before


@pytest.mark.parametrize("retention_hours", [1, 168])
def test_what_is_older_than_the_retention_is_not_recorded_and_changes_nothing(retention_hours: int) -> None:
    clock = Clock(router(["a"], retention_hours=retention_hours))
    limit = NOON - retention_hours * 3600.0
    assert clock.record("a", True, happened_at=limit).recorded
    before = written(clock.router, NOON)
    for backend_id in ("a", "unheard of"):
        recorded = clock.record(backend_id, True, happened_at=limit - 0.001)
        assert not recorded.recorded
        assert recorded.message == f"not recorded: it happened longer than {retention_hours} hours ago"
    assert written(clock.router, NOON) == before


def test_a_late_outcome_counts_when_it_happened() -> None:
    clock = Clock(router(["a"]))
    clock.succeed("a", happened_at=NOON - 5 * 3600.0)
    assert clock.router.windows.totals(1, now=NOON) == {}
    assert clock.router.windows.totals(6, now=NOON)["a"].outcomes == 1
    assert clock.router.recent.rates(now=NOON) == {}


def test_outcomes_in_any_order_teach_the_same() -> None:
    times = [NOON - step * 100.0 for step in range(30)]
    estimates = []
    for seed in range(3):
        clock = Clock(router(["a"]))
        for at in Random(seed).sample(times, len(times)):
            clock.record("a", at % 300 < 200, duration_ms=300, happened_at=at)
        estimates.append(clock.select().chosen.estimate)
    for estimate in estimates[1:]:
        # What is learned of speed is solved for step by step, to a tenth of a percent.
        assert numbers(estimate) == pytest.approx(numbers(estimates[0]), rel=0.01)


# --- holders ---


def retrieve(clock: Clock, content_hash: str = "h", **fields: Any) -> list[str]:
    decision = clock.select(content_hash=content_hash, operation=Operation.RETRIEVE, **fields)
    return sorted([decision.chosen.backend_id, *(one.backend_id for one in decision.others)])


def test_a_retrieval_goes_to_those_that_stored_the_content() -> None:
    clock = Clock(router(["a", "b", "c"]))
    assert retrieve(clock) == ["a", "b", "c"]
    clock.succeed("b", content_hash="h")
    clock.fail("c", content_hash="h")
    assert retrieve(clock) == ["b"]
    assert retrieve(clock, "another") == ["a", "b", "c"]
    assert retrieve(clock, available_backends=("a", "c")) == ["a", "c"]
    assert len(clock.select(content_hash="h").others) == 2


def test_a_store_linked_to_its_decision_makes_a_holder_without_naming_the_hash() -> None:
    clock = Clock(router(["a", "b"]))
    decision = clock.select(content_hash="h")
    clock.succeed(decision.chosen.backend_id, request_id=decision.query.request_id)
    assert retrieve(clock) == ["a"]


def test_only_a_store_makes_a_holder() -> None:
    """Where no store is remembered, a retrieval that worked narrows nothing."""
    clock = Clock(router(["a", "b"]))
    decision = clock.select(content_hash="h", operation=Operation.RETRIEVE)
    clock.succeed("a", content_hash="h", request_id=decision.query.request_id)
    assert retrieve(clock) == ["a", "b"]


def test_an_outcome_that_names_only_the_hash_may_be_of_a_store_that_nobody_asked_about() -> None:
    clock = Clock(router(["a", "b"]))
    assert retrieve(clock, request_id="") == ["a", "b"]
    clock.succeed("a", content_hash="h")
    assert retrieve(clock) == ["a"]


def test_where_the_only_holder_may_not_serve_the_reasons_say_so() -> None:
    clock = Clock(router(["a", "b"]))
    clock.succeed("b", content_hash="h")
    with pytest.raises(NoEligibleBackend) as caught:
        retrieve(clock, exclude_backends=frozenset({"b"}))
    assert caught.value.reasons == {"a": "is not known to hold the content", "b": "excluded by the request"}


# --- load ---


def test_what_is_in_flight_lowers_the_load_factor_until_it_is_reported() -> None:
    clock = Clock(router([Backend("a", max_inflight=4)]))
    loads = [clock.select().chosen.factor_scores[-1] for _ in range(6)]
    assert loads == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    for number in range(1, 7):
        clock.succeed("a", request_id=f"request-{number}")
    assert clock.select().chosen.factor_scores[-1] == 1.0
    clock.now += 31.0
    assert clock.select().chosen.factor_scores[-1] == 1.0


def test_a_decision_that_is_withdrawn_is_no_load_but_stays_counted() -> None:
    clock = Clock(router([Backend("a", max_inflight=4)]))
    for number in range(1, 4):
        clock.select()
        clock.router.cancel(f"request-{number}")
    assert clock.select().chosen.factor_scores[-1] == 1.0
    assert clock.router.decisions_total == 4
    assert clock.record("a", True, request_id="request-1").message == "recorded"


def test_a_full_backend_gives_way_to_its_equal() -> None:
    clock = Clock(router([Backend("a", max_inflight=1), Backend("b", max_inflight=1)]))
    assert [clock.select().chosen.backend_id for _ in range(4)] == ["a", "b", "a", "a"]


# --- snapshot and merge ---


@pytest.mark.parametrize("seed", range(6))
def test_snapshot_and_back_changes_nothing(seed: int) -> None:
    clock = Clock(router(BACKENDS))
    random_walk(clock, seed, steps=250)
    taken = written(clock.router, clock.now)
    restored = Clock(merged([json.loads(taken)], now=clock.now, backends=BACKENDS), now=clock.now)
    assert written(restored.router, clock.now) == taken
    for backend in clock.router.backends:
        assert restored.router.state(backend.id) is clock.router.state(backend.id)
    for strategy in sorted(set(STRATEGIES) - {"adaptive"}) * 3:
        fields = {"strategy": strategy, "location": SYDNEY, "content_hash": "h1", "request_id": strategy}
        decision = clock.select(**fields)
        assert restored.select(**fields) == decision
        for each in (clock, restored):
            each.now += 20.0
            each.fail(decision.chosen.backend_id, request_id=strategy, duration_ms=9)
    assert written(restored.router, clock.now) == written(clock.router, clock.now)


def test_a_snapshot_stays_as_it_was_taken_whatever_happens_next() -> None:
    clock = Clock(router(BACKENDS))
    random_walk(clock, seed=2, steps=100)
    taken = clock.snapshot()
    text = json.dumps(taken)
    other = merged([taken], now=clock.now, backends=BACKENDS)
    for each in (clock, Clock(other, now=clock.now)):
        random_walk(each, seed=3, steps=100)
    assert json.dumps(taken) == text


events = st.lists(
    st.tuples(
        st.sampled_from(["frankfurt", "sydney", "archive"]),
        st.booleans(),
        st.sampled_from(["", "h1", "h2"]),
        st.sampled_from(["", "image/png", "text/plain"]),
        st.none() | st.integers(1, 10_000),
        st.integers(0, 5000),
    ),
    max_size=25,
    unique_by=lambda event: event[-1],
)
Events = list[tuple[str, bool, str, str, int | None, int]]


def router_after(streams: Sequence[Events]) -> Router:
    """A router that saw these streams, one after the other."""
    clock = Clock(router(BACKENDS))
    for server, stream in enumerate(streams):
        for step, (backend_id, success, content_hash, content_type, duration_ms, ago) in enumerate(stream):
            # A backend of its own for each type, so that what is decided does not hang on what is learned.
            only = {"": "frankfurt", "image/png": "sydney", "text/plain": "archive"}[content_type]
            clock.select(available_backends=(only,), content_type=content_type, request_id=f"{server}-{step}")
            clock.record(
                backend_id,
                success,
                content_hash=content_hash,
                content_type=content_type,
                duration_ms=duration_ms,
                # No two at one time: of those the one reported later counts as later.
                happened_at=NOON - ago - server / 4,
            )
    return clock.router


@settings(max_examples=50)
@given(events, events, events)
def test_merging_is_having_seen_all_in_any_order_and_any_grouping(a: Events, b: Events, c: Events) -> None:
    parts = [
        router_after([[]] * server + [stream]).snapshot(now=NOON) for server, stream in enumerate((a, b, c))
    ]
    tail = merged(parts[1:], now=NOON, backends=BACKENDS).snapshot(now=NOON)
    whole = router_after([a, b, c])
    for order in (parts, parts[::-1], [parts[0], tail], [tail, parts[0]]):
        both = merged(order, now=NOON, backends=BACKENDS)
        assert both.decisions_total == whole.decisions_total
        assert both.outcomes_total == whole.outcomes_total
        assert both.recent.rates(now=NOON) == whole.recent.rates(now=NOON)
        ours, theirs = both.snapshot(now=NOON), whole.snapshot(now=NOON)
        assert ours["holders"]["holders"] == theirs["holders"]["holders"]
        assert ours["windows"] == theirs["windows"]
        scored = [one.scores(content_type="image/png", now=NOON) for one in (both, whole)]
        # The sums are the same. The effects that they give are solved for step by step, and
        # each server judges for itself what a change explains.
        assert scored[0] == pytest.approx(scored[1], rel=0.25)


def test_discovered_names_come_with_a_snapshot_as_far_as_there_is_room() -> None:
    first = Clock(router(["a"]))
    first.succeed("x")
    first.succeed("y")
    second = router(["a"], max_backends=2)
    second.merge(first.snapshot(), now=NOON)
    assert [backend.id for backend in second.backends] == ["a", "x"]
    assert second.outcomes_total == 2


def test_two_servers_that_heard_of_each_other_know_each_other_s_holders_and_load() -> None:
    first, second = (Clock(router([Backend("a", max_inflight=10), Backend("b")])) for _ in range(2))
    first.select(available_backends=("a",), request_id="one")
    second.select(available_backends=("a",), request_id="other")
    second.succeed("b", content_hash="h")
    first.router.merge(second.snapshot(), now=NOON)
    assert retrieve(first) == ["b"]
    decision = first.select(available_backends=("a",), request_id="third")
    assert decision.chosen.factor_scores[-1] == 0.8
    assert first.record("a", True, request_id="other").message == "recorded for its decision"


# --- odds and ends ---


def test_a_router_shows_how_much_it_has_seen() -> None:
    clock = Clock(router(BACKENDS))
    clock.select()
    clock.fail("sydney", 2)
    assert repr(clock.router) == "Router(backends=3, decisions=1, outcomes=2)"
    assert repr(clock.router._learning).startswith("Learning(")


def test_an_unheard_of_backend_is_in_no_trouble() -> None:
    assert router(["a"]).state("unheard of") is State.OK


def test_scores_are_of_enabled_backends_and_of_one_where_asked() -> None:
    subject = router([*BACKENDS, Backend("off", enabled=False)])
    every = subject.scores(now=NOON)
    assert list(every) == ["archive", "frankfurt", "sydney"]
    assert subject.scores(backend_id="sydney", now=NOON) == {"sydney": every["sydney"]}
    assert subject.scores(backend_id="off", now=NOON) == {}
    zipped = subject.scores(content_type="application/zip", now=NOON)
    assert zipped["archive"] - every["archive"] == pytest.approx(0.1 * (0.9 - 0.3))
    decision = subject.select(Query(), now=NOON)
    assert every == {
        one.backend_id: one.score
        for one in sorted((decision.chosen, *decision.others), key=lambda one: one.backend_id)
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_whatever_happens_a_suspended_backend_is_chosen_only_as_a_probe_or_among_its_like(seed: int) -> None:
    dice = Random(seed)
    clock = Clock(router(["a", "b", "c", "d"], seed=seed))
    decisions = 0
    for _ in range(150):
        clock.now += dice.choice([0.0, 1.0, 20.0])
        fields = {
            "strategy": dice.choice(sorted(STRATEGIES)),
            "available_backends": dice.choice([(), ("a", "b"), ("c",), ("a", "b", "c", "d")]),
            "exclude_backends": dice.choice([frozenset(), frozenset("b")]),
        }
        states = {name: clock.router.state(name) for name in "abcd"}
        try:
            decision = clock.select(**fields)
        except RoutingError:
            raise AssertionError("somebody is always eligible") from None
        decisions += 1
        asked = set(fields["available_backends"] or "abcd") - fields["exclude_backends"]
        well = {name for name in asked if states[name] is State.OK}
        ranked = [decision.chosen.backend_id, *(one.backend_id for one in decision.others)]
        if decision.probe:
            assert states[ranked[0]] is State.SUSPENDED
            assert set(ranked[1:]) == (well or asked) - {ranked[0]}
        else:
            assert set(ranked) == (well or asked)
        assert {*ranked, *decision.ineligible} == set(fields["available_backends"] or "abcd")
        for _ in range(dice.randrange(3)):
            clock.record(
                dice.choice(ranked), dice.random() < 0.3, happened_at=clock.now - dice.choice([0, 90])
            )
    assert clock.router.decisions_total == decisions
