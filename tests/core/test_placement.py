"""Which decision an outcome belongs to, what is in flight, what was reported; all of it bounded."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from routing.core.model import Location, Operation, Outcome, Query
from routing.core.pending import PendingDecision
from routing.core.placement import MAX_PENDING, PENDING_TTL_S, SILENT_S, Placement
from support.makers import NOON

HERE = Location(1.0, 2.0, "eu")


def decide(
    placement: Placement,
    backend_id: str = "a",
    *,
    now: float = NOON,
    expected_ms: float = 100.0,
    **fields: Any,
) -> None:
    placement.advance(now)
    placement.note_decision(Query(**fields), backend_id, expected_ms, now=now)


def report(placement: Placement, backend_id: str = "a", **fields: Any) -> PendingDecision | None:
    """Records an outcome; returns the pending decision that was found."""
    outcome = Outcome(backend_id, True, **fields)
    pending = placement.find_pending(outcome)
    placement.note_outcome(outcome, pending, now=NOON)
    return pending


# --- linking ---


def test_an_outcome_finds_its_decision_by_request_id_with_all_that_was_asked() -> None:
    placement = Placement()
    png = {"content_hash": "h", "content_type": "image/png", "size_bytes": 7, "location": HERE}
    decide(placement, request_id="r1", **png)
    decide(placement, request_id="r2", operation=Operation.RETRIEVE)
    found = report(placement, request_id="r1")
    assert found is not None
    assert (found.backend_id, found.request_id, found.operation) == ("a", "r1", Operation.STORE)
    assert {field: getattr(found, field) for field in png} == png
    found = report(placement, request_id="r2")
    assert found is not None
    assert (found.request_id, found.operation) == ("r2", Operation.RETRIEVE)


def test_without_a_request_id_it_finds_it_by_hash_and_backend() -> None:
    placement = Placement()
    decide(placement, "a", content_hash="h", size_bytes=1)
    decide(placement, "b", content_hash="h", size_bytes=2)
    decide(placement, "b", content_hash="other", size_bytes=3)
    found = report(placement, "b", content_hash="h")
    assert found is not None
    assert found.size_bytes == 2


def test_a_decision_with_a_request_id_is_found_by_its_hash_too() -> None:
    """Clients of the older schema cannot send the new field of an outcome."""
    placement = Placement()
    decide(placement, request_id="r", content_hash="h")
    assert report(placement, content_hash="h") is not None
    assert report(placement, content_hash="h") is None


def test_the_request_id_alone_decides_where_there_is_one() -> None:
    placement = Placement()
    decide(placement, content_hash="h")
    assert report(placement, request_id="unheard of", content_hash="h") is None
    assert report(placement, content_hash="h") is not None


@pytest.mark.parametrize("fields", [{}, {"content_hash": "h"}, {"request_id": "r"}])
def test_an_outcome_without_a_decision_finds_none(fields: dict[str, str]) -> None:
    assert report(Placement(), **fields) is None


def test_nothing_in_common_links_nothing() -> None:
    """An empty hash is no hash: two operations on one backend need not be the same."""
    placement = Placement()
    decide(placement)
    assert report(placement) is None


def test_decisions_about_the_same_content_are_linked_once_each_the_oldest_first() -> None:
    placement = Placement()
    for size_bytes in (1, 2, 3):
        decide(placement, content_hash="h", size_bytes=size_bytes)
    found = [report(placement, content_hash="h") for _ in range(4)]
    assert [one and one.size_bytes for one in found] == [1, 2, 3, None]


def test_what_was_reported_by_request_id_is_not_reported_again_by_hash() -> None:
    placement = Placement()
    for number in (1, 2, 3):
        decide(placement, content_hash="h", request_id=f"r{number}", size_bytes=number)
    assert report(placement, request_id="r2") is not None
    found = [report(placement, content_hash="h") for _ in range(3)]
    assert [one and one.size_bytes for one in found] == [1, 3, None]


def test_a_repeat_is_known_by_request_and_backend() -> None:
    placement = Placement()
    decide(placement, "a", request_id="r")
    for backend_id in "ab":
        assert not placement.is_repeat(Outcome(backend_id, True, request_id="r"))
        assert report(placement, backend_id, request_id="r") is not None
        assert placement.is_repeat(Outcome(backend_id, False, request_id="r"))
    assert not placement.is_repeat(Outcome("a", True, content_hash="h"))


def test_a_request_decided_anew_is_reported_anew() -> None:
    placement = Placement()
    report(placement, "a", request_id="r")
    decide(placement, "a", request_id="r")
    assert not placement.is_repeat(Outcome("a", True, request_id="r"))


def test_a_request_id_used_again_means_the_newer_decision() -> None:
    placement = Placement()
    decide(placement, "a", request_id="r", content_hash="old")
    decide(placement, "b", request_id="r", content_hash="new")
    assert repr(placement) == "Placement(pending=1, reported=0)"
    assert placement.inflight("a") == 0
    assert report(placement, "a", content_hash="old") is None
    found = report(placement, "b", request_id="r")
    assert found is not None
    assert found.content_hash == "new"


@pytest.mark.parametrize("fields", [{"content_hash": "h"}, {"request_id": "r"}])
def test_a_decision_waits_for_its_outcome_for_an_hour(fields: dict[str, str]) -> None:
    placement = Placement()
    decide(placement, **fields)
    placement.advance(NOON + PENDING_TTL_S - 0.001)
    assert placement.find_pending(Outcome("a", True, **fields)) is not None
    placement.advance(NOON + PENDING_TTL_S)
    assert placement.find_pending(Outcome("a", True, **fields)) is None
    assert repr(placement) == "Placement(pending=0, reported=0)"


# --- in flight ---


def test_a_decision_that_was_not_carried_out_is_withdrawn_with_all_that_it_left() -> None:
    placement = Placement()
    decide(placement, request_id="r", content_hash="h")
    decide(placement, request_id="other", content_hash="h")
    placement.cancel("r")
    assert placement.inflight("a") == 1
    assert report(placement, request_id="r") is None
    found = report(placement, content_hash="h")
    assert found is not None
    assert found.request_id == "other"


@pytest.mark.parametrize("request_id", ["", "unheard of", "r"])
def test_what_is_not_waited_for_cannot_be_withdrawn(request_id: str) -> None:
    placement = Placement()
    decide(placement)
    decide(placement, request_id="r")
    placement.cancel("r")
    placement.cancel(request_id)
    assert placement.inflight("a") == 1


def test_what_was_decided_is_in_flight_until_its_outcome_comes() -> None:
    placement = Placement()
    decide(placement, "a", request_id="r1")
    decide(placement, "a", request_id="r2")
    decide(placement, "b", content_hash="h")
    assert (placement.inflight("a"), placement.inflight("b"), placement.inflight("c")) == (2, 1, 0)
    report(placement, "a", request_id="r1")
    report(placement, "b", content_hash="h")
    assert (placement.inflight("a"), placement.inflight("b")) == (1, 0)


def test_a_repeat_takes_nothing_else_out_of_flight() -> None:
    placement = Placement()
    decide(placement, request_id="r1")
    decide(placement, request_id="r2")
    for _ in range(3):
        report(placement, request_id="r1")
    assert placement.inflight("a") == 1


def test_an_outcome_of_an_alternative_ends_the_choice_s_flight() -> None:
    """The client has gone on to the next one; the first is not in use any more."""
    placement = Placement()
    decide(placement, "a", request_id="r")
    report(placement, "b", request_id="r")
    assert (placement.inflight("a"), placement.inflight("b")) == (0, 0)


def test_an_outcome_that_names_nothing_stands_for_the_oldest_such_decision_on_its_backend() -> None:
    placement = Placement()
    for backend_id in ("a", "a", "b"):
        decide(placement, backend_id)
    decide(placement, "a", request_id="r")
    decide(placement, "a", content_hash="h")
    for left in (3, 2, 2):
        report(placement, "a")
        assert placement.inflight("a") == left
    assert placement.inflight("b") == 1


def test_an_outcome_of_an_unknown_request_takes_nothing_out_of_flight() -> None:
    placement = Placement()
    decide(placement)
    report(placement, request_id="of another server")
    assert placement.inflight("a") == 1


@pytest.mark.parametrize(
    ("expected_ms", "lasts_s"),
    [
        (1.0, 30.0),
        (10_000.0, 30.0),
        (20_000.0, 60.0),
        (450_000.0, 1350.0),
        (1e9, PENDING_TTL_S),
        (1e308, PENDING_TTL_S),
    ],
)
def test_what_is_never_reported_fades_after_three_times_its_expected_time(
    expected_ms: float, lasts_s: float
) -> None:
    placement = Placement()
    decide(placement, expected_ms=expected_ms, request_id="r")
    placement.advance(NOON + lasts_s - 0.001)
    assert placement.inflight("a") == 1
    placement.advance(NOON + lasts_s)
    assert placement.inflight("a") == 0


def test_sweeping_what_was_forgotten_keeps_the_rest_fading_in_time() -> None:
    """Expected times of every length, of which most decisions were reported long before."""
    dice = Random(0)
    placement = Placement()
    lasting_s = [dice.randrange(30, 3600) for _ in range(1500)]
    kept = set(dice.sample(range(1500), 200))
    for number, seconds in enumerate(lasting_s):
        decide(placement, content_hash=f"h{number}", expected_ms=1000.0 * seconds / 3.0)
    for number in set(range(1500)) - kept:
        report(placement, content_hash=f"h{number}")
    assert placement._expiries.count == 1500
    for seconds in range(30, 3600, 20):
        placement.advance(NOON + seconds)
        assert placement._expiries.count <= 200
        assert placement.inflight("a") == sum(lasting_s[number] > seconds + 1e-6 for number in kept)


def test_what_has_faded_still_finds_its_outcome() -> None:
    placement = Placement()
    decide(placement, request_id="r")
    placement.advance(NOON + 1000.0)
    assert report(placement, request_id="r") is not None
    assert placement.inflight("a") == 0


# --- silence ---


def test_a_backend_is_silent_when_its_decisions_wait_for_ten_minutes_without_a_report() -> None:
    placement = Placement()
    assert not placement.silent("a", NOON)
    decide(placement, "a")
    assert not placement.silent("a", NOON + SILENT_S - 0.001)
    assert placement.silent("a", NOON + SILENT_S)
    assert not placement.silent("b", NOON + SILENT_S)


def test_one_report_ends_the_silence_and_while_others_wait_begins_it_anew() -> None:
    placement = Placement()
    for name in ("r1", "r2"):
        decide(placement, "a", now=NOON - SILENT_S, request_id=name, expected_ms=1e6)
    assert placement.silent("a", NOON)
    report(placement, request_id="r1")
    assert not placement.silent("a", NOON + SILENT_S - 0.001)
    assert placement.silent("a", NOON + SILENT_S)
    report(placement, request_id="r2")
    assert not placement.silent("a", NOON + 100 * SILENT_S)


def test_a_report_without_a_name_ends_the_silence_too() -> None:
    placement = Placement()
    decide(placement, "a", now=NOON - SILENT_S)
    report(placement, "a", request_id="of another server")
    assert placement.silent("a", NOON)
    report(placement, "a")
    assert not placement.silent("a", NOON)


def test_the_limits_are_those_that_are_documented() -> None:
    assert (PENDING_TTL_S, MAX_PENDING, SILENT_S) == (3600.0, 500_000, 600.0)


# --- bounds ---


def sizes(placement: Placement) -> list[int]:
    """Everything that could grow."""
    table = placement._pending
    return [len(table), len(table._by_request), len(table._heads), len(placement._inflight)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (lambda number: {"request_id": f"r{number}"}, [50, 50, 0, 1]),
        (lambda number: {"content_hash": f"h{number}"}, [50, 0, 50, 1]),
        (lambda number: {"content_hash": "h"}, [50, 0, 1, 1]),
        (lambda number: {"request_id": f"r{number}", "content_hash": "h"}, [50, 50, 1, 1]),
        (lambda number: {}, [50, 0, 1, 1]),
    ],
    ids=["by request", "by hash", "one hash", "both", "nameless"],
)
@pytest.mark.parametrize("reported", [False, True])
def test_decisions_past_the_limit_push_out_the_oldest(
    fields: Any, expected: list[int], reported: bool
) -> None:
    placement = Placement(max_pending=50)
    for number in range(5000):
        if reported and number % 2:
            report(placement, **fields(number - 1))
        decide(placement, now=NOON + number / 1e6, **fields(number))
    if not reported:
        assert sizes(placement) == expected
    assert len(placement._pending) <= 50
    assert placement._expiries.count <= 2 * 50 + 1001
    assert placement.inflight("a") <= 50
    placement.advance(NOON + 2 * PENDING_TTL_S)
    assert sizes(placement) == [0] * 4
    assert placement._expiries.count == 0


# --- snapshots ---


def small_world() -> Placement:
    placement = Placement()
    decide(placement, "a", request_id="r1", content_hash="h", location=HERE, size_bytes=5)
    decide(placement, "a", request_id="r2", now=NOON + 1.0, location=Location(region="us"))
    decide(placement, "b", content_hash="h", now=NOON + 2.0, operation=Operation.RETRIEVE)
    decide(placement, "b", now=NOON + 3.0)
    decide(placement, "b", now=NOON + 3.0)
    report(placement, "a", request_id="r1")
    return placement


def restored(snapshot: Any, *, now: float = NOON + 3.0, **limits: int) -> Placement:
    placement = Placement(**limits)
    placement.merge(json.loads(json.dumps(snapshot)), now=now)
    return placement


def test_snapshot_and_back_changes_nothing() -> None:
    before = small_world()
    after = restored(before.snapshot())
    assert after.snapshot() == before.snapshot()
    assert sizes(after) == sizes(before)
    assert (after.inflight("a"), after.inflight("b")) == (1, 3)
    assert (before.inflight("a"), before.inflight("b")) == (1, 3)
    # And it goes on alike.
    for fields in ({"request_id": "r1"}, {"content_hash": "h"}, {"backend_id": "b", "content_hash": "h"}, {}):
        assert repr(report(after, **fields)) == repr(report(before, **fields))
    assert after.snapshot() == before.snapshot()


def test_merging_what_is_known_already_changes_nothing() -> None:
    placement = small_world()
    before = placement.snapshot()
    placement.merge(before, now=NOON + 3.0)
    assert placement.snapshot() == before


def test_two_servers_decisions_come_together_in_the_order_in_which_they_were_made() -> None:
    first, second = Placement(), Placement()
    for step in range(4):
        decide((first, second)[step % 2], content_hash="h", size_bytes=step, now=NOON + step)
    for mine, theirs in ((first, second), (second, first)):
        merged = restored(mine.snapshot())
        merged.merge(theirs.snapshot(), now=NOON + 4.0)
        found = [report(merged, content_hash="h") for _ in range(5)]
        assert [one and one.size_bytes for one in found] == [0, 1, 2, 3, None]


def test_of_two_servers_decisions_on_one_request_the_later_one_counts() -> None:
    first, second = Placement(), Placement()
    decide(first, "a", request_id="r")
    decide(second, "b", request_id="r", now=NOON + 1.0)
    for mine, theirs in ((first, second), (second, first)):
        merged = restored(mine.snapshot())
        merged.merge(theirs.snapshot(), now=NOON + 1.0)
        assert (merged.inflight("a"), merged.inflight("b")) == (0, 1)
        assert len(merged._pending) == 1


def test_a_snapshot_past_the_limits_is_taken_in_up_to_them() -> None:
    placement = Placement()
    for number in range(20):
        decide(placement, request_id=f"r{number}", now=NOON + number)
    small = restored(placement.snapshot(), now=NOON + 20.0, max_pending=5)
    assert repr(small) == "Placement(pending=5, reported=0)"
    assert small.inflight("a") == 5


def test_what_is_over_when_it_is_restored_stays_over() -> None:
    after = restored(small_world().snapshot(), now=NOON + 100.0)
    assert (after.inflight("a"), after.inflight("b")) == (0, 0)
    assert len(after._pending) == 5
    over = restored(small_world().snapshot(), now=NOON + 2 * PENDING_TTL_S)
    assert repr(over) == "Placement(pending=0, reported=0)"


# --- a plain list as the twin ---


class PlacementMachine(RuleBasedStateMachine):
    """Decisions, outcomes and time in any order, against a list that is searched from end to end."""

    LIMIT = 6

    def __init__(self) -> None:
        super().__init__()
        self.placement = Placement(max_pending=self.LIMIT)
        self.now = NOON
        self.list: list[dict[str, Any]] = []
        self.decided = 0

    names = st.sampled_from(["", "x", "y"])
    backends = st.sampled_from("ab")

    @rule(backend_id=backends, request_id=names, content_hash=names, expected_ms=st.sampled_from([1.0, 1e5]))
    def decide(self, backend_id: str, request_id: str, content_hash: str, expected_ms: float) -> None:
        self.placement.note_decision(
            Query(request_id=request_id, content_hash=content_hash), backend_id, expected_ms, now=self.now
        )
        if request_id:
            self.list = [one for one in self.list if one["request_id"] != request_id]
        self.decided += 1
        self.list.append(
            {
                "number": self.decided,
                "backend_id": backend_id,
                "request_id": request_id,
                "content_hash": content_hash,
                "at": self.now,
                "until": self.now + max(30.0, 3 * expected_ms / 1e3),
                "reported": False,
            }
        )
        self.list = [one for one in self.list if one["number"] > self.decided - self.LIMIT]

    @rule(backend_id=backends, request_id=names, content_hash=names)
    def report(self, backend_id: str, request_id: str, content_hash: str) -> None:
        found = report(self.placement, backend_id, request_id=request_id, content_hash=content_hash)
        expected = next(self.meant(backend_id, request_id, content_hash), None)
        if expected is None:
            assert found is None
            nameless = (
                one
                for one in self.list
                if not request_id
                and not one["request_id"]
                and not one["content_hash"]
                and one["backend_id"] == backend_id
            )
            if oldest := next(nameless, None):
                self.list.remove(oldest)
            return
        assert found is not None
        assert (found.decided_at, found.backend_id) == (expected["at"], expected["backend_id"])
        if expected["content_hash"] or not expected["request_id"]:
            assert found.awaited == (not expected["reported"])
        expected["reported"] = True
        expected["until"] = None
        if not expected["request_id"]:
            self.list.remove(expected)

    def meant(self, backend_id: str, request_id: str, content_hash: str) -> Iterator[dict[str, Any]]:
        for one in self.list:
            by_request = request_id and one["request_id"] == request_id
            by_content = (
                not request_id
                and content_hash
                and not one["reported"]
                and (one["content_hash"], one["backend_id"]) == (content_hash, backend_id)
            )
            if by_request or by_content:
                yield one

    @rule(seconds=st.sampled_from([0.001, 29.0, 31.0, 400.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.placement.advance(self.now)
        self.list = [one for one in self.list if one["at"] > self.now - PENDING_TTL_S]
        for one in self.list:
            if one["until"] is not None and one["until"] <= self.now:
                one["until"] = None

    @rule()
    def restart(self) -> None:
        self.placement = restored(self.placement.snapshot(), now=self.now, max_pending=self.LIMIT)
        # Decisions that were removed leave no gaps in it.
        for number, one in enumerate(reversed(self.list)):
            one["number"] = self.decided - number

    @invariant()
    def the_same_are_in_flight(self) -> None:
        for backend_id in "ab":
            flying = [one for one in self.list if one["backend_id"] == backend_id and one["until"]]
            assert self.placement.inflight(backend_id) == len(flying)
        assert len(self.placement._pending) == len(self.list)
        assert [one.decided_at for one in self.placement._pending] == [one["at"] for one in self.list]


TestPlacementAgainstAList = PlacementMachine.TestCase
TestPlacementAgainstAList.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
