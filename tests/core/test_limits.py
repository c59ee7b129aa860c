"""Limits on cost, time and success rule out backends by the mean, and never for a probe."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.availability import availability
from routing.core.factors import cost_usd
from routing.core.limits import Limits, limits_of, unmet
from routing.core.model import Backend, Candidate, Decision, Estimate, Query
from routing.errors import NoEligibleBackend
from support.makers import Clock, router

FAST = Backend("fast", latency_ms=10.0, throughput_mbps=1e6, egress_usd_per_gb=9.0, success_rate=0.99)
SLOW = Backend("slow", latency_ms=4000.0, throughput_mbps=1e6, success_rate=0.999)


def both(**options: Any) -> Clock:
    return Clock(router([FAST, SLOW], **options))


def names(decision: Decision) -> list[str]:
    return [decision.chosen.backend_id, *(one.backend_id for one in decision.others)]


@pytest.mark.parametrize("strategy", ["hybrid", "adaptive", "reliability"])
@pytest.mark.parametrize(
    ("limits", "left", "reason"),
    [
        ({"max_ms": 100.0}, "fast", "is expected to take 4,000 ms, more than max_ms 100"),
        ({"min_success": 0.995}, "slow", "succeeds with probability 0.990000, less than min_success 0.995"),
        ({"max_cost_usd": 0.001}, "slow", "costs $0.0094663, more than max_cost_usd 0.001"),
    ],
)
def test_each_limit_rules_out_who_does_not_meet_it(
    strategy: str, limits: dict[str, float], left: str, reason: str
) -> None:
    decision = both().select(strategy=strategy, **limits)
    assert names(decision) == [left]
    assert list(decision.ineligible.values()) == [reason]
    assert names(both(limits=Limits(**limits)).select(strategy=strategy)) == [left]


def test_a_limit_that_is_just_met_is_met() -> None:
    subject = both()
    cost = cost_usd(Query(), FAST)
    assert len(names(subject.select(max_ms=4000.1, min_success=0.99, max_cost_usd=cost))) == 2


def test_a_mean_decides_and_no_draw() -> None:
    """Of a backend that is little known, `adaptive` draws all sorts of things."""
    clock = Clock(router([Backend("a"), Backend("b", success_rate=0.5)]))
    for _ in range(200):
        assert names(clock.select(strategy="adaptive", min_success=0.9)) == ["a"]


def test_a_request_s_limits_do_not_give_way() -> None:
    with pytest.raises(NoEligibleBackend, match=r"fast: costs .* and succeeds .*; slow: is expected to take"):
        both().select(max_ms=100.0, max_cost_usd=0.001, min_success=0.995)


def test_the_server_s_own_limits_give_way_and_the_decision_says_so() -> None:
    clock = both(limits=Limits(max_ms=5.0))
    decision = clock.select()
    assert decision.limits_gave_way
    assert len(names(decision)) == 2
    assert decision.ineligible == {}
    assert not both(limits=Limits(max_ms=100.0)).select().limits_gave_way


def test_no_limits_are_none() -> None:
    assert both(limits=Limits()).router._limits is None
    assert limits_of(Query()) is None
    assert unmet(None, Query(), ()) == {}
    for limits in ({"max_ms": 1.0}, {"max_cost_usd": 1.0}, {"min_success": 1.0}):
        assert limits_of(Query(**limits)) == Limits(**limits)


def test_the_server_s_own_limits_do_not_bring_a_suspended_backend_into_use() -> None:
    clock = both(limits=Limits(min_success=0.995))
    clock.succeed("slow", 1000)
    clock.fail("slow", 5)
    decision = clock.select()
    assert names(decision) == ["fast"]
    assert decision.limits_gave_way


def test_a_request_s_limits_do_where_only_a_suspended_one_meets_them() -> None:
    clock = both()
    clock.fail("fast", 5)
    decision = clock.select(max_ms=100.0)
    assert names(decision) == ["fast"]
    assert not decision.probe


def test_a_suspended_backend_is_probed_whatever_the_limits() -> None:
    clock = both()
    clock.fail("fast", 5)
    for _ in range(20):
        assert names(clock.select(min_success=0.99)) == ["slow"]
    clock.now += 30.0
    decision = clock.select(min_success=0.99)
    assert decision.probe
    assert names(decision) == ["fast", "slow"]
    assert decision.ineligible == {}


def until_probe(clock: Clock, *, every_s: float, **fields: Any) -> int:
    for passed in range(1000):
        clock.now += every_s
        decision = clock.select(**fields)
        if decision.probe:
            return passed
    return -1


@pytest.mark.parametrize("limits", [{"max_ms": 100.0}, {"max_ms": 100.0, "min_success": 0.1}])
def test_a_backend_that_time_or_success_rules_out_is_probed_as_a_suspended_one(
    limits: dict[str, float],
) -> None:
    for clock, fields in ((both(), limits), (both(limits=Limits(**limits)), {})):
        assert until_probe(clock, every_s=0.01, **fields) == 200
        clock.fail("slow", request_id=f"request-{clock.requests}")
        assert until_probe(clock, every_s=3.0, **fields) == 20
        clock.fail("slow", request_id=f"request-{clock.requests}")
        assert until_probe(clock, every_s=3.0, **fields) == 39


def test_a_backend_whose_price_rules_it_out_is_never_probed() -> None:
    assert until_probe(both(), every_s=10.0, max_cost_usd=0.001) == -1
    assert until_probe(both(), every_s=10.0, max_cost_usd=0.001, min_success=0.995) == -1


def test_a_backend_that_works_but_too_slowly_is_soon_left_in_peace() -> None:
    clock = both()
    passed = []
    for _ in range(6):
        passed.append(until_probe(clock, every_s=1.0, max_ms=100.0))
        clock.succeed("slow", request_id=f"request-{clock.requests}", duration_ms=4000)
    assert passed == [30, 20, 20, 29, 59, 119]


def test_after_an_outage_min_success_does_not_ban_a_backend_for_good() -> None:
    clock = Clock(router([Backend("a", success_rate=0.9995), Backend("b", success_rate=0.9985)]))
    clock.succeed("a", 200)
    for _ in range(8):
        clock.now += 1.0
        clock.fail("a")
        clock.succeed("a")
    chosen = []
    for _ in range(2000):
        clock.now += 60.0
        decision = clock.select(min_success=0.998)
        clock.succeed(decision.chosen.backend_id, request_id=decision.query.request_id)
        chosen.append(decision.chosen.backend_id)
    assert 0 < chosen[:500].count("a") <= 25


limit = st.none() | st.floats(0.0, 1.0)
estimates = st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 1.0))


@given(
    st.lists(estimates, min_size=1, max_size=6),
    st.sets(st.integers(0, 5)),
    limit,
    limit,
    st.tuples(limit, limit),
)
def test_whoever_is_available_meets_what_holds(
    known: list[tuple[float, float]],
    failing: set[int],
    max_ms: float | None,
    min_success: float | None,
    own: tuple[float | None, float | None],
) -> None:
    backends = [Backend(str(index)) for index in range(len(known))]
    means = [Candidate(backend, Estimate(*one, *one)) for backend, one in zip(backends, known, strict=True)]
    suspended = {str(index) for index in failing}
    query = Query(max_ms=max_ms, min_success=min_success)
    server = Limits(None, *own)
    found = availability(backends, query, suspended=suspended, limits=server, means=means)
    within = {one.backend.id for one in means if not unmet(limits_of(query), query, [one])}
    meets = {one.backend.id for one in means if not unmet(server, query, [one])}
    expected = within - suspended or within
    assert {one.id for one in found.backends} == (expected & meets or expected)
    assert found.gave_way is (bool(expected) and not expected & meets)
    assert {one.id for one in found.backends} | set(found.reasons) == {one.id for one in backends}
    assert suspended & {one.id for one in backends} <= set(found.waiting)
