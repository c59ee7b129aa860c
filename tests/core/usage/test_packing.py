"""Packed cells against the cells themselves."""

from random import Random

from hypothesis import example, given
from hypothesis import strategies as st

from routing.core.usage.cell import UsageCell
from routing.core.usage.intervals import MAX_SEGMENTS, Intervals
from routing.core.usage.packing import SEGMENT_CELLS, BackendNumbers, pack, unpack
from routing.core.usage.sketch import bin_of

durations = st.lists(st.integers(1, 2**31 - 1) | st.integers(1, 300), max_size=6)
sizes = st.lists(st.integers(0, 2**63 - 1), max_size=4)


@st.composite
def filled(draw: st.DrawFn) -> UsageCell:
    cell = UsageCell()
    for size_bytes in draw(sizes):
        cell.note_decision(size_bytes)
    for duration_ms in draw(durations):
        cell.note_outcome(draw(st.booleans()))
        cell.note_duration(bin_of(duration_ms), duration_ms)
    for success in draw(st.lists(st.booleans(), max_size=2)):
        cell.note_outcome(success)
    return cell


tables = st.dictionaries(
    st.text(max_size=5), st.dictionaries(st.sampled_from("abcdefgh"), filled(), min_size=1), max_size=4
)


@given(tables)
@example({})
def test_what_was_packed_comes_back(by_type: dict[str, dict[str, UsageCell]]) -> None:
    names = BackendNumbers()
    names.number("h")  # numbers need not follow the alphabet
    segment = pack(by_type, names)
    assert dict(unpack(segment, names)) == by_type
    for content_type in [*by_type, "no such type"]:
        found = dict(unpack(segment, names, content_type))
        assert found == {name: cells for name, cells in by_type.items() if name == content_type}


def test_a_cell_with_one_duration_takes_few_bytes() -> None:
    """The worst case of a busy week: 5,000 cells in five minutes, a decision and an outcome in each."""
    dice, names = Random(0), BackendNumbers()
    intervals = Intervals(names)
    for _ in range(5_000):
        cell = intervals.cell(0, f"type/{dice.randrange(256)}", f"backend-{dice.randrange(1024)}")
        cell.note_decision(int(dice.lognormvariate(13.0, 2.5)))
        cell.note_outcome(dice.random() < 0.99)
        duration_ms = 1 + int(dice.lognormvariate(5.5, 1.0))
        cell.note_duration(bin_of(duration_ms), duration_ms)
    intervals.close_before(1)
    for _ in range(10):
        intervals.pack_some()
    assert not intervals.open(0)
    assert 4 <= len(intervals.packed(0)) <= 6
    assert sum(len(segment.data) for segment in intervals.packed(0)) < 8 * 5_000


# --- intervals ---


def told_late(intervals: Intervals, number: int, steps: int) -> None:
    for step in range(steps):
        intervals.cell(number, f"type/{step % 7}", f"backend-{step % 5}").note_outcome(True)
        intervals.close_before(number + 1)
        intervals.pack_some()


def test_late_outcomes_without_end_leave_few_segments() -> None:
    intervals = Intervals(BackendNumbers())
    told_late(intervals, 3, 500)
    assert repr(intervals) == "Intervals(open=0, packed=1)"
    assert len(intervals.packed(3)) == MAX_SEGMENTS
    whole = intervals.merged(3)
    assert sum(cell.outcomes for cells in whole.values() for cell in cells.values()) == 500
    assert sum(map(len, whole.values())) == 35


def test_segments_that_are_full_are_not_packed_again() -> None:
    intervals = Intervals(BackendNumbers())
    for step in range(MAX_SEGMENTS + 2):
        for backend in range(SEGMENT_CELLS):
            intervals.cell(0, "a/a", f"backend-{backend}").note_outcome(step > 3)
        intervals.close_before(1)
        intervals.pack_some()
    assert len(intervals.packed(0)) == MAX_SEGMENTS + 2
    assert {cell.outcomes for cell in intervals.merged(0)["a/a"].values()} == {MAX_SEGMENTS + 2}


def test_an_interval_that_is_dropped_is_gone_whether_packed_or_open() -> None:
    intervals = Intervals(BackendNumbers())
    told_late(intervals, 3, 1)
    intervals.cell(3, "a/a", "x")
    intervals.cell(4, "a/a", "x")
    assert (len(intervals), intervals.numbers()) == (2, [3, 4])
    intervals.drop(4)
    assert intervals.numbers() == [4]
    assert intervals.merged(3) == {}


def test_nothing_is_packed_that_is_not_over() -> None:
    intervals = Intervals(BackendNumbers())
    intervals.cell(5, "a/a", "x")
    intervals.close_before(5)
    intervals.pack_some()
    assert repr(intervals) == "Intervals(open=1, packed=0)"
