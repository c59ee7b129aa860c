"""Plays and their measures: the clairvoyant has regret 0, chance 1; leaving and returning are counted."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.errors import InvalidArgument, MissingExtra
from routing.simulation import bandits, scenario
from routing.simulation.generate import draw
from routing.simulation.measures import Recovery, measures
from routing.simulation.peers import OperationsInFlight, OutlierEjection
from routing.simulation.play import Play, Report
from routing.simulation.policies import POLICIES, make
from routing.simulation.scenario import EventRules, Scenario
from routing.simulation.workload import Request
from routing.simulation.world import World

BESIDES_LIBRARIES = [name for name in POLICIES if name != "linucb"]


class Scripted:
    """Chooses as scripted, and records the reports."""

    def __init__(self, script: "dict[range, str]") -> None:
        self.script = script
        self.reports: list[tuple[Report, int]] = []
        self.asked = 0

    def choose(self, request: Request, names: Sequence[str]) -> str:
        self.asked = request.index
        return next(name for when, name in self.script.items() if request.index in when)

    def learn(self, report: Report) -> None:
        self.reports.append((report, self.asked))


def world(name: str = "stationary", *, seed: int = 1, requests: int = 200) -> World:
    return draw(scenario.load(name), seed=seed, requests=requests)


def play(drawn: World, name: str) -> Play:
    one = Play(drawn)
    return one.run(make(name, one, Random(0)))


def outage() -> World:
    """The best of all fails altogether from request 100 to 200, of 400."""
    event = EventRules(starts=(0.25, 0.25), lasts=(0.25, 0.25), fails=(1.0, 1.0))
    return draw(Scenario("test", "test", "test", events=(event,)), seed=1, requests=400)


@given(seed=st.integers(0, 10_000), name=st.sampled_from(scenario.names()))
@settings(max_examples=15, deadline=None)
def test_the_clairvoyant_has_no_regret_and_random_has(seed: int, name: str) -> None:
    drawn = world(name, seed=seed, requests=40)
    assert measures(play(drawn, "clairvoyant")).regret == 0.0
    assert measures(play(drawn, "random")).regret > 0.0


def test_a_uniform_choice_regrets_about_1() -> None:
    """Each loss is that of one draw of eight, whose standard deviation is below its mean; over
    3,000 requests the ratio strays by less than 0.02, and five times that is 0.1."""
    assert measures(play(world(requests=3000), "random")).regret == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("name", BESIDES_LIBRARIES)
def test_every_policy_plays_the_same_way_twice(name: str) -> None:
    one, again = play(world("newcomer"), name), play(world("newcomer"), name)
    assert one.decisions == again.decisions


def test_two_policies_that_choose_alike_fare_alike() -> None:
    drawn = world()
    by_name = {name: play(drawn, name) for name in ("static", "adaptive", "random")}
    fates: dict[tuple[int, str], object] = {}
    met = 0
    for one in by_name.values():
        for choice in one.decisions:
            fate = choice.success, choice.duration_ms
            met += (choice.request.index, choice.backend_id) in fates
            assert fates.setdefault((choice.request.index, choice.backend_id), fate) == fate
    assert met > 100


def test_an_outcome_is_reported_when_the_operation_has_ended_and_not_before() -> None:
    drawn = world("load")
    policy = Scripted({range(200): next(iter(drawn.backends))})
    Play(drawn).run(policy)
    requests = drawn.workload.requests
    late = 0
    for report, asked in policy.reports:
        following = requests[asked + 1].at
        assert requests[asked].at < report.ended_at <= following
        late += asked > report.request.index
    assert late > 10


def test_unreported_outcomes_reach_no_policy() -> None:
    drawn = world(requests=2000)
    policy = Scripted({range(2000): next(iter(drawn.backends))})
    Play(drawn).run(policy)
    silent = {request.index for request in drawn.workload.requests if not request.reported}
    assert silent
    assert not silent & {report.request.index for report, _ in policy.reports}


def test_leaving_and_coming_back_are_counted() -> None:
    drawn = outage()
    [effect] = drawn.disturbances
    other = next(name for name in drawn.backends if name != effect.backend_id)
    # It stays for ten requests of the outage, and is back thirty after its end.
    script = {range(110): effect.backend_id, range(110, 230): other, range(230, 400): effect.backend_id}
    found = measures(Play(drawn).run(Scripted(script)))
    [left] = found.left
    assert 0 < left <= 9
    [back] = found.back
    assert back.returned
    assert 30 <= back.decisions <= 60


@pytest.mark.parametrize(("rechecks", "more"), [([135], 0), ([125], 1), ([118, 125], 2), ([125, 135], 1)])
def test_a_single_retry_does_not_count_as_staying(rechecks: list[int], more: int) -> None:
    drawn = outage()
    [effect] = drawn.disturbances
    other = next(name for name in drawn.backends if name != effect.backend_id)

    def left(visits: list[int]) -> int:
        script = {range(visit, visit + 1): effect.backend_id for visit in visits}
        script |= {range(110): effect.backend_id, range(110, 400): other}
        return measures(Play(drawn).run(Scripted(script))).left[0]

    assert left(rechecks) == left([]) + more


def test_traffic_that_never_returns_is_reported_as_such() -> None:
    drawn = outage()
    [effect] = drawn.disturbances
    other = next(name for name in drawn.backends if name != effect.backend_id)
    found = measures(Play(drawn).run(Scripted({range(110): effect.backend_id, range(110, 400): other})))
    assert found.back == (Recovery(200, False),)


def test_a_policy_that_never_used_the_backend_has_nothing_to_leave() -> None:
    drawn = outage()
    other = next(name for name in drawn.backends if name != drawn.disturbances[0].backend_id)
    assert measures(Play(drawn).run(Scripted({range(400): other}))).left == ()


def test_learning_beats_the_rules_where_the_profiles_are_wrong() -> None:
    """By more than half, in four worlds together: in one of them, these dice are slow to find the best."""
    worlds = [world("priors-wrong", seed=seed, requests=1000) for seed in range(4)]
    ours, rules = (sum(measures(play(one, name)).regret for one in worlds) for name in ("adaptive", "static"))
    assert ours < rules / 2


def test_an_ejecting_balancer_leaves_an_outage_sooner_than_static_rules() -> None:
    drawn = world("outage", seed=0, requests=1000)
    assert sum(measures(play(drawn, "ejection")).left) < sum(measures(play(drawn, "static")).left) / 3


def test_ejection_leaves_a_share_of_the_backends() -> None:
    """Of eight backends all fail: with 0.9 seven are ejected, with 0.1 one is."""
    drawn = world(requests=10)
    for share, ejected in ((0.9, 7), (0.5, 4), (0.1, 1)):
        policy = OutlierEjection(Play(drawn), Random(0))
        policy.MOST_SHARE = share  # type: ignore[misc]
        for name in drawn.backends:
            for request in drawn.workload.requests[:3]:
                policy._active.begin(name, request.at)
                policy.learn(Report(request, name, False, 1, request.at))
        assert sum(until > 0 for until in policy._until.values()) == ejected


def test_discounted_ucb_learns_what_the_profiles_have_wrong() -> None:
    drawn = world("priors-wrong", requests=1000)
    assert measures(play(drawn, "ducb")).regret < measures(play(drawn, "static")).regret


def test_peak_ewma_avoids_a_backend_that_became_slow() -> None:
    """It cannot tell a large object from a slow backend, and so is no better than chance where
    nothing happens; but a backend that takes a hundred times as long loses."""
    event = EventRules(slower=(100.0, 100.0))
    drawn = draw(Scenario("test", "test", "test", events=(event,)), seed=1, requests=800)
    slow = [
        choice.backend_id == drawn.disturbances[0].backend_id for choice in play(drawn, "peak-ewma").decisions
    ]
    assert sum(slow) < 800 / 8 / 2


def test_linucb_learns_what_the_profiles_have_wrong() -> None:
    pytest.importorskip("mabwiser", reason="needs the extra peers")
    drawn = world("priors-wrong", requests=400)
    assert measures(play(drawn, "linucb")).regret < measures(play(drawn, "static")).regret


def test_linucb_takes_newcomers_in() -> None:
    pytest.importorskip("mabwiser", reason="needs the extra peers")
    assert len(play(world("newcomer"), "linucb").decisions) == 200


def test_linucb_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mabwiser.mab", None)
    with pytest.raises(MissingExtra, match=r"pip install 'routing-server\[peers\]'"):
        bandits.LinUcb(Play(world()), Random(0))


def test_an_unreported_operation_does_not_stay_in_flight() -> None:
    under_way = OperationsInFlight()
    for at in (0.0, 10.0, 50.0):
        under_way.begin("a", at)
    under_way.end("a")
    assert under_way.count("a", 50.0) == 2
    assert under_way.count("a", 80.0) == 1
    assert under_way.count("a", 111.0) == under_way.count("b", 0.0) == 0
    under_way.end("a")


def test_an_unknown_policy_is_refused_with_the_list() -> None:
    with pytest.raises(InvalidArgument, match=r"policy: 'best' is not valid; expected one of hybrid, "):
        make("best", Play(world()), Random(0))
