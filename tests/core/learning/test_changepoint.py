from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.learning.changepoint import (
    CHANGE_HALF_LIFE_DECISIONS,
    CHANGE_HALF_LIFE_S,
    MAX_HALF_LIFE_FACTOR,
    UNCHANGED,
    Change,
    beta_moments,
    detect_speed_change,
    detect_success_change,
)

NOISE = [0.2, -0.3, 0.1, 0.4, -0.2, 0.0, -0.4, 0.3]
"""What transfers look like when nothing has changed."""


def speed(residuals: Sequence[float], step_s: float = 60.0) -> Change:
    count = len(residuals)
    return detect_speed_change([step_s * number for number in range(count)], [1.0] * count, residuals)


def success(outcomes: str, rate: float = 0.98, step_s: float = 60.0) -> Change:
    """`S` and `F`, oldest first."""
    times = [step_s * number for number in range(len(outcomes))]
    return detect_success_change(times, [1.0] * len(times), [float(one == "S") for one in outcomes], rate)


def test_where_nothing_has_changed_hardly_anything_is_seen() -> None:
    assert speed(NOISE).probability < 0.05
    assert success("SSSSFSSS").probability < 0.1


def test_one_odd_transfer_is_no_change_and_three_are() -> None:
    one, two, three = (speed([*NOISE[odd:], *[2.3] * odd]) for odd in (1, 2, 3))
    assert one.probability < 0.5
    assert two.probability > one.probability
    assert three.probability > 0.95
    assert three.mean == pytest.approx(2.3, abs=0.3)


@pytest.mark.parametrize("factor", [-1.0, 1.0])
def test_faster_is_a_change_as_slower_is(factor: float) -> None:
    seen = speed([*NOISE[:4], *[1.5 * factor] * 4])
    assert seen.probability > 0.9
    assert seen.mean == pytest.approx(1.5 * factor, abs=0.3)


def test_back_to_normal_is_seen_as_soon() -> None:
    assert speed([0.1, -0.2, 2.0, 2.1, 1.9, 2.2, 0.1, -0.1]).probability < 0.3
    assert success("SFFFFSSS").probability < success("SSSSFFFF").probability


def test_an_outage_is_seen_within_three_failures() -> None:
    once, twice, thrice = (success("S" * (8 - count) + "F" * count) for count in (1, 2, 3))
    assert once.probability < 0.5 < twice.probability < thrice.probability
    assert thrice.probability > 0.95
    assert thrice.mean < 0.3


def test_failures_that_the_record_expects_are_no_news() -> None:
    assert success("SFSSFSFS", rate=0.6).probability < success("SFSSFSFS", rate=0.99).probability


def test_no_record_makes_one_failure_a_proof() -> None:
    assert success("SSSSSSSF", rate=1.0).probability < 0.7


def test_after_a_long_silence_a_change_is_likelier() -> None:
    often = detect_speed_change([0.0, 60.0, 120.0], [0.0] * 3, [0.0, 0.0, 1.5])
    seldom = detect_speed_change([0.0, 60.0, 36_060.0], [0.0] * 3, [0.0, 0.0, 1.5])
    assert seldom.probability > often.probability


def test_without_outcomes_a_change_becomes_less_probable() -> None:
    seen = Change(0.8, 2.0, 0.1, at=1000.0)
    assert seen.probability_at(1000.0, 0) == seen.probability_at(900.0, 0) == 0.8
    assert seen.probability_at(1000.0 + CHANGE_HALF_LIFE_S, 0) == pytest.approx(0.4)
    assert seen.probability_at(1000.0, CHANGE_HALF_LIFE_DECISIONS) == pytest.approx(0.4)
    assert seen.probability_at(1000.0 + CHANGE_HALF_LIFE_S, CHANGE_HALF_LIFE_DECISIONS) == pytest.approx(0.2)
    assert UNCHANGED.probability_at(1e9, 1e9) == 0.0


def test_a_change_that_has_lasted_decays_more_slowly() -> None:
    times, failures = [float(number) for number in range(5)], [0.0] * 5
    young, old, oldest = (
        detect_success_change(times, [0.0, *[each] * 4], failures, 0.99) for each in (1.0, 20.0, 40.0)
    )
    assert 1.0 < young.half_life_factor < 1.2
    assert 2.0 < old.half_life_factor < oldest.half_life_factor == pytest.approx(MAX_HALF_LIFE_FACTOR)
    longer = Change(0.8, 2.0, 0.1, at=1000.0, half_life_factor=2.0)
    assert longer.probability_at(1000.0 + 2.0 * CHANGE_HALF_LIFE_S, 0) == pytest.approx(0.4)
    assert longer.probability_at(1000.0, 2.0 * CHANGE_HALF_LIFE_DECISIONS) == pytest.approx(0.4)


@given(
    st.floats(0.02, 1.0),
    st.floats(1.0, MAX_HALF_LIFE_FACTOR),
    st.floats(0.0, 9e3),
    st.floats(0.0, 9e3),
    st.floats(0, 999),
)
def test_decay_from_agrees_with_probability_at(
    probability: float, half_life_factor: float, then_s: float, later_s: float, decisions_since: float
) -> None:
    at = 1_000_000.0
    change = Change(probability, 2.0, 0.1, at, half_life_factor)
    decay = change.decay_from(at + then_s, at + then_s + later_s)
    assert decay is not None
    passed = later_s / CHANGE_HALF_LIFE_S + decisions_since / CHANGE_HALF_LIFE_DECISIONS
    probability_then = 2.0 ** -(decay.half_lives + decay.pace * passed)
    assert probability_then == pytest.approx(change.probability_at(at + then_s + later_s, decisions_since))
    assert decay.level == 2.0
    assert UNCHANGED.decay_from(at, at) is None


def test_a_change_may_end_while_decisions_pass() -> None:
    times, outcomes = [float(number) for number in range(5)], [0.0, 0.0, 0.0, 0.0, 1.0]
    soon, late = (detect_success_change(times, [0.0] * 4 + [last], outcomes, 0.99) for last in (0.0, 200.0))
    assert late.probability < 0.5 < soon.probability


def test_hypotheses_that_nothing_speaks_for_are_dropped() -> None:
    assert success("SSSSSSSS") is UNCHANGED or success("SSSSSSSS").probability < 0.02
    assert success("S", rate=1.0) is UNCHANGED


@given(st.lists(st.floats(-6.0, 6.0), min_size=1, max_size=8), st.floats(0.0, 1e6))
def test_a_change_of_speed_is_a_probability_and_a_level(residuals: list[float], step_s: float) -> None:
    seen = speed(residuals, step_s)
    assert 0.0 <= seen.probability <= 1.0
    assert -6.0 <= seen.mean <= 6.0
    assert seen.variance >= 0.0


@given(st.text("SF", min_size=1, max_size=8), st.floats(0.0, 1.0), st.floats(0.0, 1e6))
def test_a_change_of_success_is_a_probability_and_a_rate(outcomes: str, rate: float, step_s: float) -> None:
    seen = success(outcomes, rate, step_s)
    assert 0.0 <= seen.probability <= 1.0
    assert 0.0 <= seen.mean <= 1.0
    assert seen.variance >= 0.0


def test_moments_are_those_of_the_beta_distribution() -> None:
    assert beta_moments(1.0, 1.0) == pytest.approx((0.5, 1.0 / 12.0))
