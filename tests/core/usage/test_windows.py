"""The windows against a plain list of events, their dumb twin."""

import json
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routing.core.usage.cell import UsageCell
from routing.core.usage.sketch import Sketch, bin_of
from routing.core.usage.sliding import BUILT
from routing.core.usage.windows import MAX_SUMS, OTHER_TYPES, UNKNOWN_TYPE, Windows
from support.makers import NOON

MINUTES_5 = 300
HOUR = 3600.0
DAY = 86_400.0


@dataclass(frozen=True)
class Event:
    """A decision (with a size) or an outcome (with a duration); `counted_at` is the clock
    when it is noted, `at` when it happened."""

    at: float
    counted_at: float
    backend_id: str
    content_type: str
    decision: bool
    size_bytes: int = 0
    success: bool = True
    duration_ms: int | None = None


class Twin:
    """A list of what happened, with the names under which it is counted."""

    def __init__(self, retention_hours: int, max_content_types: int) -> None:
        self.retention_hours = retention_hours
        self.max_content_types = max_content_types
        self.rows: list[tuple[Event, str]] = []
        self.newest = 0
        self.seen: dict[str, int] = {}

    def note(self, event: Event) -> None:
        number = int(event.at // MINUTES_5)
        self.newest = max(self.newest, number)
        oldest = self.newest - self.retention_hours * 12
        if number < oldest:
            return
        self.seen = {name: last for name, last in self.seen.items() if last >= oldest}
        name = event.content_type or UNKNOWN_TYPE
        if name != OTHER_TYPES and name not in self.seen and len(self.seen) >= self.max_content_types:
            name = OTHER_TYPES
        elif name != OTHER_TYPES:
            self.seen[name] = max(number, self.seen.get(name, number))
        self.rows.append((event, name))

    def inside(self, hours: int, backend_id: str, content_type: str, now: float) -> list[tuple[Event, str]]:
        first = (now - min(hours, self.retention_hours) * HOUR) // MINUTES_5 * MINUTES_5
        return [
            (event, name)
            for event, name in self.rows
            if event.at >= first and backend_id in ("", event.backend_id) and content_type in ("", name)
        ]

    def totals(self, *question: Any) -> dict[str, list[int]]:
        sums: dict[str, list[int]] = {}
        sketches: dict[str, Sketch] = {}
        for event, _ in self.inside(*question):
            row = sums.setdefault(event.backend_id, [0, 0, 0, 0])
            if event.decision:
                row[0] += 1
                row[1] += event.size_bytes
            else:
                row[2] += 1
                row[3] += event.success
                if event.success and event.duration_ms is not None:
                    sketches.setdefault(event.backend_id, Sketch()).add(event.duration_ms)
        return {
            name: row + (sketches[name].as_row() if name in sketches else []) for name, row in sums.items()
        }

    def distribution(self, *question: Any) -> dict[str, dict[str, int]]:
        counts = Counter((name, event.backend_id) for event, name in self.inside(*question) if event.decision)
        rows: dict[str, dict[str, int]] = {}
        for (name, backend_id), count in counts.items():
            rows.setdefault(name, {})[backend_id] = count
        return rows


def note(windows: Windows, event: Event) -> None:
    if event.decision:
        windows.note_decision(event.backend_id, event.content_type, event.size_bytes, now=event.at)
    else:
        windows.note_outcome(
            event.backend_id,
            event.content_type,
            success=event.success,
            duration_ms=event.duration_ms,
            at=event.at,
        )


def windows_of(events: list[Event], *, retention_hours: int = 168, max_content_types: int = 8) -> Windows:
    windows = Windows(retention_hours=retention_hours, max_content_types=max_content_types)
    for event in events:
        note(windows, event)
    return windows


def random_events(dice: Random, count: int, *, types: int, longest_step_s: float) -> list[Event]:
    """Decisions as the clock goes, outcomes up to ten hours late, and pauses of any length."""
    events = []
    now = NOON + dice.uniform(0.0, DAY)
    for _ in range(count):
        now += dice.choice([0.0, 0.1, 10.0, 400.0, dice.uniform(0.0, longest_step_s)])
        decision = dice.random() < 0.5
        late = (
            0.0 if decision or dice.random() < 0.6 else dice.choice([60.0, HOUR, 10 * HOUR]) * dice.random()
        )
        events.append(
            Event(
                at=now - late,
                counted_at=now,
                backend_id=dice.choice("abc"),
                content_type=dice.choice(["", OTHER_TYPES, *(f"type/{number}" for number in range(types))]),
                decision=decision,
                size_bytes=dice.choice([0, 1, 1 << 20, 2**63 - 1]),
                success=dice.random() < 0.7,
                duration_ms=None if dice.random() < 0.3 else dice.randrange(1, 5000),
            )
        )
    return events


QUESTIONS = [
    (hours, backend_id, content_type)
    for hours in (1, 2, 5, 23, 24, 25, 47, 100, 168, 200, 2**31 - 1)
    for backend_id, content_type in (
        ("", ""),
        ("a", ""),
        ("", "type/1"),
        ("b", UNKNOWN_TYPE),
        ("", OTHER_TYPES),
    )
]


def assert_same(windows: Windows, twin: Twin, now: float, questions: list[tuple[int, str, str]]) -> None:
    for hours, backend_id, content_type in questions:
        narrowed = {"backend_id": backend_id, "content_type": content_type, "now": now}
        rows = {name: cell.as_row() for name, cell in windows.totals(hours, **narrowed).items()}
        assert rows == twin.totals(hours, backend_id, content_type, now)
        assert windows.distribution(hours, **narrowed) == twin.distribution(
            hours, backend_id, content_type, now
        )


@pytest.mark.parametrize(
    ("retention_hours", "max_content_types", "longest_step_s"),
    [(168, 8, HOUR), (168, 3, 8 * HOUR), (1, 2, HOUR / 2), (30, 4, 3 * HOUR), (200, 5, DAY), (24, 1, HOUR)],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_windows_answer_like_a_plain_list(
    retention_hours: int, max_content_types: int, longest_step_s: float, seed: int
) -> None:
    dice = Random(seed)
    twin = Twin(retention_hours, max_content_types)
    windows = windows_of([], retention_hours=retention_hours, max_content_types=max_content_types)
    for event in random_events(dice, 250, types=5, longest_step_s=longest_step_s):
        note(windows, event)
        twin.note(event)
        assert_same(windows, twin, event.counted_at, dice.sample(QUESTIONS, 2))
    for later in (0.0, 299.0, HOUR, 26 * HOUR):
        assert_same(windows, twin, event.counted_at + later, QUESTIONS)


events = st.builds(
    Event,
    at=st.integers(0, 40).map(lambda steps: NOON + steps * 1000.0),
    counted_at=st.just(NOON + 40_000.0),
    backend_id=st.sampled_from("ab"),
    content_type=st.sampled_from(["", "image/png", "text/plain", OTHER_TYPES]),
    decision=st.booleans(),
    size_bytes=st.integers(0, 2**63 - 1),
    success=st.booleans(),
    duration_ms=st.none() | st.integers(1, 2**31 - 1),
)
streams = st.lists(events, max_size=25)


@given(streams, st.integers(1, 12), st.integers(1, 200), st.integers(1, 4))
def test_any_events_in_any_order_are_counted_like_a_plain_list(
    stream: list[Event], retention_hours: int, hours: int, max_content_types: int
) -> None:
    twin = Twin(retention_hours, max_content_types)
    windows = windows_of([], retention_hours=retention_hours, max_content_types=max_content_types)
    now = NOON
    for event in stream:
        now = max(now, event.at)
        note(windows, event)
        twin.note(event)
    assert_same(windows, twin, now, [(hours, "", ""), (hours, "a", ""), (hours, "a", "image/png")])


# --- what a window covers ---


@pytest.mark.parametrize("hours", [1, 24, 100])
def test_a_window_begins_with_the_five_minutes_that_lie_so_far_back(hours: int) -> None:
    now = NOON + 123.0
    edge = (now - hours * HOUR) // MINUTES_5 * MINUTES_5
    for at, inside in ((edge - 0.001, False), (edge, True), (now, True)):
        windows = windows_of([Event(at, now, "a", "", True)])
        assert bool(windows.totals(hours, now=now)) is inside


def test_more_hours_than_are_kept_are_answered_for_what_is_kept() -> None:
    windows = windows_of([Event(NOON, NOON, "a", "", True)], retention_hours=2)
    assert windows.retention_hours == 2
    assert windows.totals(2**31 - 1, now=NOON + 2 * HOUR)["a"].decisions == 1
    assert windows.totals(2**31 - 1, now=NOON + 3 * HOUR) == {}


def test_an_event_older_than_the_retention_is_not_counted_and_takes_no_type() -> None:
    windows = windows_of([Event(NOON, NOON, "a", "kept", True)], retention_hours=1, max_content_types=2)
    note(windows, Event(NOON - 2 * HOUR, NOON, "a", "stale", False))
    assert windows.totals(1, now=NOON)["a"].outcomes == 0
    assert repr(windows) == "Windows(intervals=1, content_types=1)"


@pytest.mark.parametrize("at", [0.0, -1.0, -5e9, 253_402_300_799.0])
def test_any_time_will_do_for_the_first_event(at: float) -> None:
    assert windows_of([]).snapshot() == {}
    windows = windows_of([Event(at, at, "a", "a/a", True)])
    assert windows.totals(1, now=at)["a"].decisions == 1
    assert list(windows.snapshot()) == [str(int(at // 300))]


def test_sums_are_kept_between_questions_and_are_as_good_as_new() -> None:
    """Within five minutes, past them, with late events, and for more questions than are kept."""
    dice = Random(3)
    windows, fresh = windows_of([]), windows_of([])
    for event in random_events(dice, 200, types=3, longest_step_s=600.0):
        note(windows, event)
        note(fresh, event)
        for hours in (24, 1, 168):
            for content_type in ("", "type/1"):
                question = {"content_type": content_type, "now": event.counted_at}
                fresh._sums.clear()
                assert windows.totals(hours, **question) == fresh.totals(hours, **question)
                assert windows.distribution(hours, **question) == fresh.distribution(hours, **question)
    assert len(windows._sums) == MAX_SUMS


@pytest.mark.parametrize("hours", [24, 168])
def test_the_usual_questions_add_nothing_up(hours: int) -> None:
    """A day and the whole retention are at hand before anybody has asked."""
    windows = windows_of([Event(NOON + step * 300.0, NOON, "a", "", True) for step in range(100)])
    now = NOON + 99 * 300.0
    for intervals in (windows._intervals, windows._hours):
        intervals._open.clear()
        intervals._packed.clear()
    note(windows, Event(now, now, "a", "", True))
    assert windows.totals(hours, now=now)["a"].decisions == 101


def test_the_sums_that_are_always_kept_are_not_put_out_by_others() -> None:
    windows = windows_of([Event(NOON, NOON, "a", "", True)])
    for hours in range(1, 20):
        windows.totals(hours, now=NOON)
        assert {(24, ""), (168, "")} < windows._sums.keys()
        assert len(windows._sums) <= MAX_SUMS


@pytest.mark.parametrize("content_type", ["", "type/1"])
@pytest.mark.parametrize("seed", range(3))
def test_what_happens_while_an_answer_is_gathered_is_in_it(seed: int, content_type: str) -> None:
    """Events of any age come between two steps, and new intervals begin."""
    dice = Random(seed)
    twin = Twin(168, 8)
    windows = windows_of([])
    for event in random_events(dice, 120, types=3, longest_step_s=900.0):
        note(windows, event)
        twin.note(event)
        steps = windows.prepare(dice.choice([5, 23, 24, 60]), content_type=content_type, now=event.counted_at)
        for _ in range(dice.randrange(8)):
            next(steps, None)
            late = Event(
                event.counted_at - dice.uniform(0.0, DAY),
                event.counted_at,
                "a",
                "type/1",
                dice.random() < 0.5,
            )
            note(windows, late)
            twin.note(late)
        if dice.random() < 0.3:
            assert_same(windows, twin, event.counted_at, [(h, "", content_type) for h in (5, 23, 24, 60)])


def test_a_sum_shows_where_it_begins_and_how_far_it_has_come() -> None:
    windows = windows_of([Event(NOON, NOON, "a", "x", True)])
    windows.totals(24, now=NOON)
    first = int(NOON // 300) - 24 * 12
    assert repr(windows._sums[24, ""]) == f"SlidingSum(first={first}, type='', built_until={BUILT})"


def test_what_is_gathered_is_at_hand() -> None:
    windows = windows_of([Event(NOON + step * 300.0, NOON, "a", "x", True) for step in range(100)])
    now = NOON + 99 * 300.0
    assert len(list(windows.prepare(5, content_type="x", now=now))) > 5
    assert list(windows.prepare(5, content_type="x", now=now)) == []


def test_asking_changes_nothing() -> None:
    windows = windows_of(random_events(Random(1), 100, types=3, longest_step_s=HOUR))
    before = windows.snapshot()
    for hours in (5, 24, 168):
        windows.totals(hours, now=NOON + DAY)
    assert windows.snapshot() == before


# --- content types ---


def test_types_past_the_limit_are_counted_as_other() -> None:
    types = ["a/a", "b/b", "c/c", "d/d", "a/a"]
    windows = windows_of([Event(NOON, NOON, "x", name, True) for name in types], max_content_types=2)
    assert windows.distribution(1, now=NOON) == {"a/a": {"x": 2}, "b/b": {"x": 1}, OTHER_TYPES: {"x": 2}}
    assert windows.totals(1, now=NOON)["x"].decisions == 5


def test_a_type_not_seen_for_the_whole_retention_makes_room() -> None:
    windows = windows_of([Event(NOON, NOON, "x", "a/a", True)], retention_hours=1, max_content_types=1)
    note(windows, Event(NOON + 2 * HOUR, NOON, "x", "b/b", True))
    assert windows.distribution(1, now=NOON + 2 * HOUR) == {"b/b": {"x": 1}}


def test_a_client_that_says_other_takes_no_room() -> None:
    windows = windows_of(
        [Event(NOON, NOON, "x", name, True) for name in (OTHER_TYPES, "a/a", "b/b")], max_content_types=1
    )
    assert windows.distribution(1, now=NOON) == {OTHER_TYPES: {"x": 2}, "a/a": {"x": 1}}


def test_no_type_is_counted_as_unknown() -> None:
    windows = windows_of([Event(NOON, NOON, "x", "", True)])
    assert windows.distribution(1, now=NOON) == {UNKNOWN_TYPE: {"x": 1}}


def test_zero_counts_are_left_out_of_the_distribution() -> None:
    windows = windows_of([Event(NOON, NOON, "x", "a/a", False)])
    assert windows.distribution(1, now=NOON) == {}
    assert windows.totals(1, now=NOON)["x"].outcomes == 1


# --- snapshots ---


@pytest.mark.parametrize("max_content_types", [1, 3, 8])
@pytest.mark.parametrize("seed", range(4))
def test_snapshot_and_back_changes_nothing(seed: int, max_content_types: int) -> None:
    """Even where types were folded, and where time has taken some of them away since."""
    stream = random_events(Random(seed), 300, types=5, longest_step_s=20 * HOUR)
    limits = {"retention_hours": 30, "max_content_types": max_content_types}
    windows = windows_of(stream, **limits)
    snapshot = json.loads(json.dumps(windows.snapshot()))
    restored = windows_of([], **limits)
    restored.merge(snapshot)
    assert restored.snapshot() == windows.snapshot()
    now = stream[-1].counted_at
    for hours, backend_id, content_type in QUESTIONS:
        question = {"backend_id": backend_id, "content_type": content_type, "now": now}
        assert restored.totals(hours, **question) == windows.totals(hours, **question)
        assert restored.distribution(hours, **question) == windows.distribution(hours, **question)


def test_what_was_folded_stays_so_when_the_types_that_filled_the_room_are_older() -> None:
    first, second = NOON, NOON + HOUR
    stream = [Event(first, first, "x", name, True) for name in ("a/a", "b/b")]
    stream += [Event(second, second, "x", name, True) for name in ("c/c", "b/b", "a/a")]
    # When the first hour has gone, what was folded comes first in what is left.
    stream += [Event(second + HOUR, second + HOUR, "x", "a/a", True)]
    windows = windows_of(stream, retention_hours=1, max_content_types=2)
    restored = windows_of([], retention_hours=1, max_content_types=2)
    restored.merge(windows.snapshot())
    assert restored.snapshot() == windows.snapshot()


def test_what_a_snapshot_tells_of_times_too_old_is_left_out() -> None:
    old = windows_of([Event(NOON - 3 * HOUR, NOON, "x", "a/a", True)]).snapshot()
    windows = windows_of([Event(NOON, NOON, "x", "a/a", True)], retention_hours=1)
    windows.merge(old)
    assert windows.totals(1, now=NOON)["x"].decisions == 1
    assert len(windows.snapshot()) == 1


def test_a_snapshot_from_before_intervals_were_packed_is_still_understood() -> None:
    rows = {str(int(NOON // 300)): {"a/a": {"x": [2, 30, 1, 1, 1, 7, 7, 7, bin_of(7), 1]}}}
    windows = windows_of([])
    windows.merge(rows)
    assert windows.distribution(1, now=NOON) == {"a/a": {"x": 2}}
    assert windows.totals(1, now=NOON)["x"].as_row() == rows[str(int(NOON // 300))]["a/a"]["x"]


@given(streams, streams, streams)
def test_merging_is_having_seen_all_in_any_order(a: list[Event], b: list[Event], c: list[Event]) -> None:
    parts = [windows_of(one).snapshot() for one in (a, b, c)]
    whole = windows_of([*a, *b, *c])
    now = NOON + 40_000.0
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        merged = windows_of([])
        for part in order:
            merged.merge(parts[part])
        for hours in (1, 11, 168):
            assert merged.totals(hours, now=now) == whole.totals(hours, now=now)
            assert merged.distribution(hours, now=now) == whole.distribution(hours, now=now)


@given(streams, streams)
@example([], [])
def test_merging_into_a_full_table_of_types_still_counts_every_event(a: list[Event], b: list[Event]) -> None:
    merged = windows_of(a, max_content_types=1)
    merged.merge(windows_of(b, max_content_types=1).snapshot())
    whole = windows_of([*a, *b], max_content_types=1)
    now = NOON + 40_000.0
    assert merged.totals(168, now=now) == whole.totals(168, now=now)


# --- bounds ---


def open_cells(windows: Windows) -> int:
    """Those that were not packed yet, of both widths."""
    return sum(
        len(cells)
        for intervals in (windows._intervals, windows._hours)
        for by_type in intervals._open.values()
        for cells in by_type.values()
    )


def test_distinct_types_without_end_leave_no_more_than_the_limit() -> None:
    windows = Windows(retention_hours=1, max_content_types=16)
    for number in range(20_000):
        windows.note_decision("x", f"type/{number}", 1, now=NOON)
    assert len(windows._types) == 16
    assert open_cells(windows) == 17 + 1 + 17
    assert windows.totals(1, now=NOON)["x"].decisions == 20_000


def test_what_is_kept_is_bounded_by_the_retention() -> None:
    windows = Windows(retention_hours=24, max_content_types=2)
    for step in range(5000):
        windows.note_outcome("x", f"type/{step % 5}", success=True, duration_ms=1, at=NOON + step * 300.0)
    assert len(windows._intervals) == 289
    assert len(windows._hours) == 25
    assert repr(windows._extremes) == "Extremes(intervals=289, hours=25)"
    assert open_cells(windows) < 12
    assert windows.totals(24, now=NOON + 4999 * 300.0)["x"].outcomes == 289


@pytest.mark.parametrize("retention_hours", [1, 2, 23, 24, 100])
def test_types_that_come_and_go_fill_no_interval_of_any_width(retention_hours: int) -> None:
    """A type makes room only after the whole retention, in which each interval has passed."""
    windows = Windows(retention_hours=retention_hours, max_content_types=4)
    for step in range(3000):
        windows.note_decision("x", f"type/{step}", 1, now=NOON + step * 1000.0)
        assert all(
            len(windows._intervals.merged(number)) <= 4 + 1 for number in windows._intervals.numbers()[-1:]
        )
        assert all(len(windows._hours.merged(hour)) <= 4 + 2 for hour in windows._hours.numbers()[-1:])


def test_a_jump_of_the_clock_leaves_nothing_old_behind() -> None:
    windows = windows_of([Event(NOON, NOON, "x", "a/a", True)])
    windows.note_decision("x", "b/b", 1, now=NOON + 400 * DAY)
    assert repr(windows) == "Windows(intervals=1, content_types=1)"
    assert open_cells(windows) == 1 + 2
    assert windows.totals(168, now=NOON + 400 * DAY)["x"].decisions == 1


# --- cells ---


def test_an_outcome_without_a_duration_leaves_no_trace_in_the_durations() -> None:
    cell = UsageCell()
    cell.note_outcome(True)
    assert cell.durations is None
    assert cell.as_row() == [0, 0, 1, 1]
    cell.merge(UsageCell.from_row([0, 0, 1, 0, *Sketch().as_row()]))
    assert cell.outcomes == 2


def test_a_cell_survives_being_written_as_numbers() -> None:
    cell = UsageCell()
    cell.note_decision(2**63 - 1)
    cell.note_decision(2**63 - 1)
    cell.note_outcome(False)
    cell.note_duration(bin_of(12), 12)
    assert UsageCell.from_row(cell.as_row()) == cell
    assert repr(cell) == "UsageCell(decisions=2, outcomes=1, successes=0)"
    assert cell != cell.as_row()
