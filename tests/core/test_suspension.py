"""When a backend is suspended, when it is probed, and what lifts it: the contract, step by step."""

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers import NOON, Clock, router

from routing.core.model import Backend, Operation, State
from routing.core.suspension import Backoff, FailureRecord, Suspensions

RELIABLE = "reliability"
"""The strategy under which a backend that never failed wins."""


def two() -> Clock:
    """`good` always wins when both may serve: `bad` is slower, dearer and fails more."""
    bad = Backend(
        "bad", latency_ms=5000.0, storage_usd_per_gb_month=9.0, egress_usd_per_gb=9.0, success_rate=0.6
    )
    return Clock(router([Backend("good", success_rate=0.999), bad]))


def suspended(clock: Clock, backend_id: str = "bad") -> bool:
    return clock.router.state(backend_id) is State.SUSPENDED


def others(decision: Any) -> list[str]:
    return [one.backend_id for one in decision.others]


def with_a_suspended() -> Clock:
    clock = two()
    clock.fail("bad", 5)
    assert suspended(clock)
    return clock


def decisions_until_probe(clock: Clock, limit: int = 10_000, **fields: Any) -> int:
    """How many decisions pass before one goes to `bad`, the clock standing still."""
    for passed in range(limit):
        if clock.select(**fields).probe:
            return passed
    raise AssertionError(f"no probe in {limit} decisions")


# --- the two reasons ---


def test_five_failures_in_a_row_suspend_and_four_do_not() -> None:
    clock = two()
    clock.succeed("bad", 50)
    clock.fail("bad", 4)
    assert clock.router.state("bad") is State.OK
    clock.fail("bad")
    assert suspended(clock)


def test_a_success_in_between_begins_the_run_anew() -> None:
    clock = two()
    clock.succeed("bad", 50)
    for _ in range(3):
        clock.fail("bad", 4)
        clock.succeed("bad")
    assert not suspended(clock)
    clock.fail("bad", 5)
    assert suspended(clock)


def test_failures_in_a_row_count_whatever_their_pace() -> None:
    clock = two()
    for _ in range(5):
        assert not suspended(clock)
        clock.fail("bad")
        clock.now += 20 * 3600.0
    assert suspended(clock)


def test_a_probability_below_a_half_suspends_on_ten_outcomes_and_not_on_nine() -> None:
    clock = two()
    for outcomes, success in enumerate([False, False, False, False, True] * 2, 1):
        assert not suspended(clock), outcomes
        clock.record("bad", success)
    # 2 of 10, and a profile that says 0.6: below a half, though never five in a row.
    assert clock.router.suspension("bad").failures_at == []
    assert suspended(clock)


@pytest.mark.parametrize(
    ("probability", "outcomes", "expected"),
    [(0.499, 10, True), (0.5, 10, False), (0.499, 9, False), (0.0, 9, False), (0.0, 1000, True)],
)
def test_a_record_is_poor_below_a_half_and_from_ten_outcomes_on(
    probability: float, outcomes: int, expected: bool
) -> None:
    """Whether the last of them succeeded or not."""
    for success in (True, False):
        subject = Suspensions()
        subject.note_outcome(
            "a", success=success, probability=probability, outcomes=outcomes, at=NOON, now=NOON
        )
        assert ("a" in subject.names) is expected


def test_a_probability_above_a_half_does_not_suspend_however_many_outcomes_there_are() -> None:
    clock = two()
    for _ in range(50):
        clock.fail("bad", 2)
        clock.succeed("bad", 3)
    assert not suspended(clock)


def test_one_backend_that_fails_does_not_suspend_another() -> None:
    clock = with_a_suspended()
    assert clock.router.state("good") is State.OK
    assert repr(clock.router._suspensions) == "Suspensions(suspended=['bad'])"


def test_a_disabled_backend_is_disabled_even_when_it_fails() -> None:
    clock = Clock(router([Backend("off", enabled=False), Backend("on")]))
    clock.fail("off", 5)
    assert clock.router.state("off") is State.DISABLED


# --- what suspension means ---


@pytest.mark.parametrize(
    "strategy",
    ["hybrid", "performance", "cost", "reliability", "geographic", "content_type", "adaptive"],
)
def test_a_suspended_backend_is_not_eligible_under_any_strategy(strategy: str) -> None:
    best = Backend(
        "best",
        latency_ms=1.0,
        storage_usd_per_gb_month=0.0,
        egress_usd_per_gb=0.0,
        request_usd_per_1000=0.0,
        content_affinity={"*/*": 1.0},
    )
    clock = Clock(router([best, Backend("worst", latency_ms=9000.0, success_rate=0.5)]))
    clock.fail("best", 5)
    for _ in range(200):
        decision = clock.select(strategy=strategy)
        assert decision.chosen.backend_id == "worst"
        assert decision.others == ()
        assert decision.ineligible == {"best": "suspended: it keeps failing"}
        assert not decision.probe


def test_when_all_eligible_ones_are_suspended_all_stay_eligible() -> None:
    clock = two()
    clock.fail("good", 5)
    clock.fail("bad", 5)
    decision = clock.select(strategy=RELIABLE)
    assert {decision.chosen.backend_id, *others(decision)} == {"good", "bad"}
    assert decision.ineligible == {}
    assert not decision.probe


def test_what_counts_is_whether_another_eligible_one_is_not_suspended() -> None:
    """`good` is there and well, but not for this request."""
    clock = with_a_suspended()
    for fields in ({"available_backends": ("bad",)}, {"exclude_backends": frozenset({"good"})}):
        decision = clock.select(**fields)
        assert decision.chosen.backend_id == "bad"
        assert not decision.probe


def test_a_retrieval_from_a_suspended_holder_is_still_answered() -> None:
    clock = two()
    clock.succeed("bad", content_hash="h")
    clock.fail("bad", 5)
    decision = clock.select(content_hash="h", operation=Operation.RETRIEVE)
    assert decision.chosen.backend_id == "bad"
    assert decision.ineligible == {"good": "is not known to hold the content"}


# --- probes ---


def test_the_first_probe_comes_after_30_seconds() -> None:
    clock = with_a_suspended()
    clock.now += 29.999
    assert not clock.select().probe
    clock.now += 0.001
    decision = clock.select()
    assert decision.probe
    assert decision.chosen.backend_id == "bad"


def test_or_after_200_decisions_that_it_would_have_been_eligible_for() -> None:
    assert decisions_until_probe(with_a_suspended()) == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"available_backends": ("good", "third")},
        {"exclude_backends": frozenset({"bad"})},
        {"size_bytes": 2000},
        {"require_tags": frozenset({"hot"})},
    ],
    ids=["not available", "excluded", "too large", "lacks a tag"],
)
def test_a_decision_that_it_would_not_have_been_eligible_for_does_not_count(fields: dict[str, Any]) -> None:
    hot = frozenset({"hot"})
    backends = [Backend("good", tags=hot), Backend("bad", max_object_bytes=1000), Backend("third", tags=hot)]
    clock = Clock(router(backends))
    clock.fail("bad", 5)
    for _ in range(300):
        assert not clock.select(**fields).probe
    assert decisions_until_probe(clock) == 200
    clock.now += 31.0
    assert not clock.select(**fields).probe


def test_each_failed_probe_doubles_the_wait_in_seconds_up_to_600() -> None:
    clock = with_a_suspended()
    waits = []
    for _ in range(8):
        since = clock.now
        while not (decision := clock.select()).probe:
            clock.now += 30.0
        clock.fail("bad", request_id=decision.query.request_id)
        waits.append(clock.now - since)
    assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0, 600.0]


def test_each_failed_probe_doubles_the_wait_in_decisions_up_to_4000() -> None:
    clock = with_a_suspended()
    waits = []
    for _ in range(7):
        waits.append(decisions_until_probe(clock))
        clock.fail("bad")
    assert waits == [200, 400, 800, 1600, 3200, 4000, 4000]


def test_a_probe_whose_outcome_never_comes_is_followed_by_another_after_the_same_wait() -> None:
    clock = with_a_suspended()
    assert [decisions_until_probe(clock) for _ in range(3)] == [200, 200, 200]
    clock.now += 30.0
    assert clock.select().probe
    assert not clock.select().probe


def test_while_a_probe_is_out_other_requests_go_elsewhere() -> None:
    clock = with_a_suspended()
    clock.now += 30.0
    assert clock.select().probe
    decision = clock.select()
    assert decision.chosen.backend_id == "good"
    assert others(decision) == []


def test_during_a_probe_the_alternatives_are_the_others_best_first() -> None:
    names = [Backend(name, success_rate=rate) for name, rate in (("x", 0.9), ("y", 0.99), ("z", 0.95))]
    clock = Clock(router([*names, Backend("bad", success_rate=0.97)]))
    clock.fail("bad", 5)
    clock.now += 30.0
    decision = clock.select(strategy=RELIABLE)
    assert decision.probe
    assert decision.chosen.backend_id == "bad"
    assert others(decision) == ["y", "z", "x"]
    assert decision.chosen.score < decision.others[-1].score


def test_a_probe_reports_its_own_score_and_factors() -> None:
    clock = with_a_suspended()
    clock.now += 30.0
    chosen = clock.select().chosen
    weights = clock.router.weights.values()
    dot = sum(weight * score for weight, score in zip(weights, chosen.factor_scores, strict=True))
    assert chosen.score == pytest.approx(dot, abs=1e-12)


def test_of_several_suspended_the_one_due_first_is_probed_and_then_the_next() -> None:
    clock = Clock(router(["a", "b", "c", "d"]))
    clock.fail("c", 5)
    clock.now += 1.0
    clock.fail("b", 5)
    clock.fail("a", 5)
    clock.now += 29.0
    assert [clock.select().chosen.backend_id for _ in range(2)] == ["c", "d"]
    clock.now += 1.0
    probes = [clock.select() for _ in range(3)]
    assert [one.chosen.backend_id for one in probes] == ["a", "b", "d"]
    assert [others(one) for one in probes] == [["d"]] * 2 + [[]]
    assert probes[0].ineligible == dict.fromkeys(("b", "c"), "suspended: it keeps failing")


def test_several_suspended_count_the_same_decision_each_for_itself() -> None:
    clock = Clock(router(["a", "b", "c"]))
    clock.fail("a", 5)
    for _ in range(100):
        clock.select()
    clock.fail("b", 5)
    probed = {}
    for passed in range(301):
        decision = clock.select()
        if decision.probe:
            probed.setdefault(decision.chosen.backend_id, passed)
    assert probed == {"a": 100, "b": 200}


def test_adaptive_waits_like_the_others_before_the_first_probe_and_never_for_more_decisions() -> None:
    """Its share of traffic for what failed: one decision in 200, however often that was in vain."""
    clock = with_a_suspended()
    waits = []
    for _ in range(4):
        waits.append(decisions_until_probe(clock, strategy="adaptive"))
        clock.fail("bad")
    assert waits == [200, 200, 200, 200]
    assert decisions_until_probe(clock) == 3200


def test_asking_again_under_the_same_request_id_does_not_send_another_probe() -> None:
    clock = with_a_suspended()
    clock.now += 30.0
    assert clock.select(request_id="r").probe
    assert not clock.select(request_id="r").probe


# --- what lifts it ---


def test_a_successful_probe_lifts_the_suspension() -> None:
    clock = with_a_suspended()
    clock.now += 30.0
    decision = clock.select()
    clock.succeed("bad", request_id=decision.query.request_id)
    assert clock.router.state("bad") is State.OK
    assert others(clock.select()) == ["bad"]
    assert repr(clock.router._suspensions) == "Suspensions(suspended=[])"


def test_the_next_suspension_begins_with_the_shortest_wait_again() -> None:
    clock = with_a_suspended()
    for _ in range(3):
        decisions_until_probe(clock)
        clock.fail("bad")
    decisions_until_probe(clock)
    clock.succeed("bad", 20)
    assert not suspended(clock)
    clock.fail("bad", 5)
    assert decisions_until_probe(clock) == 200


def test_a_success_on_a_poor_record_lets_it_prove_itself_at_once() -> None:
    """After 40 failures one success is not enough: its probability is far below a half."""
    clock = two()
    clock.fail("bad", 40)
    decisions_until_probe(clock)
    successes = 0
    while suspended(clock):
        clock.succeed("bad")
        successes += 1
        assert clock.select().probe is suspended(clock)
    assert 20 < successes < 60


def test_a_poor_record_is_not_lifted_by_time_alone() -> None:
    clock = two()
    clock.fail("bad", 40)
    clock.now += 7 * 86_400.0
    assert clock.select().probe
    assert suspended(clock)
    clock.fail("bad")
    assert suspended(clock)
    clock.succeed("bad")
    assert not suspended(clock)


def test_a_success_while_all_are_suspended_lifts_that_one() -> None:
    clock = two()
    clock.fail("good", 5)
    clock.fail("bad", 5)
    clock.succeed("bad", 10)
    assert (clock.router.state("bad"), clock.router.state("good")) == (State.OK, State.SUSPENDED)
    assert clock.select().chosen.backend_id == "bad"


# --- outcomes that come late, twice or out of order ---


def test_failures_from_before_the_last_success_suspend_nobody() -> None:
    clock = two()
    clock.succeed("bad", 20)
    clock.fail("bad", 7, happened_at=clock.now - 60.0)
    assert not suspended(clock)


def test_a_success_from_before_the_failures_lifts_nothing() -> None:
    clock = two()
    clock.succeed("bad", 30)
    clock.now += 100.0
    clock.fail("bad", 5)
    clock.now += 1.0
    clock.succeed("bad", happened_at=clock.now - 50.0)
    assert suspended(clock)
    assert not clock.select().probe


def test_a_success_told_late_breaks_the_run_where_it_belongs() -> None:
    clock = two()
    clock.succeed("bad", 30)
    for _ in range(5):
        clock.now += 10.0
        clock.fail("bad")
    assert suspended(clock)
    clock.succeed("bad", happened_at=clock.now - 25.0)
    assert not suspended(clock)
    assert clock.router.suspension("bad").failures_at == [clock.now, clock.now - 10.0, clock.now - 20.0]
    clock.fail("bad", 2)
    assert suspended(clock)


def test_at_one_clock_reading_outcomes_count_in_the_order_in_which_they_are_told() -> None:
    clock = two()
    clock.succeed("bad", 30, happened_at=NOON)
    clock.fail("bad", 5, happened_at=NOON)
    assert suspended(clock)
    clock.succeed("bad", happened_at=NOON)
    assert not suspended(clock)


def test_an_outcome_told_twice_counts_once() -> None:
    clock = two()
    clock.succeed("bad", 30)
    request_id = clock.select(available_backends=("bad",)).query.request_id
    for _ in range(20):
        clock.fail("bad", request_id=request_id)
    assert not suspended(clock)
    assert len(clock.router.suspension("bad").failures_at) == 1


def test_a_late_failure_from_before_the_suspension_does_not_pass_for_the_probe() -> None:
    clock = with_a_suspended()
    clock.now += 30.0
    assert clock.select().probe
    clock.fail("bad", 3, happened_at=clock.now - 31.0)
    backoff = clock.router.suspension("bad").backoff
    assert (backoff.interval_s, backoff.interval_decisions, backoff.probing) == (30.0, 200, True)


def test_of_all_failures_after_one_probe_only_one_doubles_the_wait() -> None:
    clock = with_a_suspended()
    clock.now += 30.0
    clock.select()
    clock.fail("bad", 10)
    backoff = clock.router.suspension("bad").backoff
    assert (backoff.interval_s, backoff.interval_decisions, backoff.probing) == (60.0, 400, False)


def test_failures_without_a_probe_do_not_lengthen_the_wait() -> None:
    clock = with_a_suspended()
    clock.now += 10.0
    clock.fail("bad", 50)
    clock.now += 20.0
    assert clock.select().probe


# --- the record ---


def test_of_a_run_only_the_last_five_failures_are_kept() -> None:
    clock = two()
    for _ in range(1000):
        clock.now += 1.0
        clock.fail("bad")
    assert clock.router.suspension("bad").failures_at == [clock.now - step for step in range(5)]


def test_a_backend_without_outcomes_has_an_empty_record_and_none_is_kept() -> None:
    subject = Suspensions()
    assert subject.record("a") == FailureRecord(0.0, [], 0.0, False, Backoff())
    assert subject.snapshot() == {}


# --- merging ---

steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["fail", "fail", "succeed", "probe", "pass"]),
        st.floats(0.05, 0.95),
        st.integers(0, 200).map(float),
    ),
    max_size=30,
)
Steps = list[tuple[str, str, float, float]]


def suspensions_of(story: Steps) -> Suspensions:
    """What a server remembers that went through this."""
    subject = Suspensions()
    now = NOON
    for outcomes, (name, verb, probability, ago) in enumerate(story):
        now += 1.0
        if verb in ("fail", "succeed"):
            subject.note_outcome(
                name,
                success=verb == "succeed",
                probability=probability,
                outcomes=outcomes,
                at=now - ago,
                now=now,
            )
        elif name in subject.names and verb == "probe":
            subject.note_probe(name, now=now)
        elif name in subject.names:
            subject.note_passed_over([name], now=now)
    return subject


@given(steps)
def test_snapshot_and_back_changes_nothing(story: Steps) -> None:
    subject = suspensions_of(story)
    restored = Suspensions()
    restored.merge(json.loads(json.dumps(subject.snapshot())))
    assert restored.snapshot() == subject.snapshot()
    assert set(restored.names) == set(subject.names)


@given(steps, steps, steps)
def test_merging_is_the_same_in_any_order_and_any_grouping(a: Steps, b: Steps, c: Steps) -> None:
    parts = [suspensions_of(story).snapshot() for story in (a, b, c)]
    results = []
    for order in permutations(parts):
        merged = Suspensions()
        for part in order:
            merged.merge(part)
        results.append(merged.snapshot())
    tail, grouped = Suspensions(), Suspensions()
    for part in parts[1:]:
        tail.merge(part)
    for part in (parts[0], tail.snapshot()):
        grouped.merge(part)
    for result in (*results, grouped.snapshot()):
        assert result == results[0]


@given(steps)
def test_merging_what_is_known_already_changes_nothing(story: Steps) -> None:
    subject = suspensions_of(story)
    before = subject.snapshot()
    subject.merge(before)
    assert subject.snapshot() == before


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.booleans()), max_size=25))
def test_merged_runs_are_the_run_of_both_streams(stream: list[tuple[bool, int, bool]]) -> None:
    """Each server saw some of the outcomes, in any order; no two happened at the same time."""
    first, second, whole = Suspensions(), Suspensions(), Suspensions()
    for number, (success, ago, mine) in enumerate(stream):
        for subject in (first if mine else second, whole):
            subject.note_outcome(
                "a",
                success=success,
                probability=1.0,
                outcomes=number,
                at=NOON - ago + number / 1000.0,
                now=NOON,
            )
    first.merge(second.snapshot())
    assert first.record("a").failures_at == whole.record("a").failures_at
    assert first.record("a").last_success_at == whole.record("a").last_success_at
    assert set(first.names) == set(whole.names)


def test_a_failure_at_the_moment_of_another_server_s_success_counts_as_later() -> None:
    first, second = Suspensions(), Suspensions()
    for subject, success in ((first, True), (second, False)):
        subject.note_outcome("a", success=success, probability=1.0, outcomes=1, at=NOON, now=NOON)
    for mine, theirs in ((first, second), (second, first)):
        merged = Suspensions()
        for one in (mine, theirs):
            merged.merge(one.snapshot())
        assert merged.record("a").failures_at == [NOON]


def test_two_servers_that_saw_a_part_of_the_run_suspend_when_they_hear_of_each_other() -> None:
    first, second = two(), two()
    second.now += 1.0
    first.fail("bad", 3)
    second.fail("bad", 2)
    first.now += 2.0
    first.router.merge(second.snapshot(), now=first.now)
    assert suspended(first)
    # Neither server had seen the whole run, so the wait begins with the next decision.
    first.now += 1000.0
    assert not first.select().probe
    first.now += 29.0
    assert not first.select().probe
    first.now += 1.0
    assert first.select().probe


def test_a_server_that_hears_of_a_success_lifts_what_was_a_run_of_failures() -> None:
    first, second = two(), two()
    first.succeed("bad", 30)
    first.fail("bad", 5)
    second.now += 10.0
    second.succeed("bad")
    first.router.merge(second.snapshot(), now=first.now)
    assert not suspended(first)


def test_a_snapshot_stays_as_it_was_taken_and_is_not_shared() -> None:
    clock = with_a_suspended()
    taken = clock.router._suspensions.snapshot()
    copy = json.loads(json.dumps(taken))
    other = Suspensions()
    other.merge(taken)
    decisions_until_probe(clock)
    clock.fail("bad")
    other.note_passed_over(["bad"], now=clock.now)
    assert taken == copy
