"""Small worlds in which the truth is known: how well is decided, and how soon is change seen.

The luck of a world comes from its seed and is the same for every router in it, so that
two routers can be compared request by request.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest

from routing.core.learning.estimates import prior_duration
from routing.core.model import Backend, Candidate, Estimate, Location, Outcome, Query
from routing.core.scoring import default_weights, rank
from support.makers import NOON, router

PLACES = (Location(50.0, 8.0), Location(40.0, -75.0), Location(35.0, 139.0))
TYPES = ("image/png", "video/mp4")
PROFILES = tuple(
    Backend(f"backend-{number}", latency_ms=100.0, throughput_mbps=200.0, success_rate=0.99)
    for number in range(5)
)
"""All promise the same, so that whatever is decided well was learned."""


@dataclass
class World:
    """Backends with true speeds by place, of which one may be out for a while."""

    seed: int
    outage: range = range(0)
    out: str = ""
    luck: Random = field(init=False)
    factors: dict[tuple[str, Location], float] = field(init=False)

    def __post_init__(self) -> None:
        self.luck = Random(self.seed)
        own = {one.id: self.luck.lognormvariate(0.0, 0.8) for one in PROFILES}
        self.factors = {
            (one.id, place): own[one.id] * self.luck.lognormvariate(0.0, 0.4)
            for one in PROFILES
            for place in PLACES
        }

    def requests(self, count: int) -> Iterator[tuple[int, Query]]:
        """So many requests, numbered."""
        for number in range(count):
            yield (
                number,
                Query(
                    content_type=self.luck.choice(TYPES),
                    size_bytes=int(self.luck.lognormvariate(12.0, 2.0)) + 1,
                    location=self.luck.choice(PLACES),
                    request_id=f"request-{number}",
                ),
            )

    def truth(self, number: int, query: Query) -> dict[str, tuple[float, float]]:
        """{backend: expected ms and probability of success}."""
        assert query.location is not None
        return {
            one.id: (
                prior_duration(one, query.size_bytes, None)[0] * self.factors[one.id, query.location],
                0.0 if one.id == self.out and number in self.outage else 0.99,
            )
            for one in PROFILES
        }


def utilities(query: Query, truth: dict[str, tuple[float, float]]) -> dict[str, float]:
    """What each choice is worth if the truth is known."""
    candidates = [
        Candidate(one, Estimate(ms, success, ms, success))
        for one in PROFILES
        for ms, success in (truth[one.id],)
    ]
    return {one.backend_id: one.score for one in rank(query, candidates, default_weights())}


@dataclass
class Lived:
    """What came of a walk through a world: the choices, who was best, and the regret of its second half, 0
    for the best and 1 for any at random."""

    chosen: list[str]
    best: list[str]
    regret: float


def live(world: World, count: int, *, strategy: str, servers: int = 0, step_s: float = 10.0) -> Lived:
    """One router decides all requests; or, with `servers`, the first half is carried out somewhere by
    chance and reported to the servers in turn, and one that has all outcomes decides the rest."""
    routers = [router(PROFILES, seed=7) for _ in range(max(1, servers))]
    elsewhere = Random(world.seed)
    lost = most = 0.0
    chosen, best = [], []
    for number, query in world.requests(count):
        now = NOON + step_s * number
        if number == count // 2 and len(routers) > 1:
            taken = [json.loads(json.dumps(one.snapshot(now=now))) for one in routers]
            routers = [router(PROFILES, seed=7)]
            for one in taken:
                routers[0].merge(one, now=now)
        noise, chance = world.luck.gauss(0.0, 0.3), world.luck.random()
        somewhere = elsewhere.choice(PROFILES).id
        truth = world.truth(number, query)
        worth = utilities(query, truth)
        speaking = routers[number % len(routers)]
        given = (somewhere,) if servers and number < count // 2 else ()
        asked = query._replace(strategy=strategy, available_backends=given)
        name = speaking.select(asked, now=now).chosen.backend_id
        if number >= count // 2:
            lost += max(worth.values()) - worth[name]
            most += max(worth.values()) - sum(worth.values()) / len(worth)
        chosen.append(name)
        best.append(max(worth, key=lambda each: worth[each]))
        ms, success = truth[name]
        took_ms = max(1, int(ms * 2.718281828**noise))
        speaking.record(
            Outcome(name, chance < success, duration_ms=took_ms, request_id=query.request_id), now=now
        )
    return Lived(chosen, best, lost / most)


@pytest.mark.parametrize("strategy", ["hybrid", "adaptive"])
def test_two_that_saw_half_each_decide_together_as_one_that_saw_all(strategy: str) -> None:
    """Regret within 10 %, over eight worlds, counted after they have heard of each other. All
    have seen the same: left to themselves, they would have tried different things."""
    one = [live(World(seed), 800, strategy=strategy, servers=1).regret for seed in range(8)]
    two = [live(World(seed), 800, strategy=strategy, servers=2).regret for seed in range(8)]
    assert sum(one) < 8 * 0.05
    assert sum(two) <= 1.1 * sum(one)


@pytest.mark.parametrize("step_s", [0.01, 1.0, 20.0])
@pytest.mark.parametrize("strategy", ["hybrid", "adaptive"])
def test_an_outage_is_left_at_once_and_forgiven_when_it_is_over(strategy: str, step_s: float) -> None:
    """Left within 5 requests of the first failure, back within 300 decisions, whatever the clock.
    Out is who is best, so that there is no better one to be found meanwhile."""
    for seed in (1, 4, 5):
        calm = live(World(seed), 1200, strategy=strategy, step_s=step_s)
        out = max(set(calm.best), key=calm.best.count)
        lived = live(World(seed, range(400, 600), out), 1200, strategy=strategy, step_s=step_s)
        first = lived.chosen.index(out, 400)
        assert lived.chosen[first : first + 30].count(out) <= 5
        assert lived.chosen[900:].count(out) > 0.65 * calm.chosen[900:].count(out) > 70


def test_outcomes_that_come_late_twice_or_never_do_little_harm() -> None:
    world, subject = World(3), router(PROFILES, seed=7)
    late: list[tuple[int, Outcome]] = []
    lost = most = 0.0
    for number, query in world.requests(1000):
        now = NOON + 10.0 * number
        noise, fate = world.luck.gauss(0.0, 0.3), world.luck.random()
        truth = world.truth(number, query)
        worth = utilities(query, truth)
        name = subject.select(query, now=now).chosen.backend_id
        took_ms = max(1, int(truth[name][0] * 2.718281828**noise))
        reported = Outcome(name, True, duration_ms=took_ms, request_id=query.request_id, happened_at=now)
        if fate < 0.4:
            subject.record(reported, now=now)
        elif fate < 0.8:
            late.append((number + world.luck.randrange(1, 60), reported))
        while late and min(late, key=lambda one: one[0])[0] <= number:
            due = min(late, key=lambda one: one[0])
            late.remove(due)
            for _ in range(2):
                assert subject.record(due[1], now=now).recorded
        if number >= 500:
            lost += max(worth.values()) - worth[name]
            most += max(worth.values()) - sum(worth.values()) / len(worth)
    assert lost / most < 0.1
    subject.advance(NOON + 10.0 * 1000 + 600.0)
    assert [subject._placement.inflight(one.id) for one in PROFILES] == [0] * 5
