"""When a backend is suspended, when it is probed, and what lifts it: the contract, step by step."""

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.core.failures import MAX_NAMES, FailureRecord
from routing.core.model import Backend, Operation, State, SuspensionRules
from routing.core.probes import ProbeSchedule
from routing.core.suspension import Breaker, Suspensions
from routing.errors import NoEligibleBackend
from support.makers import NOON, Clock, router

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


def until_probe(clock: Clock, *, every_s: float = 0.0, **fields: Any) -> tuple[int, Any]:
    """How many decisions pass before a probe, which is the other value."""
    for passed in range(10_000):
        clock.now += every_s
        decision = clock.select(**fields)
        if decision.probe:
            return passed, decision
    raise AssertionError("no probe")


def probe(clock: Clock, **fields: Any) -> Any:
    """The next probe, after 20 decisions and however long it takes."""
    clock.now += 600.0
    return until_probe(clock, **fields)[1]


def report(clock: Clock, decision: Any, success: bool, **fields: Any) -> None:
    """The outcome of a decision."""
    clock.record(decision.chosen.backend_id, success, request_id=decision.query.request_id, **fields)


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
    assert clock.router.suspension("bad").failures.in_row == 0
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
        subject.note_outcome("a", success=False, probability=0.9, outcomes=1, at=NOON, now=NOON)
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


def test_the_first_probe_comes_after_20_decisions_and_30_seconds() -> None:
    clock = with_a_suspended()
    clock.now += 29.999
    assert not any(clock.select().probe for _ in range(100))
    clock.now += 0.001
    decision = clock.select()
    assert decision.probe
    assert decision.chosen.backend_id == "bad"
    slow = with_a_suspended()
    assert until_probe(slow, every_s=600.0)[0] == 20


def test_or_after_200_decisions_and_a_second() -> None:
    clock = with_a_suspended()
    assert not any(clock.select().probe for _ in range(300))
    clock.now += 0.999
    assert not clock.select().probe
    clock.now += 0.001
    assert clock.select().probe
    busy = with_a_suspended()
    assert until_probe(busy, every_s=0.01)[0] == 200


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
        clock.now += 0.05
        assert not clock.select(**fields).probe
    assert until_probe(clock, every_s=0.05)[0] == 200
    clock.now += 601.0
    assert not clock.select(**fields).probe


@pytest.mark.parametrize("strategy", ["hybrid", "adaptive", "cost"])
def test_each_failed_probe_doubles_the_wait_in_seconds_up_to_600_under_every_strategy(strategy: str) -> None:
    clock = with_a_suspended()
    waits = []
    for _ in range(8):
        since = clock.now
        for _ in range(20):
            assert not clock.select(strategy=strategy).probe
        while not (decision := clock.select(strategy=strategy)).probe:
            clock.now += 30.0
        report(clock, decision, False)
        waits.append(clock.now - since)
    assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0, 600.0]


def test_failed_probes_do_not_lengthen_the_200_decisions() -> None:
    clock = with_a_suspended()
    for _ in range(5):
        passed, decision = until_probe(clock, every_s=0.1)
        assert passed == 200
        report(clock, decision, False)


def test_a_probe_whose_outcome_never_comes_is_followed_by_another_after_the_same_wait() -> None:
    clock = with_a_suspended()
    assert [until_probe(clock, every_s=10.0)[0] for _ in range(3)] == [20, 20, 20]
    assert clock.router.suspension("bad").probes.failures == 0


def test_a_probe_is_recognised_by_its_request_and_another_failure_does_not_double_the_wait() -> None:
    """Where all are suspended, both get ordinary decisions besides."""
    clock = with_a_suspended()
    clock.fail("good", 5)
    clock.now += 30.0
    ordinary = clock.select(available_backends=("bad",))
    passed, decision = until_probe(clock, available_backends=("bad",))
    assert passed == 19
    report(clock, ordinary, False)
    assert clock.router.suspension("bad").probes.failures == 0
    report(clock, decision, False)
    assert clock.router.suspension("bad").probes.failures == 1
    assert clock.router.suspension("bad").probes.wait_s(SuspensionRules()) == 60.0


def test_of_clients_that_never_link_the_first_outcome_since_the_probe_is_the_probe_s() -> None:
    clock = with_a_suspended()
    probe(clock)
    clock.now += 10.0
    clock.fail("bad", duration_ms=10_001)  # it began before the probe
    assert clock.router.suspension("bad").probes.failures == 0
    clock.fail("bad", 7, duration_ms=9_999)
    assert clock.router.suspension("bad").probes.failures == 1


def test_while_a_probe_is_out_other_requests_go_elsewhere() -> None:
    clock = with_a_suspended()
    assert probe(clock).probe
    decision = clock.select()
    assert decision.chosen.backend_id == "good"
    assert others(decision) == []


def test_during_a_probe_the_alternatives_are_the_others_best_first() -> None:
    names = [Backend(name, success_rate=rate) for name, rate in (("x", 0.9), ("y", 0.99), ("z", 0.95))]
    clock = Clock(router([*names, Backend("bad", success_rate=0.97)]))
    clock.fail("bad", 5)
    decision = probe(clock, strategy=RELIABLE)
    assert decision.chosen.backend_id == "bad"
    assert others(decision) == ["y", "z", "x"]
    assert decision.chosen.score < decision.others[-1].score
    assert decision.ineligible == {}


def test_a_probe_reports_its_own_score_and_factors() -> None:
    clock = with_a_suspended()
    chosen = probe(clock).chosen
    weights = clock.router.weights.values()
    dot = sum(weight * score for weight, score in zip(weights, chosen.factor_scores, strict=True))
    assert chosen.score == pytest.approx(dot, abs=1e-12)


def test_of_several_due_the_one_that_waited_longest_goes_first_19_decisions_apart() -> None:
    clock = Clock(router(["a", "b", "c", "d"]))
    clock.fail("c", 5)
    clock.now += 1.0
    clock.fail("b", 5)
    clock.fail("a", 5)
    clock.now += 600.0
    found = [until_probe(clock) for _ in range(3)]
    clock.now += 600.0
    found.append(until_probe(clock))
    assert [decision.chosen.backend_id for _, decision in found[:3]] == ["c", "a", "b"]
    assert [passed for passed, _ in found] == [20, 19, 19, 19]
    assert others(found[3][1]) == ["d"]
    assert found[0][1].ineligible == dict.fromkeys(("a", "b"), "suspended: it keeps failing")


def test_probes_go_on_when_all_are_suspended() -> None:
    """Both failed, the better one by far is dead, and whatever is sent there fails."""
    fields: dict[str, Any]
    for fields in (
        {},
        {"available_backends": ("dead", "works")},
        {"require_tags": frozenset({"t"})},
        {"operation": Operation.RETRIEVE, "content_hash": "h"},
    ):
        tags = frozenset({"t"})
        backends = [
            Backend("dead", latency_ms=40.0, tags=tags),
            Backend("works", latency_ms=1500.0, tags=tags),
        ]
        clock = Clock(router(backends))
        for name in ("dead", "works"):
            clock.succeed(name, content_hash="h")
            clock.fail(name, 5)
        chosen = []
        for _ in range(300):
            clock.now += 1.0
            decision = clock.select(**fields)
            chosen.append(decision.chosen.backend_id)
            report(clock, decision, decision.chosen.backend_id == "works")
        assert chosen.index("works") <= 60
        assert chosen[150:].count("works") >= 140


@pytest.mark.parametrize("dead", [1, 19])
def test_at_most_one_decision_in_20_is_a_probe_however_slow_the_traffic_and_many_the_dead(dead: int) -> None:
    clock = Clock(router([f"b{number:02}" for number in range(dead + 1)]))
    for number in range(dead):
        clock.fail(f"b{number:02}", 5)
    probes = 0
    for _ in range(1000):
        clock.now += 600.0
        decision = clock.select()
        probes += decision.probe
        report(clock, decision, not decision.probe)
    assert 40 <= probes <= 50


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.01, 1.0, 40.0, 700.0]),
            st.sampled_from([(), ("a", "b"), ("c",), ("b", "c", "d")]),
            st.sampled_from([None, True, False]),
            st.sampled_from([None, 0.9, 0.99]),
        ),
        min_size=100,
        max_size=300,
    ),
    st.integers(0, 15),
)
def test_whatever_the_traffic_19_decisions_with_waiting_candidates_lie_between_two_probes(
    traffic: list[tuple[float, tuple[str, ...], bool | None, float | None]], failing: int
) -> None:
    clock = Clock(router(["a", "b", "c", "d"]))
    for index, name in enumerate("abcd"):
        if failing >> index & 1:
            clock.fail(name, 5)
    between = 19
    for wait_s, available, success, min_success in traffic:
        clock.now += wait_s
        try:
            decision = clock.select(available_backends=available, min_success=min_success)
        except NoEligibleBackend:
            continue
        if decision.probe:
            assert between >= 19
            between = 0
        elif decision.passed_over:
            between += 1
        if success is not None:
            report(clock, decision, success)


@pytest.mark.parametrize("strategy", ["hybrid", "adaptive"])
@pytest.mark.parametrize("every_s", [0.01, 0.1, 1.0, 10.0, 600.0])
def test_after_an_outage_of_1000_decisions_a_backend_is_back_within_250(
    strategy: str, every_s: float
) -> None:
    clock = Clock(router([Backend("best", latency_ms=20.0), Backend("other", latency_ms=300.0)]))
    back = None
    for number in range(1500):
        clock.now += every_s
        decision = clock.select(strategy=strategy)
        best, down = decision.chosen.backend_id == "best", 100 <= number < 1100
        if number >= 1100 and best and not decision.probe and back is None:
            back = number - 1100
        report(clock, decision, not (best and down), duration_ms=20 if best else 300)
    assert back is not None
    assert back <= 250


# --- what lifts it ---


def test_three_successful_probes_in_a_row_lift_the_suspension_20_decisions_apart() -> None:
    clock = with_a_suspended()
    decision = probe(clock)
    passed = []
    for _ in range(2):
        report(clock, decision, True)
        assert suspended(clock)
        count, decision = until_probe(clock)
        passed.append(count)
    report(clock, decision, True)
    assert passed == [20, 20]
    assert clock.router.state("bad") is State.OK
    assert others(clock.select()) == ["bad"]
    assert repr(clock.router._suspensions) == "Suspensions(suspended=[])"


def test_a_failed_probe_ends_the_row_of_successes() -> None:
    clock = with_a_suspended()
    for success in (True, True, False, True, True):
        report(clock, probe(clock), success)
        assert suspended(clock)
    report(clock, probe(clock), True)
    assert not suspended(clock)


def test_after_a_successful_probe_the_wait_is_30_seconds_again() -> None:
    clock = with_a_suspended()
    for success in (False, False, True):
        report(clock, probe(clock), success)
    assert clock.router.suspension("bad").probes.failures == 0


def test_a_failure_after_a_success_ends_the_quick_pace() -> None:
    clock = with_a_suspended()
    report(clock, probe(clock), True)
    passed, decision = until_probe(clock)
    report(clock, decision, False)
    assert passed == 20
    assert until_probe(clock, every_s=1.0)[0] == 59  # and the wait has doubled


def test_many_failures_are_forgotten_with_the_suspension_that_they_led_to() -> None:
    """A job that may use no other failed 400 times; then the backend works."""
    clock = two()
    clock.fail("bad", 400)
    chosen = []
    for _ in range(1000):
        clock.now += 1.0
        decision = clock.select()
        chosen.append(decision.chosen.backend_id)
        report(clock, decision, True)
    assert chosen.count("bad") == 3
    assert clock.router.state("bad") is State.OK
    clock.now += 1.0
    clock.fail("bad")
    assert suspended(clock)  # its record is still poor, and this is a new failure


def test_time_alone_does_not_lift_a_suspension() -> None:
    clock = two()
    clock.fail("bad", 40)
    clock.now += 7 * 86_400.0
    assert until_probe(clock)[0] == 20
    assert suspended(clock)


def test_after_the_lift_time_and_successes_do_not_suspend_again() -> None:
    clock = two()
    clock.fail("bad", 400)
    for _ in range(3):
        clock.now += 1.0
        clock.succeed("bad")
    for _ in range(20):
        assert not suspended(clock)
        clock.now += 1.0
        clock.succeed("bad")


def test_a_success_while_all_are_suspended_counts_too() -> None:
    clock = two()
    clock.fail("good", 5)
    clock.fail("bad", 5)
    clock.succeed("bad", 3)
    assert (clock.router.state("bad"), clock.router.state("good")) == (State.OK, State.SUSPENDED)
    assert clock.select().chosen.backend_id == "bad"


def test_a_transfer_that_began_before_the_outage_lifts_nothing() -> None:
    clock = two()
    early = [clock.select(available_backends=("bad",)) for _ in range(5)]
    clock.now += 100.0
    clock.fail("bad", 5)
    clock.now += 1.0
    for decision in early:
        report(clock, decision, True)
    assert suspended(clock)


def test_clients_that_never_link_lift_with_what_began_after_the_suspension() -> None:
    clock = with_a_suspended()
    clock.now += 60.0
    clock.succeed("bad", 5, duration_ms=60_001)
    clock.succeed("bad", 5, happened_at=clock.now - 30.0, duration_ms=31_000)
    assert suspended(clock)
    clock.succeed("bad", 3, duration_ms=59_999)
    assert not suspended(clock)


def test_a_failure_from_before_does_not_end_the_row_of_successes_nor_begin_a_run() -> None:
    clock = with_a_suspended()
    clock.now += 100.0
    clock.succeed("bad", 2, duration_ms=10)
    clock.fail("bad", happened_at=clock.now - 200.0)
    clock.succeed("bad", duration_ms=10)
    assert not suspended(clock)
    clock.fail("bad", 20, happened_at=clock.now - 200.0)
    assert clock.router.suspension("bad").failures.failures == []


def test_successes_and_failures_during_the_suspension_count_by_when_they_happened() -> None:
    clock = with_a_suspended()
    for _ in range(10):
        clock.now += 10.0
    clock.fail("bad", happened_at=clock.now - 50.0)
    clock.succeed("bad", 5, happened_at=clock.now - 60.0)
    assert suspended(clock)
    clock.succeed("bad", 3, happened_at=clock.now - 40.0)
    assert not suspended(clock)


# --- outcomes that come late, twice or out of order ---


def test_failures_from_before_the_last_success_suspend_nobody() -> None:
    clock = two()
    clock.succeed("bad", 20)
    clock.fail("bad", 7, happened_at=clock.now - 60.0)
    assert not suspended(clock)


def test_a_success_reported_late_breaks_the_run_where_it_belongs() -> None:
    clock = two()
    clock.succeed("bad", 30)
    for _ in range(4):
        clock.now += 10.0
        clock.fail("bad")
    clock.succeed("bad", happened_at=clock.now - 15.0)
    run = [failure.at for failure in clock.router.suspension("bad").failures.failures if failure.in_row]
    assert run == [clock.now, clock.now - 10.0]
    clock.fail("bad", 2)
    assert not suspended(clock)
    clock.fail("bad")
    assert suspended(clock)


def test_at_one_clock_reading_outcomes_count_in_the_order_in_which_they_are_reported() -> None:
    clock = two()
    clock.fail("bad", 4, happened_at=NOON)
    clock.succeed("bad", 30, happened_at=NOON)
    clock.fail("bad", 4, happened_at=NOON)
    assert not suspended(clock)
    clock.fail("bad", happened_at=NOON)
    assert suspended(clock)


def test_an_outcome_reported_twice_counts_once() -> None:
    clock = two()
    clock.succeed("bad", 30)
    request_id = clock.select(available_backends=("bad",)).query.request_id
    for _ in range(20):
        clock.fail("bad", request_id=request_id)
    assert not suspended(clock)
    assert clock.router.suspension("bad").failures.in_row == 1


# --- callers and kinds ---


def test_one_caller_s_failures_do_not_suspend_while_others_succeed() -> None:
    clock = two()
    clock.succeed("bad", 500, caller="well")
    for _ in range(300):
        clock.now += 1.0
        clock.fail("bad", caller="broken")
    assert not suspended(clock)


def test_a_dead_backend_is_suspended_though_the_other_caller_has_gone_idle() -> None:
    clock = two()
    clock.succeed("bad", 50, caller="idle")
    clock.now += 60.0
    clock.succeed("bad", 50, caller="busy")
    clock.now += 60.0
    clock.fail("bad", 5, caller="busy")
    assert suspended(clock)


@pytest.mark.parametrize(("ago_s", "expected"), [(600.0, False), (600.001, True)])
def test_the_other_caller_s_success_counts_for_10_minutes(ago_s: float, expected: bool) -> None:
    clock = two()
    clock.succeed("bad", caller="idle")
    clock.now += ago_s
    clock.fail("bad", 5, caller="busy")
    assert suspended(clock) is expected


def test_failures_of_two_callers_suspend_whatever_others_do() -> None:
    clock = two()
    clock.succeed("bad", 500, caller="well", content_type="a/b")
    clock.fail("bad", 4, caller="broken", content_type="a/b")
    clock.fail("bad", caller="another", content_type="a/b")
    assert suspended(clock)


def test_a_kind_that_the_backend_does_not_take_does_not_suspend_it() -> None:
    clock = two()
    clock.succeed("bad", 100, content_type="image/png")
    for _ in range(300):
        clock.now += 1.0
        clock.fail("bad", content_type="video/mp4")
    assert not suspended(clock)
    clock.fail("bad", content_type="image/png")
    assert suspended(clock)


def test_an_operation_is_a_kind_too() -> None:
    clock = two()
    for operation in (Operation.STORE, *(Operation.RETRIEVE,) * 5):
        decision = clock.select(available_backends=("bad",), operation=operation)
        report(clock, decision, operation is Operation.STORE)
    assert not suspended(clock)


@pytest.mark.parametrize("fields", [{}, {"caller": "one"}, {"content_type": "image/png"}])
def test_what_is_not_known_of_a_failure_excuses_nobody(fields: dict[str, str]) -> None:
    """A client that reports types with its successes only must not keep a dead backend in use."""
    clock = two()
    clock.succeed("bad", 20, content_type="video/mp4" if "caller" in fields else "image/png", caller="one")
    clock.fail("bad", 5, **fields)
    assert suspended(clock)


def test_a_poor_record_of_one_caller_s_failures_does_not_suspend_either() -> None:
    clock = two()
    for _ in range(30):
        clock.now += 1.0
        clock.succeed("bad", caller="well")
        clock.fail("bad", 4, caller="broken")
    backend = clock.router.backends[1]
    assert clock.router.learning.overall_success(backend, now=clock.now) < 0.5
    assert not suspended(clock)


def test_of_each_backend_16_callers_and_kinds_are_kept_the_latest() -> None:
    clock = two()
    for number in range(100):
        clock.now += 1.0
        clock.succeed("bad", caller=f"c{number}", content_type=f"t/{number}")
    record = clock.router.suspension("bad").failures
    assert set(record.callers) == {f"c{number}" for number in range(84, 100)}
    assert len(record.callers) == len(record.kinds) == MAX_NAMES


# --- other settings ---


def test_every_number_is_a_setting() -> None:
    rules = SuspensionRules(
        failures_in_a_row=2,
        window_seconds=10.0,
        probe_decisions=8,
        probe_seconds=0.5,
        least_decisions=4,
        first_wait_seconds=2.0,
        longest_wait_seconds=4.0,
        successes_to_lift=1,
    )
    clock = Clock(router(["good", "bad"], suspension=rules))
    clock.succeed("bad", caller="other")
    clock.now += 11.0
    clock.fail("bad", 2)
    assert suspended(clock)
    waits = []
    for _ in range(3):
        since = clock.now
        _, decision = until_probe(clock, every_s=0.25)
        waits.append(clock.now - since)
        report(clock, decision, False)
    assert waits == [2.0, 2.25, 2.25]
    clock.now += 3.0
    waits = []
    for _ in range(2):
        passed, decision = until_probe(clock, every_s=1.0)
        waits.append(passed)
        report(clock, decision, False)
    assert waits == [4, 4]
    report(clock, until_probe(clock, every_s=1.0)[1], True)
    assert not suspended(clock)
    low = Suspensions(SuspensionRules(least_success=0.9, least_outcomes=3))
    low.note_outcome("a", success=False, probability=0.89, outcomes=3, at=NOON, now=NOON)
    assert set(low.names) == {"a"}


# --- the record ---


def test_of_the_failures_only_the_last_five_are_kept() -> None:
    clock = two()
    for _ in range(1000):
        clock.now += 1.0
        clock.fail("bad")
    record = clock.router.suspension("bad").failures
    assert [failure.at for failure in record.failures] == [clock.now - step for step in range(5)]


def test_a_backend_without_outcomes_has_an_empty_breaker_and_none_is_kept() -> None:
    subject = Suspensions()
    assert subject.breaker("a") == Breaker(FailureRecord(), probes=ProbeSchedule())
    assert subject.snapshot() == {"since_probe": 20, "breakers": {}}


# --- merging ---

names = st.sampled_from(["x", "y", "z"])
steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["fail", "fail", "fail", "succeed", "probe", "pass"]),
        st.floats(0.05, 0.95),
        st.integers(0, 200).map(float),
        names,
        names,
    ),
    max_size=30,
)


def anything(_name: str) -> bool:
    return True


Steps = list[tuple[str, str, float, float, str, str]]


def suspensions_of(story: Steps) -> Suspensions:
    """What a server remembers that went through this."""
    subject = Suspensions()
    now = NOON
    for outcomes, (name, verb, probability, ago, caller, kind) in enumerate(story):
        now += 1.0
        if verb in ("fail", "succeed"):
            subject.note_outcome(
                name,
                success=verb == "succeed",
                probability=probability,
                outcomes=outcomes,
                at=now - ago,
                now=now,
                decided_at=now - ago,
                caller=caller,
                kind=kind,
            )
        elif verb == "probe":
            subject.note_decision([], probe=name, request_id=caller, now=now)
        else:
            subject.note_decision([name], probe=None, request_id="", now=now)
    return subject


@given(steps)
def test_snapshot_and_back_changes_nothing(story: Steps) -> None:
    subject = suspensions_of(story)
    restored = Suspensions()
    restored.merge(json.loads(json.dumps(subject.snapshot())), known=anything)
    assert restored.snapshot() == subject.snapshot()
    assert set(restored.names) == set(subject.names)


@given(steps, steps, steps)
def test_merging_is_the_same_in_any_order_and_any_grouping(a: Steps, b: Steps, c: Steps) -> None:
    parts = [suspensions_of(story).snapshot() for story in (a, b, c)]
    results = []
    for order in permutations(parts):
        merged = Suspensions()
        for part in order:
            merged.merge(part, known=anything)
        results.append(merged.snapshot())
    tail, grouped = Suspensions(), Suspensions()
    for part in parts[1:]:
        tail.merge(part, known=anything)
    for part in (parts[0], tail.snapshot()):
        grouped.merge(part, known=anything)
    for result in (*results, grouped.snapshot()):
        assert result == results[0]


@given(steps)
def test_merging_what_is_known_already_changes_nothing(story: Steps) -> None:
    subject = suspensions_of(story)
    before = subject.snapshot()
    subject.merge(before, known=anything)
    assert subject.snapshot() == before


outcomes = st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.booleans(), names, names), max_size=25)


@given(outcomes)
def test_merged_runs_are_the_run_of_both_streams(stream: list[tuple[bool, int, bool, str, str]]) -> None:
    """Each server saw some of the outcomes, in any order; no two happened at the same time."""
    first, second, whole = FailureRecord(), FailureRecord(), FailureRecord()
    for order, (success, ago, mine, caller, kind) in enumerate(stream):
        for subject in (first if mine else second, whole):
            at = NOON - ago + order / 1000.0
            if success:
                subject.note_success(at, caller, kind)
            else:
                subject.note_failure(at, caller, kind, most=5)
    assert first.merged(second, most=5).snapshot() == whole.snapshot()
    assert second.merged(first, most=5).snapshot() == whole.snapshot()


@given(outcomes)
def test_the_rule_of_suspension_against_a_plain_list_of_all_outcomes(
    stream: list[tuple[bool, int, bool, str, str]],
) -> None:
    """The dumb twin keeps everything, and looks at all of it after each outcome."""
    rules = SuspensionRules(failures_in_a_row=3, window_seconds=10.0)
    subject = FailureRecord()
    told: list[tuple[float, bool, str, str]] = []
    for order, (success, ago, _, caller, kind) in enumerate(stream):
        at = NOON - ago + order / 1000.0
        told.append((at, success, caller, kind))
        if success:
            subject.note_success(at, caller, kind)
        else:
            subject.note_failure(at, caller, kind, most=3)
        assert subject.in_a_row(rules) is twin_suspends(told)


def twin_suspends(told: list[tuple[float, bool, str, str]]) -> bool:
    last = sorted(told, reverse=True)[:3]
    if len(last) < 3 or any(success for _, success, *_ in last):
        return False
    for part in (2, 3):
        those = {one[part] for one in last}
        good = [one for one in told if one[1]]
        own = max((one[0] for one in good if one[part] in those), default=0.0)
        others = [one[0] for one in good if one[part] not in those]
        if len(those) == 1 and any(at > own and at >= last[0][0] - 10.0 for at in others):
            return False
    return True


def test_a_failure_at_the_moment_of_another_server_s_success_counts_as_later() -> None:
    first, second = Suspensions(), Suspensions()
    for subject, success in ((first, True), (second, False)):
        subject.note_outcome("a", success=success, probability=1.0, outcomes=1, at=NOON, now=NOON)
    for mine, theirs in ((first, second), (second, first)):
        merged = Suspensions()
        for one in (mine, theirs):
            merged.merge(one.snapshot(), known=anything)
        assert merged.breaker("a").failures.in_row == 1


def test_two_servers_that_saw_a_part_of_the_run_suspend_when_they_hear_of_each_other() -> None:
    first, second = two(), two()
    second.now += 1.0
    first.fail("bad", 3)
    second.fail("bad", 2)
    first.now += 2.0
    first.router.merge(second.snapshot(), now=first.now)
    assert suspended(first)
    # Neither server had seen the whole run, so the suspension begins with the next decision.
    first.now += 1000.0
    assert until_probe(first, every_s=1.5)[0] == 20
    assert first.router.suspension("bad").open


def test_a_server_that_hears_of_failures_counts_its_next_outcome_as_the_beginning() -> None:
    first, second = two(), two()
    first.fail("bad", 3)
    second.now += 1.0
    second.fail("bad", 2)
    first.now += 2.0
    first.router.merge(second.snapshot(), now=first.now)
    first.fail("bad")
    assert first.router.suspension("bad").changed_at == first.now


def test_a_success_elsewhere_ends_the_run_but_not_the_suspension() -> None:
    first, second = two(), two()
    first.succeed("bad", 30)
    first.fail("bad", 5)
    second.now += 10.0
    second.succeed("bad")
    first.router.merge(second.snapshot(), now=first.now)
    assert suspended(first)
    assert first.router.suspension("bad").failures.in_row == 0


def test_servers_that_know_of_the_suspension_lift_it_together() -> None:
    first, second = with_a_suspended(), two()
    second.router.merge(first.snapshot(), now=second.now)
    assert suspended(second)
    for clock in (first, second):
        clock.now += 31.0
    first.succeed("bad", 2)
    second.now += 1.0
    second.succeed("bad", 1)
    second.router.merge(first.snapshot(), now=second.now)
    second.now += 1.0
    second.succeed("bad")
    assert not suspended(second)
    first.router.merge(second.snapshot(), now=second.now)
    assert not suspended(first)


def test_a_snapshot_stays_as_it_was_taken_and_is_not_shared() -> None:
    clock = with_a_suspended()
    taken = clock.router._suspensions.snapshot()
    copy = json.loads(json.dumps(taken))
    other = Suspensions()
    other.merge(taken, known=anything)
    report(clock, probe(clock), True)
    other.note_decision(["bad"], probe=None, request_id="", now=clock.now)
    other.note_outcome("bad", success=True, probability=0.9, outcomes=9, at=clock.now, now=clock.now)
    assert taken == copy


def test_the_breaker_of_a_backend_that_is_no_longer_configured_is_forgotten() -> None:
    clock = with_a_suspended()
    fresh = router(["good"])
    fresh.merge(clock.snapshot(), now=clock.now)
    assert fresh._suspensions.snapshot()["breakers"] == {}
    assert repr(fresh._suspensions) == "Suspensions(suspended=[])"
