"""Which outcomes are repeats: by request and backend, for an hour, and of the latest requests."""

import json

from hypothesis import given
from hypothesis import strategies as st

from routing.core.repeats import MAX_REPORTED, MAX_REPORTED_BACKENDS, RECOGNISED_S, Repeats
from support.makers import NOON, Clock, router


def test_the_limits_are_those_of_the_contract() -> None:
    assert (MAX_REPORTED, RECOGNISED_S) == (200_000, 3600.0)


def test_a_report_is_known_for_an_hour() -> None:
    repeats = Repeats()
    repeats.note("r", "a", now=NOON)
    repeats.note("r", "b", now=NOON + 60.0)
    assert [repeats.known("r", name) for name in "abc"] == [True, True, False]
    assert not repeats.known("q", "a")
    repeats.expire(NOON + RECOGNISED_S - 0.001)
    assert repeats.known("r", "b")
    repeats.expire(NOON + RECOGNISED_S)
    assert not repeats.known("r", "b")
    assert repr(repeats) == "Repeats(requests=0)"


def test_past_the_limit_the_oldest_request_is_forgotten() -> None:
    repeats = Repeats(max_reported=50)
    for number in range(5000):
        repeats.note(f"r{number}", "a", now=NOON + number / 1e3)
    assert len(repeats) == len(repeats._order) == 50
    assert [repeats.known(f"r{number}", "a") for number in (4949, 4950)] == [False, True]


def test_a_request_decided_anew_leaves_nothing_that_would_end_its_next_report_early() -> None:
    repeats = Repeats()
    repeats.note("r", "a", now=NOON)
    repeats.note_decided("r")
    repeats.note_decided("unheard of")
    assert not repeats.known("r", "a")
    repeats.note("r", "a", now=NOON + 100.0)
    repeats.expire(NOON + RECOGNISED_S)
    assert repeats.known("r", "a")


def test_backends_without_end_report_on_one_request_and_few_are_remembered() -> None:
    repeats = Repeats()
    for number in range(1000):
        repeats.note("r", f"b{number}", now=NOON)
    assert len(repeats._reported["r"]) == 1 + MAX_REPORTED_BACKENDS
    assert [repeats.known("r", f"b{number}") for number in (966, 967, 999)] == [False, True, True]


reports = st.lists(
    st.tuples(st.sampled_from("rst"), st.sampled_from("ab"), st.integers(0, 9).map(float)),
    max_size=8,
    unique_by=lambda report: report[:2],
)
Reports = list[tuple[str, str, float]]


@given(reports, reports, reports)
def test_reports_merge_in_any_order(a: Reports, b: Reports, c: Reports) -> None:
    def of(stream: Reports) -> Repeats:
        repeats = Repeats()
        for request_id, backend_id, at in sorted(stream, key=lambda report: report[2]):
            repeats.note(request_id, backend_id, now=at)
        return repeats

    merged = []
    for order in ((a, b, c), (c, a, b), (b, c, a)):
        repeats = Repeats()
        for one in order:
            repeats.merge(json.loads(json.dumps(of(one).snapshot())))
        merged.append({name: (row[0], {*row[1:]}) for name, row in repeats._reported.items()})
        assert {(name, other) for name, row in merged[-1].items() for other in row[1]} == {
            (name, other) for name, other, _ in (*a, *b, *c)
        }
    assert merged[0] == merged[1] == merged[2]
    alone = Repeats()
    alone.merge(of(a).snapshot())
    assert alone.snapshot() == of(a).snapshot()


# --- through the router ---


def test_an_outcome_told_five_times_with_an_unknown_request_counts_once() -> None:
    clock = Clock(router(["a"]))
    for _ in range(5):
        assert clock.record("a", False, request_id="unheard of").recorded
    assert clock.router.outcomes_total == 1
    assert clock.router.state("a").value == "ok"


def test_a_repeat_of_a_decision_that_is_forgotten_counts_once_too() -> None:
    clock = Clock(router(["a", "b"], max_pending=3))
    clock.select(request_id="r")
    clock.fail("a", request_id="r")
    for _ in range(10):
        clock.select()
    assert "not counted again" in clock.record("a", True, request_id="r").message
    assert clock.record("b", True, request_id="r").message == "recorded"
    assert clock.router.outcomes_total == 2


def test_the_same_request_decided_anew_counts_again() -> None:
    clock = Clock(router(["a"]))
    for _ in range(3):
        clock.select(request_id="r")
        assert clock.record("a", True, request_id="r").message == "recorded for its decision"
    assert clock.router.outcomes_total == 3


def test_after_an_hour_a_request_counts_again() -> None:
    clock = Clock(router(["a"]))
    clock.succeed("a", request_id="r")
    clock.now += RECOGNISED_S
    assert clock.record("a", True, request_id="r").message == "recorded"
