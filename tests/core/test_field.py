"""What the field does to a router: slow first transfers, wrong profiles, one kind that fails.

Each test is a world seen in production, played through the router with a fake clock.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from routing.core.learning.changepoint import Change
from routing.core.learning.kinds import Kinds
from routing.core.model import Backend, Estimate, Location, Operation
from support.makers import Clock, router

DAY_S = 86_400.0

EUROPE = Location(50.1, 8.7, "eu")
AMERICA = Location(38.9, -77.4, "us")


def believed(clock: Clock, backend: Backend, **fields: Any) -> Estimate:
    """What the router expects of the backend for such a request."""
    decision = clock.select(available_backends=(backend.id,), **fields)
    return decision.chosen.estimate


def play(
    clock: Clock,
    requests: int,
    how: Callable[[str, int], tuple[bool, int | None]],
    *,
    every_s: float = 1.0,
    query: Callable[[int], dict[str, Any]] = lambda _: {},
) -> list[str]:
    """Selects and reports so many times; answers who was chosen. `how` says, for the choice and
    the request's number, whether it succeeds and in how many ms."""
    chosen = []
    for number in range(requests):
        decision = clock.select(**query(number))
        success, duration_ms = how(decision.chosen.backend_id, number)
        chosen.append(decision.chosen.backend_id)
        clock.now += every_s
        clock.record(
            decision.chosen.backend_id,
            success,
            duration_ms=duration_ms,
            request_id=decision.query.request_id,
        )
    return chosen


def rivals(**of_best: Any) -> tuple[Backend, Backend]:
    """A good backend, and one that is clearly behind it."""
    return Backend("best", latency_ms=100.0, **of_best), Backend("second", latency_ms=250.0)


@pytest.mark.parametrize(("outcomes", "times"), [(1, 20), (10, 5)])
def test_a_slow_start_is_forgotten_as_its_evidence_decays(outcomes: int, times: int) -> None:
    best, second = rivals()
    clock = Clock(router([best, second]))
    usual = believed(clock, best).expected_ms
    for _ in range(outcomes):
        clock.record("best", True, duration_ms=int(usual * times))
    clock.now += 14 * DAY_S
    assert believed(clock, best).expected_ms < 1.5 * usual
    assert clock.select().chosen.backend_id == "best"


@pytest.mark.parametrize(("outcomes", "times"), [(1, 20), (10, 5)])
def test_traffic_returns_to_a_newcomer_after_a_slow_start(outcomes: int, times: int) -> None:
    best, second = rivals()
    clock = Clock(router([best, second]))
    slow = int(believed(clock, best).expected_ms * times)
    for _ in range(outcomes):
        clock.record("best", True, duration_ms=slow)
    chosen = play(clock, 3 * 1440, lambda name, _: (True, {"best": 142, "second": 292}[name]), every_s=60.0)
    assert chosen[-1440:].count("best") > 1400


def test_a_backend_that_was_slow_for_a_day_is_back_within_a_day() -> None:
    best, second = rivals()
    clock = Clock(router([best, second]))
    usual = {"best": 142, "second": 292}
    play(clock, 288, lambda name, _: (True, usual[name]), every_s=300.0)
    without = {"exclude_backends": frozenset({"second"})}
    play(clock, 288, lambda *_: (True, 1420), every_s=300.0, query=lambda _: without)
    chosen = play(clock, 2 * 288, lambda name, _: (True, usual[name]), every_s=300.0)
    assert chosen[288:].count("best") > 230


def test_two_hundred_outcomes_are_believed_however_far_from_the_profile() -> None:
    quick, slow = Backend("quick"), Backend("slow")
    clock = Clock(router([quick, slow]))
    for _ in range(200):
        clock.record("quick", True, duration_ms=5_000)
        clock.record("slow", True, duration_ms=3_600_000)
        clock.now += 60.0
    assert believed(clock, quick).expected_ms == pytest.approx(5_000, rel=0.25)
    assert believed(clock, slow).expected_ms == pytest.approx(3_600_000, rel=0.25)


@pytest.mark.parametrize(
    "mistaken",
    [
        Backend("best", latency_ms=2.0, throughput_mbps=40_000.0),  # seconds typed as milliseconds
        Backend("best", latency_ms=100.0, throughput_mbps=200e6),  # bits typed as megabits
    ],
    ids=["latency", "throughput"],
)
def test_a_profile_in_wrong_units_is_outlived(mistaken: Backend) -> None:
    clock = Clock(router([mistaken, Backend("honest", latency_ms=150.0)]))
    chosen = play(
        clock,
        3_000,
        lambda name, _: (True, {"best": 9_000, "honest": 190}[name]),
        query=lambda _: {"size_bytes": 8 << 20},
    )
    assert chosen[-1000:].count("best") <= 10
    only = {"available_backends": ("best",), "size_bytes": 8 << 20}
    play(clock, 300, lambda *_: (True, 9_000), query=lambda _: only)
    assert believed(clock, mistaken, size_bytes=8 << 20).expected_ms == pytest.approx(9_000, rel=0.25)


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "size": ({"size_bytes": 2_000_000_000}, {"size_bytes": 2_000_000}),
    "type": ({"content_type": "video/mp4"}, {"content_type": "image/png"}),
    "region": ({"location": Location(region="eu")}, {"location": Location(region="us")}),
    "place": ({"location": EUROPE}, {"location": AMERICA}),
    "operation": ({"operation": Operation.STORE}, {"operation": Operation.RETRIEVE}),
}
"""The kind that fails, and one that does not."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_always_fails_goes_elsewhere_and_the_others_stay(kind: str) -> None:
    failing, fine = KINDS[kind]
    best, second = rivals(success_rate=0.999)
    clock = Clock(router([best, second]))

    def query(number: int) -> dict[str, Any]:
        return failing if number % 10 == 0 else fine

    def how(name: str, number: int) -> tuple[bool, int | None]:
        took = {"best": 142, "second": 292}[name]
        return (False, None) if name == "best" and number % 10 == 0 else (True, took)

    chosen = play(clock, 4_000, how, query=query)
    affected, others = chosen[0::10], [one for number, one in enumerate(chosen) if number % 10]
    assert affected[:100].count("best") <= 15
    assert affected[-100:].count("best") <= 5
    assert others.count("best") > 0.93 * len(others)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_begins_to_fail_goes_elsewhere_whatever_its_past(kind: str) -> None:
    failing, fine = KINDS[kind]
    best, second = rivals(success_rate=0.999)
    clock = Clock(router([best, second]))
    begins = 8_000

    def query(number: int) -> dict[str, Any]:
        return failing if number % 10 == 0 else fine

    def how(name: str, number: int) -> tuple[bool, int | None]:
        took = {"best": 142, "second": 292}[name]
        broken = number >= begins and number % 10 == 0 and name == "best"
        return (False, None) if broken else (True, took)

    chosen = play(clock, begins + 3_000, how, query=query)
    affected = chosen[begins::10]
    others = [one for number, one in enumerate(chosen) if number >= begins and number % 10]
    assert affected[:300].count("best") <= 0.15 * 300
    assert others.count("best") > 0.93 * len(others)


def test_reads_and_writes_are_expected_apart() -> None:
    archive = Backend("archive")
    clock = Clock(router([archive]))
    for _ in range(100):
        for operation, took in ((Operation.RETRIEVE, 60), (Operation.STORE, 4_000)):
            decision = clock.select(operation=operation)
            clock.now += 5.0
            clock.record("archive", True, duration_ms=took, request_id=decision.query.request_id)
    assert believed(clock, archive, operation=Operation.RETRIEVE).expected_ms == pytest.approx(60, rel=0.25)
    assert believed(clock, archive, operation=Operation.STORE).expected_ms == pytest.approx(4_000, rel=0.25)


def test_a_late_type_finds_room_among_odd_ones() -> None:
    best, second = rivals()
    clock = Clock(router([best, second]))
    usual = {"best": 142, "second": 292}
    for number in range(70):
        clock.record("best", True, duration_ms=142, content_type=f"odd/{number}")
    play(
        clock,
        600,
        lambda name, _: (True, usual[name]),
        query=lambda number: {"content_type": f"odd/{number % 70}"},
    )

    def query(number: int) -> dict[str, Any]:
        return {"content_type": "video/mp4" if number % 10 == 0 else f"odd/{number % 70}"}

    def how(name: str, number: int) -> tuple[bool, int | None]:
        slow = number % 10 == 0 and name == "best"
        return True, usual[name] * (10 if slow else 1)

    chosen = play(clock, 3_000, how, query=query)
    assert chosen[1000::10].count("best") <= 10
    assert Counter(chosen)["best"] > 0.85 * len(chosen)


@pytest.mark.parametrize("history", [1_000, pytest.param(12_000, marks=pytest.mark.slow)])
def test_a_type_that_becomes_slow_is_left_whatever_the_history(history: int) -> None:
    best, second = rivals()
    clock = Clock(router([best, second]))
    usual = {"best": 142, "second": 292}

    def query(number: int) -> dict[str, Any]:
        return {"content_type": "video/mp4" if number % 10 == 0 else "image/png"}

    def how(name: str, number: int) -> tuple[bool, int | None]:
        slow = number >= history and number % 10 == 0 and name == "best"
        return True, usual[name] * (20 if slow else 1)

    chosen = play(clock, history + 3_000, how, query=query)
    slowed = chosen[history::10]
    others = [one for number, one in enumerate(chosen) if number >= history and number % 10]
    assert slowed[:50].count("best") <= 15
    assert slowed[50:].count("best") <= 0.1 * 250
    assert others.count("best") > 0.93 * len(others)


def test_a_corrected_profile_changes_no_belief_that_outcomes_support() -> None:
    wrong, right = Backend("s3", latency_ms=0.4), Backend("s3", latency_ms=400.0)
    clock = Clock(router([wrong]))
    for _ in range(2_000):
        clock.record("s3", True, duration_ms=400)
        clock.now += 1.0
    before = believed(clock, wrong).expected_ms
    assert before == pytest.approx(400, rel=0.2)
    corrected = router([right])
    corrected.merge(clock.snapshot(), now=clock.now)
    after = believed(Clock(corrected, now=clock.now), right).expected_ms
    assert after == pytest.approx(before, rel=0.05)


def test_two_servers_that_saw_the_same_kind_fail_know_it_together() -> None:
    clocks = [Clock(router(rivals(success_rate=0.999))) for _ in range(2)]
    for clock in clocks:
        for number in range(40):
            kind = "video/mp4" if number % 5 == 0 else "image/png"
            clock.record("best", kind == "image/png", content_type=kind, duration_ms=142)
            clock.now += 1.0
    both = clocks[0]
    both.router.merge(clocks[1].snapshot(), now=both.now)
    video, image = (believed(both, rivals()[0], content_type=kind) for kind in ("video/mp4", "image/png"))
    assert video.success_probability < image.success_probability - 0.03
    empty = clocks[1].snapshot()
    for history in empty["learning"].values():
        for kind in history["kinds"].values():
            kind[6] = []
    both.router.merge(empty, now=both.now)
    assert believed(both, rivals()[0], content_type="video/mp4").success_probability < 0.9


def test_a_new_profile_is_believed_where_only_failures_came() -> None:
    clock = Clock(router([Backend("s3", latency_ms=40.0)]))
    clock.fail("s3", 2)
    corrected = router([Backend("s3", latency_ms=400.0)])
    corrected.merge(clock.snapshot(), now=clock.now)
    estimate = believed(Clock(corrected, now=clock.now), Backend("s3"))
    assert estimate.expected_ms == estimate.prior_ms > 400.0


def test_kinds_can_be_seen() -> None:
    kinds = Kinds()
    kinds.get_or_add(("type:b", "size:4"), 0.0)
    assert repr(kinds) == "Kinds(['size:4', 'type:b'])"


def test_a_kind_that_slows_down_hides_no_recovery_of_the_whole_backend() -> None:
    """The backend does better than its record says; that one type is slow changes nothing in that."""
    backend = Backend("s3", latency_ms=100.0)
    clock = Clock(router([backend]))
    for number in range(40):
        clock.record("s3", number % 3 == 0, content_type="video/mp4", duration_ms=142)
        clock.now += 1.0
    clock.now += DAY_S / 2.0
    clock.fail("s3", content_type="video/mp4")
    clock.now += DAY_S / 2.0
    clock.succeed("s3", 6, content_type="video/mp4", duration_ms=142)
    recovered = believed(clock, backend, content_type="video/mp4").success_probability
    history = clock.router.learning._histories["s3"]
    assert recovered > history.success.long_term(backend, clock.now) + 0.1
    (video,) = history.kinds.known(("type:video/mp4",))
    video.speed_change = Change(0.9, 3.0, 0.1, clock.now)
    history.context_estimates.clear()
    assert believed(clock, backend, content_type="video/mp4").expected_ms > 1_000.0
    after = believed(clock, backend, content_type="video/mp4").success_probability
    assert after == pytest.approx(recovered, rel=0.02)  # each decision lets a change decay a little
