"""Scenarios of the field: gray failures, archives, slow traffic, mistaken profiles."""

from collections import Counter
from random import Random

import pytest

from routing.core.model import Operation
from routing.simulation import scenario
from routing.simulation.generate import draw
from routing.simulation.measures import measures
from routing.simulation.play import Play
from routing.simulation.policies import make
from routing.simulation.world import World, mean_pareto, pareto


def world(name: str, *, seed: int = 1, requests: int = 400) -> World:
    return draw(scenario.load(name), seed=seed, requests=requests)


def play(drawn: World, name: str) -> Play:
    one = Play(drawn)
    return one.run(make(name, one, Random(0)))


def chances(drawn: World, backend_id: str) -> list[float]:
    index = list(drawn.backends).index(backend_id)
    return [
        drawn.prospects(request).candidates[index].estimate.success_probability
        for request in drawn.workload.requests
    ]


@pytest.mark.parametrize("name", ["one-region-dead", "one-type-dead"])
def test_a_gray_failure_spares_all_other_requests(name: str) -> None:
    drawn = world(name)
    [one] = drawn.disturbances
    assert one.partial
    assert not one.whole
    affected = [one.affects(request) for request in drawn.workload.requests]
    assert 5 <= sum(affected) <= 200
    assert [chance == 0.0 for chance in chances(drawn, one.backend_id)] == affected


def test_a_gray_failure_hits_requests_for_which_the_backend_is_best() -> None:
    """Otherwise a policy would have nothing to learn from it."""
    for seed in range(5):
        drawn = world("one-region-dead", seed=seed)
        [one] = drawn.disturbances
        [city] = one.scope.cities
        best = Counter(
            request.city
            for request in drawn.workload.requests[: one.first]
            if max(zip(drawn.prospects(request).utilities, drawn.backends, strict=True))[1] == one.backend_id
        )
        assert best[city] > 0


def test_regret_over_the_affected_requests_is_a_measure_of_its_own() -> None:
    drawn = world("gray-type", seed=2)
    found = measures(play(drawn, "static"))
    assert found.affected_regret is not None
    assert found.affected_regret > found.regret
    assert measures(play(drawn, "clairvoyant")).affected_regret == 0.0
    assert measures(play(world("stationary", requests=50), "static")).affected_regret is None


def test_only_large_objects_are_slow() -> None:
    drawn = world("gray-large")
    [one] = drawn.disturbances
    sizes = [request.query.size_bytes for request in drawn.workload.requests if one.affects(request)]
    assert sizes
    assert min(sizes) >= one.scope.min_bytes >= 5e6


def test_an_archive_delays_reads_by_seconds_and_writes_not_at_all() -> None:
    drawn = world("archive")
    reads = next(one for one in drawn.disturbances if one.scope.operation is Operation.RETRIEVE)
    index = list(drawn.backends).index(reads.backend_id)
    for request in drawn.workload.requests[:50]:
        usual_ms = drawn.backends[reads.backend_id].usual_ms(request)
        delay_ms = drawn.prospects(request).usual_ms[index] - usual_ms
        others = sum(
            one.adds_ms
            for one in drawn.disturbances
            if one.backend_id == reads.backend_id and one.affects(request)
        )
        assert delay_ms == pytest.approx(others)
        if request.query.operation is Operation.RETRIEVE:
            assert delay_ms >= 2000.0


def test_an_added_delay_can_grow_and_is_summarised() -> None:
    one = world("archive").disturbances[0]
    assert one.summary.endswith("s longer")
    assert not one.harmless


def test_slow_traffic_comes_once_in_ten_minutes_on_average() -> None:
    """The mean of 400 gaps strays by a twentieth; five times that, and the daily cycle averages out
    over three days."""
    requests = world("slow-traffic").workload.requests
    mean_s = (requests[-1].at - requests[0].at) / (len(requests) - 1)
    assert mean_s == pytest.approx(600.0, rel=0.25)


def test_nineteen_of_twenty_are_dead() -> None:
    drawn = world("slow-traffic-dead")
    last = drawn.prospects(drawn.workload.requests[-1])
    assert sorted(one.estimate.success_probability > 0.0 for one in last.candidates) == [False] * 19 + [True]


def test_a_unit_mistake_is_in_the_profile_and_not_in_the_truth() -> None:
    mistaken, honest = world("unit-mistake"), world("stationary")
    wrong = [one for one in mistaken.backends.values() if one.profile != one.site]
    assert len(wrong) == 2
    for one in wrong:
        assert one.profile.latency_ms == one.site.latency_ms / 1e3
        assert one.profile.throughput_mbps == one.site.throughput_mbps * 1e6
        assert one.usual_ms(mistaken.workload.requests[0]) > one.profile.latency_ms
    assert all(one.profile == one.site for one in honest.backends.values())


def test_several_copies_of_a_service_in_a_region_have_names_of_their_own() -> None:
    drawn = world("three-hundred", requests=2)
    assert len(drawn.backends) == 300
    assert any(name.endswith("-2") for name in drawn.backends)
    assert not any(name.endswith("-5") for name in drawn.backends)


def test_requests_carry_coordinates_and_region_as_the_scenario_sets() -> None:
    by_name = {name: world(name, requests=20).workload.requests for name in ("stationary", "gray-type")}
    plain, both = (by_name[name][0].query.location for name in ("stationary", "gray-type"))
    assert plain is not None and plain.latitude is not None and not plain.region  # noqa: PT018
    assert both is not None and both.latitude is not None  # noqa: PT018
    assert both.region == by_name["gray-type"][0].city


def test_heavy_tails_have_the_mean_that_the_truth_states() -> None:
    """An exponent of 3 has a variance, 0.96 of the squared median: of 20,000 draws the mean strays by
    0.007, and five times that is 0.035. Quantiles replace luck for the medians."""
    dice = Random(0)
    drawn = [pareto(3.0, dice.gauss(0.0, 1.0)) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(mean_pareto(3.0), abs=0.035)
    assert sorted(drawn)[10_000] == pytest.approx(1.0, abs=0.02)


def test_a_heavy_tailed_world_states_its_mean_and_has_outliers() -> None:
    drawn = world("heavy-tails", requests=1000)
    [first, *_] = drawn.workload.requests
    prospects = drawn.prospects(first)
    for usual_ms, candidate in zip(prospects.usual_ms, prospects.candidates, strict=True):
        assert candidate.estimate.expected_ms > 1.2 * usual_ms
    [name, *_] = drawn.backends
    ratios = []
    for request in drawn.workload.requests:
        there = drawn.prospects(request)
        done = drawn.carry_out(request, name, 0)
        ratios.append(done.duration_ms / (there.usual_ms[0] * there.client))
    assert max(ratios) > 20.0
