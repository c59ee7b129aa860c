"""Who comes after others, whatever the scores."""

from collections import Counter

import pytest

from routing.core.model import Backend
from routing.core.placement import SILENT_S
from support.makers import Clock, router

GOOD = Backend("good", max_inflight=20, latency_ms=10.0)
PLAIN = Backend("plain", latency_ms=400.0, success_rate=0.9)


def burst(clock: Clock, number: int, **fields: object) -> Counter[str]:
    return Counter(clock.select(**fields).chosen.backend_id for _ in range(number))


def test_past_its_limit_a_backend_is_not_preferred_from_the_first_request_on() -> None:
    assert burst(Clock(router([GOOD, PLAIN])), 300) == {"good": 20, "plain": 280}


@pytest.mark.parametrize("strategy", ["performance", "adaptive"])
def test_no_strategy_passes_the_limit(strategy: str) -> None:
    assert burst(Clock(router([GOOD, PLAIN])), 300, strategy=strategy)["good"] <= 20


def test_where_all_are_full_the_scores_decide() -> None:
    clock = Clock(router([GOOD, Backend("plain", max_inflight=1, latency_ms=400.0, success_rate=0.9)]))
    assert burst(clock, 21) == {"good": 20, "plain": 1}
    decision = clock.select()
    assert [decision.chosen.backend_id, *(one.backend_id for one in decision.others)] == ["good", "plain"]


def test_a_full_backend_stays_an_alternative_and_serves_whoever_may_use_no_other() -> None:
    clock = Clock(router([GOOD, PLAIN]))
    burst(clock, 20)
    assert [one.backend_id for one in clock.select().others] == ["good"]
    assert clock.select(available_backends=("good",)).chosen.backend_id == "good"


def test_a_report_makes_room() -> None:
    clock = Clock(router([GOOD, PLAIN]))
    burst(clock, 25)
    clock.succeed("good", request_id="request-1")
    assert burst(clock, 5) == {"good": 1, "plain": 4}


def test_clients_that_never_report_do_not_make_a_backend_full_for_ever() -> None:
    clock = Clock(router([GOOD, PLAIN]))
    chosen = []
    for _ in range(int(2 * SILENT_S)):
        chosen.append(clock.select().chosen.backend_id)
        clock.now += 1.0
    before, after = chosen[: int(SILENT_S)], chosen[int(SILENT_S) :]
    assert before.count("plain") > 100
    assert set(after) == {"good"}


def test_an_idle_night_is_not_silence() -> None:
    clock = Clock(router([GOOD, PLAIN]))
    clock.select()
    clock.succeed("good", request_id="request-1")
    clock.now += 40_000.0
    assert burst(clock, 300) == {"good": 20, "plain": 280}
