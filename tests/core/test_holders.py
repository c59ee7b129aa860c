"""Who holds a content, who is doubted to, and what makes a holder again."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.holders import FAILED_RETRIEVALS, MAX_HASHES, MAX_HOLDERS, UNKNOWN, Holders
from routing.core.model import Fault, Operation, Outcome, Query, State
from support.makers import NOON, Clock, router


def known(holders: Holders, content_hash: str = "h") -> list[str]:
    return sorted(holders.of(content_hash).known)


def doubtful(holders: Holders, content_hash: str = "h") -> list[str]:
    return sorted(holders.of(content_hash).doubtful)


def of_two() -> Holders:
    holders = Holders()
    for name in "ab":
        holders.note_success(name, at=NOON)
        holders.note_holder("h", name, at=NOON)
    return holders


def fail(
    holders: Holders, backend_id: str = "a", *, at: float = NOON, times: int = 1, lost: bool = False
) -> None:
    for _ in range(times):
        holders.note_failed_retrieval("h", backend_id, at=at, lost=lost)


def test_holders_are_remembered_with_when_they_were_last_seen() -> None:
    holders = Holders()
    assert holders.of("h") is UNKNOWN
    assert len(holders) == 0
    holders.note_holder("h", "a", at=2.0)
    holders.note_holder("h", "b", at=3.0)
    holders.note_holder("h", "a", at=1.0)
    assert holders.of("h").known == {"a": 2.0, "b": 3.0}
    assert repr(holders) == "Holders(hashes=1, doubted=0)"


def test_of_too_many_holders_the_one_not_seen_for_longest_is_forgotten() -> None:
    holders = Holders()
    for number in range(MAX_HOLDERS + 3):
        holders.note_holder("h", f"b{number:02}", at=float(number))
        holders.note_failed_retrieval("h", f"b{number:02}", at=NOON, lost=False)
    assert known(holders) == [f"b{number:02}" for number in range(3, MAX_HOLDERS + 3)]
    assert len(holders._failures["h"]) == MAX_HOLDERS


def test_of_too_many_hashes_the_one_touched_longest_ago_is_forgotten() -> None:
    holders = Holders(max_hashes=3)
    for name in ("h1", "h2", "h3", "h1", "h4"):
        holders.note_holder(name, "a", at=NOON)
        holders.note_failed_retrieval(name, "a", at=NOON, lost=False)
    assert [name for name in ("h1", "h2", "h3", "h4") if holders.of(name).known] == ["h1", "h3", "h4"]
    assert sorted(holders._failures) == ["h1", "h3", "h4"]


def test_the_limits_are_those_that_are_documented() -> None:
    assert (MAX_HOLDERS, MAX_HASHES, FAILED_RETRIEVALS) == (32, 100_000, 2)


def test_one_failed_retrieval_makes_no_doubt_and_two_do() -> None:
    holders = of_two()
    fail(holders)
    assert (known(holders), doubtful(holders)) == (["a", "b"], [])
    fail(holders)
    assert (known(holders), doubtful(holders)) == (["a", "b"], ["a"])


def test_a_doubted_holder_that_succeeds_with_anything_has_lost_the_content() -> None:
    holders = of_two()
    fail(holders, times=2)
    holders.note_success("b", at=NOON + 1.0)
    assert known(holders) == ["a", "b"]
    holders.note_success("a", at=NOON)
    assert (known(holders), doubtful(holders)) == (["b"], ["a"])
    fail(holders, at=NOON + 9.0, times=3)
    assert known(holders) == ["b"]


def test_a_success_before_its_failures_proves_nothing() -> None:
    holders = of_two()
    fail(holders, at=NOON + 5.0, times=2)
    holders.note_success("a", at=NOON + 4.0)
    assert known(holders) == ["a", "b"]


def test_a_backend_that_says_so_has_lost_the_content_at_once() -> None:
    holders = of_two()
    fail(holders, lost=True)
    assert (known(holders), doubtful(holders)) == (["b"], ["a"])
    fail(holders)
    assert known(holders) == ["b"]


@pytest.mark.parametrize("again", ["note_holder", "note_retrieved"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_success_with_the_content_makes_it_a_holder_again(again: str, lost: bool) -> None:
    holders = of_two()
    fail(holders, times=2, lost=lost)
    holders.note_success("a", at=NOON + 1.0)
    getattr(holders, again)("h", "a", at=NOON + 2.0)
    assert (known(holders), doubtful(holders)) == (["a", "b"], [])
    assert repr(holders) == "Holders(hashes=1, doubted=0)"


def test_a_success_between_two_failures_starts_the_count_again() -> None:
    holders = of_two()
    fail(holders, "b")
    fail(holders)
    holders.note_retrieved("h", "a", at=NOON)
    fail(holders)
    assert doubtful(holders) == []
    assert repr(holders) == "Holders(hashes=1, doubted=1)"


def test_only_holders_can_be_doubted_and_only_where_one_is_known() -> None:
    holders = Holders()
    fail(holders, times=2, lost=True)
    holders.note_retrieved("h", "a", at=NOON)
    assert holders.of("h") is UNKNOWN
    holders.note_holder("h", "a", at=NOON)
    fail(holders, "b", times=2)
    assert doubtful(holders) == []
    holders.note_retrieved("h", "b", at=NOON)
    assert known(holders) == ["a", "b"]


# --- snapshots ---


def restored(*snapshots: Any, names: str = "abc") -> Holders:
    holders = Holders()
    for one in snapshots:
        holders.merge(json.loads(json.dumps(one)), known=lambda name: name in names)
    return holders


def test_snapshot_and_back_changes_nothing() -> None:
    before = of_two()
    fail(before, times=2)
    fail(before, "b", lost=True)
    after = restored(before.snapshot())
    assert after.snapshot() == before.snapshot()
    for one in (before, after):
        one.note_success("a", at=NOON + 1.0)
        assert known(one) == []
    again = restored(before.snapshot(), before.snapshot())
    assert again.snapshot() == before.snapshot()


def test_a_backend_that_is_not_known_holds_nothing_after_a_restart() -> None:
    before = of_two()
    fail(before, times=2)
    after = restored(before.snapshot(), names="b")
    assert (known(after), doubtful(after)) == (["b"], [])


def test_of_two_servers_the_one_that_saw_the_later_success_knows_better() -> None:
    doubting, believing = of_two(), of_two()
    fail(doubting, at=NOON + 1.0, times=2)
    assert doubtful(restored(doubting.snapshot(), of_two().snapshot())) == ["a"]
    believing.note_retrieved("h", "a", at=NOON + 2.0)
    for order in ((doubting, believing), (believing, doubting)):
        assert doubtful(restored(*(one.snapshot() for one in order))) == []
    more = of_two()
    fail(more, at=NOON + 3.0)
    for order in ((doubting, more), (more, doubting)):
        assert restored(*(one.snapshot() for one in order))._failures["h"]["a"].at == NOON + 3.0


stored = st.lists(
    st.tuples(st.sampled_from("gh"), st.sampled_from("abc"), st.integers(0, 9).map(float)), max_size=12
)
Stored = list[tuple[str, str, float]]


@given(stored, stored, stored)
def test_holders_merge_to_what_all_have_seen_in_any_order(a: Stored, b: Stored, c: Stored) -> None:
    def held(*streams: Stored) -> Holders:
        holders = Holders()
        for stream in streams:
            for content_hash, backend_id, at in stream:
                holders.note_holder(content_hash, backend_id, at=at)
        return holders

    for order in ((a, b, c), (c, a, b), (b, a, c)):
        merged = restored(*(held(one).snapshot() for one in order))
        for content_hash in "gh":
            assert merged.of(content_hash).known == held(a, b, c).of(content_hash).known


# --- through the router ---


def stored_on(clock: Clock, *names: str) -> None:
    for name in names:
        clock.succeed(name, content_hash="h", duration_ms=100)


def order(clock: Clock, **fields: Any) -> list[str]:
    """The choice and the alternatives of a retrieval, which leaves nothing in flight."""
    fields = {"content_hash": "h", "operation": Operation.RETRIEVE, "request_id": "look"} | fields
    decision = clock.select(**fields)
    clock.router.cancel("look")
    return [decision.chosen.backend_id, *(one.backend_id for one in decision.others)]


def retrieve(clock: Clock, has: str, **outcome: Any) -> str:
    """One retrieval of h, which succeeds where `has` says that the object is."""
    clock.now += 1.0
    decision = clock.select(content_hash="h", operation=Operation.RETRIEVE)
    name = decision.chosen.backend_id
    request_id = decision.query.request_id
    clock.record(name, name in has, request_id=request_id, content_hash="h", duration_ms=100, **outcome)
    return name


def test_a_holder_that_lost_one_object_is_left_from_its_third_retrieval_on_and_serves_the_rest() -> None:
    clock = Clock(router(["a", "b"]))
    stored_on(clock, "a", "b")
    clock.succeed("a", content_hash="other", duration_ms=1, times=20)
    chosen = [retrieve(clock, has="b") for _ in range(1000)]
    assert chosen == ["a"] * 2 + ["b"] * 998
    assert clock.router.state("a") is State.OK
    assert order(clock, content_hash="other") == ["a"]


def test_after_two_failures_a_holder_comes_last_and_after_any_success_it_is_none() -> None:
    doubted = Clock(router(["a", "b", "c"]))
    stored_on(doubted, "a", "b", "c")
    for number in range(2):
        doubted.select(content_hash="h", operation=Operation.RETRIEVE, request_id=f"r{number}",
                       available_backends=("a",))  # fmt: skip
        doubted.fail("a", request_id=f"r{number}")
    assert order(doubted)[-1] == "a"
    assert set(order(doubted)) == {"a", "b", "c"}
    doubted.succeed("a")
    assert set(order(doubted)) == {"b", "c"}


def test_a_fault_of_the_content_ends_a_holding_at_once_with_or_without_a_decision() -> None:
    for linked in (True, False):
        clock = Clock(router(["a", "b"]))
        stored_on(clock, "a", "b")
        before = clock.router.scores(now=clock.now)
        if linked:
            clock.select(
                content_hash="h", operation=Operation.RETRIEVE, request_id="r", available_backends=("a",)
            )
        clock.fail("a", content_hash="h", fault=Fault.CONTENT, request_id="r")
        assert order(clock) == ["b"]
        assert clock.router.scores(now=clock.now) == before


def test_a_backend_that_does_not_take_a_content_and_holds_it_not_has_failed_to_store_it() -> None:
    clock = Clock(router(["a", "b"]))
    stored_on(clock, "b")
    clock.fail("a", content_hash="h", fault=Fault.CONTENT)
    assert clock.router.learning.outcomes("a") == 1
    assert order(clock) == ["b"]


def test_where_every_holder_has_lost_it_all_may_serve_and_those_come_last() -> None:
    clock = Clock(router(["a", "b"]))
    stored_on(clock, "a")
    clock.succeed("a", duration_ms=1, times=20)
    clock.fail("a", content_hash="h", fault=Fault.CONTENT)
    assert order(clock) == ["b", "a"]
    assert retrieve(clock, has="b") == "b"
    assert order(clock) == ["b"]


def test_a_caller_at_fault_says_nothing_about_a_holder() -> None:
    clock = Clock(router(["a"]))
    stored_on(clock, "a")
    for _ in range(5):
        retrieve(clock, has="", fault=Fault.CALLER)
    assert clock.router._holders.of("h").doubtful == ()


def test_with_available_backends_known_holders_come_first_and_others_stay_eligible() -> None:
    clock = Clock(router(["a", "b", "c"]))
    stored_on(clock, "c")
    assert order(clock, available_backends=("a", "b", "c")) == ["c", "a", "b"]
    assert order(clock, available_backends=("a", "b")) == ["a", "b"]
    assert order(clock) == ["c"]


def test_a_doubtful_holder_comes_after_those_that_hold_nothing() -> None:
    clock = Clock(router(["a", "b", "c"]))
    stored_on(clock, "a", "c")
    for _ in range(2):
        clock.router._holders.note_failed_retrieval("h", "a", at=clock.now, lost=False)
    assert order(clock, available_backends=("a", "b", "c")) == ["c", "b", "a"]


def test_a_success_told_after_a_failure_is_not_counted_again_and_makes_a_holder() -> None:
    clock = Clock(router(["a", "b"]))
    clock.select(request_id="r", content_hash="h")
    clock.fail("a", request_id="r")
    said = clock.record("a", True, request_id="r")
    assert said.recorded
    assert "not counted again" in said.message
    assert clock.router.outcomes_total == 1
    assert order(clock) == ["a"]


def test_an_outcome_that_a_state_replays_gives_the_same_holders() -> None:
    one, other = (router(["a", "b"]) for _ in range(2))
    for subject in (one, other):
        subject.record(Outcome("a", True, content_hash="h", request_id="s"), now=NOON)
        for number in range(2):
            asked = Query(content_hash="h", operation=Operation.RETRIEVE, request_id=f"r{number}")
            subject.select(asked, now=NOON)
            subject.record(Outcome("a", False, request_id=f"r{number}"), now=NOON)
    assert one.snapshot(now=NOON) == other.snapshot(now=NOON)
    assert one._holders.of("h").doubtful == {"a"}
