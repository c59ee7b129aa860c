"""The last five minutes against a plain list of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.usage.recent import SLOT_S, WINDOW_S, Rate, Recent
from support.makers import NOON

Event = tuple[float, str, bool]
"""When, on which backend, whether it succeeded."""

events = st.lists(
    st.tuples(st.floats(0.0, 1500.0).map(lambda s: NOON + s), st.sampled_from("abc"), st.booleans()),
    max_size=60,
)


def recent_of(outcomes: list[Event], decisions: list[float] = []) -> Recent:  # noqa: B006 - only read
    recent = Recent()
    for at, backend_id, success in outcomes:
        recent.note_outcome(backend_id, success=success, at=at)
    for at in sorted(decisions):
        recent.note_decision(now=at)
    return recent


def counted(outcomes: list[Event], now: float) -> dict[str, Rate]:
    """The twin: everything since the beginning of the 15 seconds that lay five minutes ago."""
    first = (now - WINDOW_S) // SLOT_S * SLOT_S
    rates = {}
    for name in "abc":
        mine = [success for at, backend, success in outcomes if backend == name and first <= at <= now]
        if mine:
            rates[name] = Rate(len(mine), sum(mine))
    return rates


@given(events)
def test_rates_are_those_of_a_plain_list_after_every_outcome(outcomes: list[Event]) -> None:
    """However late an outcome comes: the clock is the latest time that was heard of."""
    recent = Recent()
    now = NOON
    for count, (at, backend_id, success) in enumerate(outcomes, 1):
        now = max(now, at)
        recent.note_outcome(backend_id, success=success, at=at)
        assert recent.rates(now=now) == counted(outcomes[:count], now)


def test_an_outcome_leaves_after_five_minutes_and_at_most_15_seconds() -> None:
    recent = recent_of([(NOON, "a", True)])
    assert recent.rates(now=NOON + 300.0) == {"a": Rate(1, 1)}
    assert recent.rates(now=NOON + 315.0) == {}


def test_the_rate_of_decisions_is_that_of_the_last_minute() -> None:
    recent = Recent()
    for step in range(6000):
        recent.note_decision(now=NOON + 0.1 * step)
    assert recent.decisions_per_second(now=NOON + 600.0, uptime_seconds=600.0) == pytest.approx(
        10.0, rel=0.01
    )
    for step in range(1200):
        recent.note_decision(now=NOON + 600.0 + 0.05 * step)
    assert recent.decisions_per_second(now=NOON + 660.0, uptime_seconds=660.0) == pytest.approx(
        20.0, rel=0.01
    )
    assert recent.decisions_per_second(now=NOON + 800.0, uptime_seconds=800.0) == 0.0


def test_a_server_that_has_just_started_counts_over_its_uptime() -> None:
    recent = recent_of([], [NOON] * 30)
    assert recent.decisions_per_second(now=NOON + 10.0, uptime_seconds=10.0) == 3.0
    assert recent.decisions_per_second(now=NOON + 0.001, uptime_seconds=0.001) == 30.0
    assert Recent().decisions_per_second(now=NOON, uptime_seconds=0.0) == 0.0


@given(events, events, events)
def test_merging_is_having_seen_all_in_any_order(a: list[Event], b: list[Event], c: list[Event]) -> None:
    decisions = [[at for at, _, _ in one] for one in (a, b, c)]
    parts = [recent_of(one, times).snapshot() for one, times in zip((a, b, c), decisions, strict=True)]
    whole = recent_of([*a, *b, *c], [at for times in decisions for at in times])
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        merged = Recent()
        for part in order:
            merged.merge(parts[part])
        now = max([at for at, _, _ in (*a, *b, *c)], default=NOON)
        assert merged.rates(now=now) == whole.rates(now=now)
        assert merged.decisions_per_second(now=now, uptime_seconds=1e6) == whole.decisions_per_second(
            now=now, uptime_seconds=1e6
        )


@given(events)
def test_snapshot_and_back_changes_nothing(outcomes: list[Event]) -> None:
    recent = recent_of(outcomes, [at for at, _, _ in outcomes])
    restored = Recent()
    restored.merge(recent.snapshot())
    assert restored.snapshot() == recent.snapshot()


def test_a_snapshot_stays_as_it_was_taken() -> None:
    recent = recent_of([(NOON, "a", True)])
    taken = recent.snapshot()
    recent.note_outcome("a", success=False, at=NOON)
    assert taken == recent_of([(NOON, "a", True)]).snapshot()


def test_no_more_than_five_minutes_are_kept_however_long_it_runs() -> None:
    recent = Recent()
    for step in range(5000):
        recent.note_decision(now=NOON + step)
        recent.note_outcome("a", success=True, at=NOON + step - step % 3 * 1000)
    kept = recent.snapshot()
    assert len(kept["decisions"]) == len(kept["outcomes"]) == WINDOW_S // SLOT_S + 1


def test_snapshots_of_every_age_leave_no_more_than_five_minutes() -> None:
    recent = Recent()
    for step in range(100):
        at = NOON + step * 7919 % 5000
        recent.merge(recent_of([(at, "a", True)], [at]).snapshot())
    kept = recent.snapshot()
    assert max(len(kept["decisions"]), len(kept["outcomes"])) <= WINDOW_S // SLOT_S + 1


def test_it_shows_how_much_it_holds() -> None:
    assert repr(recent_of([(NOON, "a", True)], [NOON, NOON])) == "Recent(slots=1, decisions=2)"
