"""Worlds: reproducible from the seed, with the same luck for all policies, and true to the scenario."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.core.model import Backend, Operation
from routing.simulation import scenario
from routing.simulation.datasets import regions, rtt_ms, services, throughput_mbps
from routing.simulation.generate import draw
from routing.simulation.scenario import EventRules, Scenario
from routing.simulation.workload import MOST_BYTES, START_AT
from routing.simulation.world import World, luck


def world(name: str = "stationary", *, seed: int = 1, requests: int = 200) -> World:
    return draw(scenario.load(name), seed=seed, requests=requests)


def with_event(**rules: object) -> World:
    event = EventRules(**rules)  # type: ignore[arg-type]
    return draw(Scenario("test", "test", "test", events=(event,)), seed=1, requests=200)


@given(seed=st.integers(0, 10_000), name=st.sampled_from(scenario.names()))
@settings(max_examples=15, deadline=None)
def test_a_seed_draws_the_same_world_again_and_another_seed_another(seed: int, name: str) -> None:
    one, again, other = (world(name, seed=number, requests=20) for number in (seed, seed, seed + 1))
    assert one.workload == again.workload
    assert one.backends == again.backends
    assert one.disturbances == again.disturbances
    assert one.workload != other.workload


@given(seed=st.integers(0, 10_000), name=st.sampled_from(scenario.names()))
@settings(max_examples=15, deadline=None)
def test_utilities_lie_between_0_and_1_and_times_are_positive(seed: int, name: str) -> None:
    drawn = world(name, seed=seed, requests=20)
    for request in drawn.workload.requests:
        prospects = drawn.prospects(request)
        assert all(0.0 <= utility <= 1.0 for utility in prospects.utilities)
        assert all(usual > 0.0 for usual in prospects.usual_ms)
        assert all(0.0 <= one.estimate.success_probability <= 1.0 for one in prospects.candidates)


def test_luck_does_not_depend_on_what_was_asked_before() -> None:
    one, other = world(), world()
    names = list(one.backends)
    requests = one.workload.requests[:30]
    forwards = [one.carry_out(request, name, 0) for request in requests for name in names]
    backwards = [
        other.carry_out(request, name, 0) for request in reversed(requests) for name in reversed(names)
    ]
    assert forwards == backwards[::-1]


def test_the_spread_of_luck_is_standard_normal() -> None:
    """Of 4,000 draws the mean strays by 0.016 and the variance by 0.022: five times that is chance
    of one in a million."""
    drawn = [luck("x", number, "b").spread for number in range(4000)]
    mean = sum(drawn) / len(drawn)
    assert abs(mean) < 0.08
    assert abs(sum((one - mean) ** 2 for one in drawn) / len(drawn) - 1.0) < 0.11


def test_requests_come_in_order_and_sizes_have_a_heavy_tail_that_is_cut() -> None:
    requests = world(requests=3000).workload.requests
    assert all(one.at < other.at for one, other in pairwise(requests))
    assert requests[0].at > START_AT
    sizes = sorted(request.query.size_bytes for request in requests)
    assert sizes[-1] <= MOST_BYTES
    # The largest hundredth holds more than a third of all bytes.
    assert sum(sizes[-30:]) > sum(sizes) / 3


def test_traffic_has_a_daily_cycle() -> None:
    """Without one the halves of the day would have 1,500 of 3,000 each, give or take 137 (five
    standard deviations); with it the first has 1.38 times the mean."""
    requests = world(requests=3000).workload.requests
    morning = sum((request.at - START_AT) % 86_400 < 43_200 for request in requests)
    assert morning > 1500 + 137


def test_an_event_lasts_as_long_as_it_says() -> None:
    drawn = with_event(starts=(0.25, 0.25), lasts=(0.5, 0.5), fails=(1.0, 1.0))
    [effect] = drawn.disturbances
    assert (effect.first, effect.last) == (50, 150)
    index = list(drawn.backends).index(effect.backend_id)
    chances = [
        drawn.prospects(request).candidates[index].estimate.success_probability
        for request in drawn.workload.requests
    ]
    assert [number for number, chance in enumerate(chances) if chance == 0.0] == list(range(50, 150))


def test_a_gradual_event_grows() -> None:
    drawn = with_event(slower=(4.0, 4.0), gradually=True)
    [effect] = drawn.disturbances
    strengths = [effect.strength(request)[0] for request in drawn.workload.requests]
    assert strengths[0] == 1.0
    assert strengths == sorted(strengths)
    assert strengths[100] == pytest.approx(2.0)


def test_an_event_of_some_cities_or_types_spares_the_others() -> None:
    [by_city] = with_event(slower=(4.0, 4.0), cities=(0.5, 0.5)).disturbances
    [by_type] = with_event(slower=(4.0, 4.0), types=2).disturbances
    assert len(by_city.scope.cities) == 6
    assert len(by_type.scope.types) == 2


def test_an_event_comes_again_after_its_pauses() -> None:
    drawn = with_event(starts=(0.1, 0.1), lasts=(0.1, 0.1), pauses=(0.2, 0.2), fails=(1.0, 1.0))
    assert [(one.first, one.last) for one in drawn.disturbances] == [(20, 40), (80, 100), (140, 160)]


def test_a_newcomer_joins_late_and_without_a_profile() -> None:
    drawn = with_event(starts=(0.5, 0.5), newcomer=True, slower=(0.2, 0.2))
    [name] = drawn.newcomers
    assert name not in {profile.id for profile in drawn.profiles}
    before, after = drawn.workload.requests[99], drawn.workload.requests[100]
    assert name not in drawn.prospects(before).names
    assert name in drawn.prospects(after).names
    assert drawn.backends[name].profile == Backend(name, discovered=True)


def test_work_in_flight_slows_a_load_sensitive_backend() -> None:
    drawn = world("load")
    [first, *_] = drawn.workload.requests
    name = next(iter(drawn.backends))
    limit = drawn.backends[name].slows_at
    assert limit is not None
    assert drawn.slowed(name, 3) == 1.0 + 3 / limit
    prospects = drawn.prospects(first)
    loaded = drawn.loaded(prospects, {name: 5}, first)
    assert loaded[0] < prospects.utilities[0]
    assert loaded[1:] == list(prospects.utilities[1:])


def test_an_object_too_large_for_a_backend_does_not_go_there() -> None:
    tight, wide = Backend("tight", max_object_bytes=1), Backend("wide")
    drawn = draw(scenario.load("stationary"), seed=0, requests=20, profiles=(tight, wide))
    assert {drawn.prospects(request).names for request in drawn.workload.requests} == {("wide",)}


def test_a_disabled_backend_is_not_in_the_world() -> None:
    given = (Backend("on"), Backend("off", enabled=False), Backend("too"))
    drawn = draw(scenario.load("stationary"), seed=0, requests=20, profiles=given)
    assert set(drawn.backends) == {"on", "too"}


def test_larger_objects_take_longer() -> None:
    drawn = world()
    for one in drawn.backends.values():
        by_size = {
            request.query.size_bytes: one.usual_ms(request)
            for request in drawn.workload.requests
            if request.city == drawn.workload.cities[0] and request.query.operation is Operation.STORE
        }
        times = [by_size[size] for size in sorted(by_size)]
        assert times == sorted(times)


def test_the_tables_are_complete() -> None:
    for one in regions():
        for other in regions():
            assert (throughput_mbps(one, other) or 0.0) > 0.0
            measured = rtt_ms(one, other)
            assert measured is None or measured > 0.0
    for service in services().values():
        assert any(service.offered_in(region) for region in regions()), service.name
