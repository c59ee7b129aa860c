"""Whose failure it was, and when it happened at the earliest: what an outcome teaches about whom."""

import pytest

from routing.core.model import Fault, Operation, State
from routing.core.report import insights, status
from routing.core.router import Router
from support.makers import Clock, router

HOUR_S = 3600.0


def learned(subject: Router, now: float) -> dict[str, float]:
    return subject.scores(now=now)


@pytest.mark.parametrize("behind_s", [60.0, 2 * HOUR_S, 400 * HOUR_S])
def test_a_slow_client_clock_does_not_put_an_outcome_before_its_decision(behind_s: float) -> None:
    clock = Clock(router(["a", "b"]))
    clock.succeed("a")
    for _ in range(5):
        clock.now += 1.0
        request_id = clock.select(available_backends=("a",)).query.request_id
        clock.now += 1.0
        clock.fail("a", request_id=request_id, happened_at=clock.now - behind_s)
    assert clock.router.state("a") is State.SUSPENDED
    assert clock.router.suspension("a").failures.failures[0].at == clock.now - 1.0


def test_an_outcome_that_is_not_linked_is_as_old_as_it_says() -> None:
    clock = Clock(router(["a"]))
    assert not clock.record("a", False, request_id="r", happened_at=clock.now - 400 * HOUR_S).recorded


def test_a_linked_outcome_keeps_a_time_after_its_decision() -> None:
    clock = Clock(router(["a"]))
    request_id = clock.select().query.request_id
    clock.now += 10.0
    clock.fail("a", request_id=request_id, happened_at=clock.now - 4.0)
    assert [one.at for one in clock.router.suspension("a").failures.failures] == [clock.now - 4.0]


@pytest.mark.parametrize("linked", [False, True])
def test_a_fault_of_the_callers_is_counted_and_teaches_nothing(linked: bool) -> None:
    clock = Clock(router(["a", "b"]))
    before = learned(clock.router, clock.now)
    for number in range(30):
        if linked:
            clock.select(request_id=f"r{number}", available_backends=("a",))
        clock.fail("a", request_id=f"r{number}", fault=Fault.CALLER)
    assert clock.router.state("a") is State.OK
    assert clock.router.learning.outcomes("a") == 0
    assert learned(clock.router, clock.now) == before
    assert insights(clock.router, now=clock.now).backend_success_rates == {"a": 0.0}
    assert status(clock.router, now=clock.now).name == "NORMAL"


def test_a_fault_of_the_content_of_a_store_teaches_and_suspends_nobody() -> None:
    clock = Clock(router(["a", "b"]))
    for number in range(30):
        clock.select(request_id=f"r{number}", available_backends=("a",))
        clock.fail("a", request_id=f"r{number}", fault=Fault.CONTENT)
    assert clock.router.state("a") is State.OK
    assert clock.select().chosen.backend_id == "b"
    assert status(clock.router, now=clock.now).name == "NORMAL"


def test_a_fault_of_the_content_of_a_retrieval_is_about_its_hash_alone() -> None:
    clock = Clock(router(["a", "b"]))
    before = learned(clock.router, clock.now)
    for number in range(30):
        clock.select(
            request_id=f"r{number}", operation=Operation.RETRIEVE, content_hash=f"h{number}",
            available_backends=("a",),
        )  # fmt: skip
        clock.fail("a", request_id=f"r{number}", fault=Fault.CONTENT)
    assert clock.router.state("a") is State.OK
    assert learned(clock.router, clock.now) == before


def test_a_fault_of_the_content_neither_ends_nor_lengthens_a_run_of_failures() -> None:
    clock = Clock(router(["a"]))
    clock.succeed("a", times=30)
    for number in range(4):
        clock.fail("a")
        clock.fail("a", times=3, request_id=f"r{number}", fault=Fault.CONTENT)
    assert clock.router.state("a") is State.OK
    clock.fail("a")
    assert clock.router.state("a") is State.SUSPENDED


@pytest.mark.parametrize("fault", Fault)
def test_beside_success_a_fault_means_nothing(fault: Fault) -> None:
    told, plain = Clock(router(["a"])), Clock(router(["a"]))
    told.succeed("a", duration_ms=20, fault=fault)
    plain.succeed("a", duration_ms=20)
    assert told.snapshot() == plain.snapshot()


@pytest.mark.parametrize("fault", [Fault.CALLER, Fault.CONTENT])
def test_a_probe_that_ended_with_another_s_fault_neither_doubles_the_wait_nor_counts(fault: Fault) -> None:
    clock = Clock(router(["a", "b"]))
    clock.fail("a", 5)
    for _ in range(20):
        clock.select()
    clock.now += 30.0
    probe = clock.select()
    assert probe.probe
    clock.fail("a", request_id=probe.query.request_id, fault=fault)
    assert clock.router.suspension("a").probes.failures == 0
    assert clock.router.suspension("a").failed_at == 0.0
