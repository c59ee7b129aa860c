"""The table of pending decisions: what goes in comes out, and one costs little."""

import tracemalloc
import uuid
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from routing.core.model import Location, Operation, Query
from routing.core.pending import PendingDecision, PendingTable
from routing.core.placement import Placement
from routing.core.slot_index import SlotIndex
from support.makers import NOON, Clock, router

MOST_BYTES = 250
"""The contract's bound on one decision, at ids of 36 bytes and hashes of 64."""

places = st.none() | st.builds(
    lambda latitude, longitude, region: Location(latitude, longitude, region),
    st.floats(-90, 90),
    st.floats(-180, 180),
    st.text(max_size=20),
) | st.builds(lambda region: Location(region=region), st.text(max_size=20))  # fmt: skip

decisions = st.builds(
    PendingDecision,
    backend_id=st.text(min_size=1, max_size=5),
    request_id=st.text(max_size=40),
    content_hash=st.text(max_size=70),
    content_type=st.text(max_size=300),
    size_bytes=st.integers(0, 2**63 - 1),
    operation=st.sampled_from(Operation),
    location=places,
    decided_at=st.floats(0, 1e10),
    inflight_until=st.none() | st.floats(1, 1e10),
    awaited=st.booleans(),
    inflight_before=st.integers(0, 0xFFFF),
)


@given(decisions)
def test_what_goes_in_comes_out(decision: PendingDecision) -> None:
    table = PendingTable(4)
    slot = add(table, decision)
    awaited = decision.awaited and bool(decision.content_hash or not decision.request_id)
    assert table.decision(slot) == decision._replace(slot=slot, awaited=awaited)
    assert list(table) == [table.decision(slot)]
    assert table.inflight_until(slot) == (decision.inflight_until or 0.0)
    assert table.decided_at(slot) == decision.decided_at
    if decision.request_id:
        assert table.find(decision.request_id) == slot
    if awaited:
        assert table.head(decision.content_hash, decision.backend_id) == slot
    assert table.end_flight(slot) == (None if decision.inflight_until is None else decision.backend_id)
    assert table.end_flight(slot) is None
    table.remove(slot)
    assert (len(table), list(table), table.oldest()) == (0, [], None)
    assert len(table._by_request) == len(table._heads) == 0


def add(table: PendingTable, decision: PendingDecision) -> int:
    names = ("request_id", "content_hash", "content_type", "size_bytes", "operation", "location")
    return table.add(
        Query(**{name: getattr(decision, name) for name in names}),
        decision.backend_id,
        decided_at=decision.decided_at,
        inflight_until=decision.inflight_until,
        inflight_before=decision.inflight_before,
        awaited=decision.awaited,
    )


def test_load_past_two_bytes_is_kept_as_the_most() -> None:
    table = PendingTable(4)
    slot = add(table, row(inflight_before=10**6))
    assert table.decision(slot).inflight_before == 0xFFFF


def row(
    request_id: str = "", content_hash: str = "", backend_id: str = "a", **fields: int
) -> PendingDecision:
    return PendingDecision(
        backend_id,
        request_id,
        content_hash,
        "",
        0,
        Operation.STORE,
        None,
        NOON,
        None,
        **fields,  # type: ignore[arg-type]
    )


def test_keys_with_the_same_beginning_are_told_apart() -> None:
    table = PendingTable(8)
    slots = [add(table, row(name)) for name in ("r", "r1", "r12")]
    assert [table.find(name) for name in ("r", "r1", "r12", "r123")] == [*slots, None]
    first, second = add(table, row("q", "h")), add(table, row("q1", "hh"))
    assert [table.head(name, "a") for name in ("h", "hh", "hhh")] == [first, second, None]
    assert table.head("h", "b") is None


def test_keys_with_the_same_hash_are_told_apart() -> None:
    table = PendingTable(8)
    first = add(table, row("r1", "h1"))
    by_request, heads = table._by_request, table._heads
    by_request.add(hash("r2"), first)
    heads.add(hash(("h2", "a")), first)
    assert table.find("r2") is table.head("h2", "a") is None
    second = add(table, row("r2", "h2"))
    assert (table.find("r2"), table.head("h2", "a")) == (second, second)
    assert (table.find("r1"), table.head("h1", "a")) == (first, first)


def test_a_hash_that_stands_in_the_place_of_a_slot_is_no_entry() -> None:
    table = PendingTable(8)
    slot = add(table, row("r"))
    index = table._by_request
    number = hash("r") % index.size
    index.buckets[number] = b"\1\2\3\4" + index.buckets[number][:4] + index.buckets[number]
    assert table.find("r") == slot


def test_an_index_finds_entries_across_each_other_s_bytes() -> None:
    """The four bytes of a hash, or a whole entry, may also stand in the middle of others."""
    index = SlotIndex(128)
    keys = {number: number << 32 for number in range(1, 40)}
    for number, key in keys.items():
        index.add(key, number << 8)
    for number, key in keys.items():
        assert number << 8 in index.slots(key)
    assert index.slots(99 << 32) == ()
    for number, key in keys.items():
        index.replace(key, index.position(key, number << 8), 7)
        assert 7 in index.slots(key)
        assert index.position(key, number << 8) < 0
    assert len(index) == 39
    for key in keys.values():
        index.replace(key, index.position(key, 7), 0xFFFF_FFFF)
    assert len(index) == 0
    # 00 01 02 03 | 01 00 00 00 | 00 02 03 01 | 00 00 00 …: the entry looked for begins at the fifth byte.
    for tag, slot in ((0x03020100, 1), (0x01030200, 0), (1, 0x01030200)):
        index.add(tag << 24, slot)
    assert index.position(1 << 24, 0x01030200) == 16


class TableMachine(RuleBasedStateMachine):
    """Decisions and removals in any order, against a list that is searched from end to end."""

    SIZE = 5

    def __init__(self) -> None:
        super().__init__()
        self.table = PendingTable(self.SIZE)
        self.list: list[PendingDecision] = []

    names = st.sampled_from(["", "x", "xy"])

    @rule(request_id=names, content_hash=names, backend_id=st.sampled_from("ab"))
    def add(self, request_id: str, content_hash: str, backend_id: str) -> None:
        found = self.table.find(request_id) if request_id else None
        if found is not None:
            self.drop(found)
        found = self.table.oldest_in_the_way()
        if found is not None:
            assert found == self.list[0].slot
            self.drop(found)
        slot = add(self.table, row(request_id, content_hash, backend_id))
        self.list.append(self.table.decision(slot))

    def drop(self, slot: int) -> None:
        self.table.remove(slot)
        self.list = [one for one in self.list if one.slot != slot]

    @rule(content_hash=names, backend_id=st.sampled_from("ab"))
    def dequeue_head(self, content_hash: str, backend_id: str) -> None:
        slot = self.table.head(content_hash, backend_id)
        if slot is not None:
            self.dequeue(slot)

    @rule(request_id=st.sampled_from(["x", "xy"]))
    def dequeue_any(self, request_id: str) -> None:
        slot = self.table.find(request_id)
        if slot is not None:
            self.dequeue(slot)

    def dequeue(self, slot: int) -> None:
        self.table.dequeue(self.table.decision(slot))
        self.list = [one._replace(awaited=False) if one.slot == slot else one for one in self.list]

    @rule(request_id=st.sampled_from(["x", "xy"]))
    def remove(self, request_id: str) -> None:
        slot = self.table.find(request_id)
        if slot is not None:
            self.drop(slot)

    @invariant()
    def both_say_the_same(self) -> None:
        assert list(self.table) == self.list
        for name in ("x", "xy"):
            found = [one.slot for one in self.list if one.request_id == name]
            assert self.table.find(name) == (found[0] if found else None)
        for name in ("", "x", "xy"):
            for backend_id in "ab":
                queue = [
                    one.slot
                    for one in self.list
                    if one.awaited and (one.content_hash, one.backend_id) == (name, backend_id)
                ]
                assert self.table.head(name, backend_id) == (queue[0] if queue else None)


TestTableAgainstAList = TableMachine.TestCase
TestTableAgainstAList.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("location", [None, Location(48.9, 2.4, "eu-west")])
@pytest.mark.parametrize("number", [20_000, 100_000])
def test_a_decision_costs_at_most_so_many_bytes(location: Location | None, number: int) -> None:
    """at most 250 bytes each at 36-byte ids and 64-byte hashes"""
    placement = Placement(max_pending=100_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for count in range(number):
            query = Query(
                request_id=str(uuid.UUID(int=count * 2**64 + count)),
                content_hash=sha256(str(count).encode()).hexdigest(),
                content_type="image/png",
                size_bytes=count,
                location=location,
            )
            placement.note_decision(query, "backend", 100.0, now=NOON + count / 4000)
            del query
        each = (tracemalloc.get_traced_memory()[0] - before) / number
    finally:
        tracemalloc.stop()
    assert each <= MOST_BYTES


def test_a_decision_is_linked_after_as_many_others_as_an_hour_has() -> None:
    clock = Clock(router(["a"]))
    clock.select(request_id="first")
    for _ in range(101_000):
        clock.router._placement.note_decision(Query(), "a", 100.0, now=clock.now)
    assert clock.record("a", True, request_id="first").message == "recorded for its decision"
    assert "not counted again" in clock.record("a", True, request_id="first").message


def test_max_pending_is_a_setting() -> None:
    clock = Clock(router(["a"], max_pending=3))
    for number in range(4):
        clock.select(request_id=f"r{number}")
    said = [clock.record("a", True, request_id=f"r{number}").message for number in (0, 1)]
    assert said == ["recorded", "recorded for its decision"]
