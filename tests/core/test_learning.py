"""What outcomes teach: corrections of the profile, shrunk, fading, and sums that add."""

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.geography import ROUND_TRIP_MS_PER_KM
from routing.core.learning import (
    MAX_CONTEXTS,
    RESIDUAL_LIMIT,
    SPEED_HALF_LIFE_S,
    SUCCESS_HALF_LIFE_S,
    Learning,
    Sums,
    context_of,
    profile_ms,
)
from routing.core.model import Backend, Location

NOON = 1_700_000_000.0
BACKEND = Backend(id="a", latency_ms=100.0, throughput_mbps=80.0, success_rate=0.9)
MIB = 1 << 20


def note(learning: Learning, success: bool = True, duration_ms: int | None = None, **but: object) -> None:
    facts = {"context": (), "size_bytes": MIB, "distance_km": None, "at": NOON, **but}
    context = facts.pop("context")
    learning.note(BACKEND, context, success=success, duration_ms=duration_ms, **facts)  # type: ignore[arg-type]


def expected_ms(learning: Learning, context: tuple[str, ...] = (), now: float = NOON) -> float:
    return learning.estimate(BACKEND, context, MIB, None, now=now).expected_ms


def test_without_outcomes_the_profile_is_believed_to_the_digit() -> None:
    estimate = Learning().estimate(BACKEND, (), MIB, None, now=NOON)
    assert estimate.expected_ms == estimate.prior_ms == 100.0 + MIB * 8e-3 / 80.0
    assert estimate.success_probability == estimate.prior_success == 0.9
    assert estimate.speed_evidence == estimate.success_evidence == 0.0


def test_the_distance_costs_one_round_trip() -> None:
    assert profile_ms(BACKEND, MIB, 1000.0) - profile_ms(BACKEND, MIB, None) == pytest.approx(
        1000 * ROUND_TRIP_MS_PER_KM
    )


def test_many_outcomes_outweigh_the_profile_and_few_lean_on_it() -> None:
    few, many = Learning(), Learning()
    slow_ms = round(3 * profile_ms(BACKEND, MIB, None))
    note(few, duration_ms=slow_ms)
    for _ in range(500):
        note(many, duration_ms=slow_ms)
    assert expected_ms(Learning()) < expected_ms(few) < expected_ms(many)
    assert expected_ms(many) == pytest.approx(slow_ms, rel=0.02)


def test_one_transfer_that_hung_counts_no_more_than_the_limit() -> None:
    hung, limited = Learning(), Learning()
    note(hung, duration_ms=10**9)
    note(limited, duration_ms=round(profile_ms(BACKEND, MIB, None) * exp(RESIDUAL_LIMIT + 0.5)))
    assert expected_ms(hung) == expected_ms(limited)


def test_a_failure_says_nothing_about_speed_and_neither_does_a_missing_duration() -> None:
    learning = Learning()
    note(learning, success=False, duration_ms=9_000)
    note(learning, duration_ms=None)
    assert expected_ms(learning) == expected_ms(Learning())
    assert learning.outcomes("a") == 2
    assert learning.success_probability(BACKEND, now=NOON) == pytest.approx((5 * 0.9 + 1) / 7)


def test_a_place_of_its_own_is_corrected_on_top_of_what_is_shared() -> None:
    learning = Learning()
    usual_ms = round(profile_ms(BACKEND, MIB, None))
    for _ in range(50):
        note(learning, duration_ms=usual_ms, context=("cell:1:1",))
        note(learning, duration_ms=4 * usual_ms, context=("cell:2:2",))
    here, there = expected_ms(learning, ("cell:1:1",)), expected_ms(learning, ("cell:2:2",))
    assert here < expected_ms(learning) < there
    assert expected_ms(learning, ("cell:3:3",)) == expected_ms(learning)


def test_what_was_learned_fades() -> None:
    learning = Learning()
    for _ in range(20):
        note(learning, success=False)
        note(learning, duration_ms=5_000)
    later = NOON + 30 * max(SPEED_HALF_LIFE_S, SUCCESS_HALF_LIFE_S)
    assert learning.success_probability(BACKEND, now=NOON) < 0.6
    assert learning.success_probability(BACKEND, now=later) == pytest.approx(0.9, abs=1e-6)
    assert expected_ms(learning, now=later) == pytest.approx(expected_ms(Learning()), rel=1e-6)


def test_contexts_past_the_limit_are_learned_with_the_backend_only() -> None:
    learning = Learning()
    for number in range(MAX_CONTEXTS + 20):
        note(learning, duration_ms=500, context=(f"cell:{number}:0",))
    (table,) = learning.snapshot()["speed"].values()
    assert len(table) == 1 + MAX_CONTEXTS
    assert expected_ms(learning, (f"cell:{MAX_CONTEXTS + 5}:0",)) == expected_ms(learning)


def test_contexts_are_a_cell_of_the_globe_or_a_region_and_a_family_of_types() -> None:
    assert context_of(None, "") == ()
    assert context_of(Location(48.9, 2.35, "eu"), "image/png") == ("cell:1:0", "type:image")
    assert context_of(Location(region="eu"), "") == ("region:eu",)


def test_sums_of_one_time_show_what_they_weigh() -> None:
    assert repr(Sums(NOON, 2.0, 0.5)) == "Sums(count=2, total=0.5)"


outcomes = st.lists(
    st.tuples(
        st.booleans(),
        st.none() | st.integers(1, 10**6),
        st.integers(0, 10**5),
        st.sampled_from(["", "x", "y"]),
    ),
    max_size=20,
)


@given(outcomes, outcomes)
def test_merged_is_having_seen_both(mine: list, theirs: list) -> None:  # type: ignore[type-arg]
    def told(events: list) -> Learning:  # type: ignore[type-arg]
        learning = Learning()
        for success, duration_ms, ago, place in events:
            note(learning, success, duration_ms, at=NOON - ago, context=(place,) if place else ())
        return learning

    both, merged = told(mine + theirs), told(mine)
    merged.merge(told(theirs).snapshot())
    for context in ((), ("x",), ("y",)):
        one, other = (each.estimate(BACKEND, context, MIB, None, now=NOON) for each in (both, merged))
        assert tuple(one) == pytest.approx(tuple(other), rel=1e-9)
    assert merged.outcomes("a") == len(mine) + len(theirs)
