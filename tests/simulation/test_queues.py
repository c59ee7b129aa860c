"""Backends with queues: first come, first served, at the utilisation that was asked for."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.model import Backend
from routing.simulation import scenario
from routing.simulation.generate import draw
from routing.simulation.measures import measures
from routing.simulation.play import Play
from routing.simulation.policies import make
from routing.simulation.queues import Queues
from routing.simulation.world import World


def world(name: str = "queues", *, seed: int = 1, requests: int = 400) -> World:
    return draw(scenario.load(name), seed=seed, requests=requests)


def play(drawn: World, name: str) -> Play:
    one = Play(drawn)
    return one.run(make(name, one, Random(0)))


@given(
    workers=st.integers(1, 4),
    operations=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 50)), max_size=30),
)
def test_queues_are_first_come_first_served(workers: int, operations: list[tuple[int, int]]) -> None:
    """Against a list of all operations: one starts as soon as fewer than `workers` of those before
    it are running."""
    queues = Queues([("a", workers)])
    now, ends = 0, list[int]()
    for gap_s, service_s in operations:
        now += gap_s
        start = next(
            at for at in sorted({now, *ends}) if at >= now and sum(end > at for end in ends) < workers
        )
        assert queues.waits_ms(now).get("a", 0.0) == (start - now) * 1e3
        assert queues.add("a", service_s * 1e3, now) == (start - now) * 1e3
        ends.append(start + service_s)


def test_without_workers_nothing_waits() -> None:
    queues = Queues([])
    assert queues.add("a", 1000.0, 0.0) == 0.0
    assert queues.waits_ms(0.0) == {}


def test_traffic_keeps_so_many_of_the_workers_busy() -> None:
    """Of 2,000 gaps and services the means stray by 0.03 together; five times that is 0.15."""
    drawn = world(requests=2000)
    requests = drawn.workload.requests
    span_s = requests[-1].at - requests[0].at
    rate_per_s = len(requests) / span_s
    capacity = sum(
        (one.workers or 0) / (prospect.estimate.expected_ms / 1e3)
        for one, prospect in zip(
            drawn.backends.values(), drawn.prospects(requests[0]).candidates, strict=True
        )
    )
    assert rate_per_s / capacity == pytest.approx(0.8, rel=0.15)


def test_the_clairvoyant_sees_the_queues() -> None:
    drawn = world()
    found = {name: measures(play(drawn, name)) for name in ("clairvoyant", "least-time", "static")}
    assert found["clairvoyant"].regret == 0.0
    # It chooses for each request alone, so another policy may have a shorter mean.
    assert found["clairvoyant"].mean_ms < found["static"].mean_ms / 5
    assert found["least-time"].mean_ms < found["static"].mean_ms / 5


def test_a_busier_world_waits_longer() -> None:
    """Over three worlds together, since queues of 400 requests are short-lived."""
    calm, busy = (
        sum(measures(play(world(name, seed=seed), "least-time")).mean_ms for seed in range(3))
        for name in ("queues", "busy-queues")
    )
    assert calm < busy


def test_given_backends_get_queues() -> None:
    given = (Backend("a", latency_ms=5.0), Backend("b"))
    drawn = draw(scenario.load("queues"), seed=0, requests=5, profiles=given)
    assert drawn.profiles == given
    assert all(one.workers for one in drawn.backends.values())


def test_least_time_avoids_a_backend_that_fails() -> None:
    drawn = world("outage", seed=0, requests=1000)
    static, least = (sum(measures(play(drawn, name)).left) for name in ("static", "least-time"))
    assert least < static
