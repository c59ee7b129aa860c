"""Weighted means, errors and quantiles against plain ones and against sampling."""

import statistics
from math import sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.replay.estimates import Mean, ObservedOutcomes, Quantiles

values = st.lists(st.integers(0, 10**6).map(float), min_size=2, max_size=50)


def mean_of(pairs: list[tuple[float, float]]) -> Mean:
    mean = Mean()
    for value, weight in pairs:
        mean.add(value, weight)
    return mean


@given(values, st.sampled_from([0.5, 1.0, 8.0]))
def test_equal_weights_give_the_usual_mean_error_and_count(given_values: list[float], weight: float) -> None:
    mean = mean_of([(value, weight) for value in given_values])
    count = len(given_values)
    assert mean.value == pytest.approx(statistics.fmean(given_values), rel=1e-9)
    expected = statistics.pstdev(given_values) / sqrt(count)
    assert mean.error == pytest.approx(expected, rel=1e-4, abs=1e-6 * max(given_values))
    assert mean.effective_count == pytest.approx(count)


def test_a_weight_of_two_counts_in_the_mean_like_two_outcomes() -> None:
    assert mean_of([(1.0, 2.0), (4.0, 1.0)]).value == mean_of([(1.0, 1.0)] * 2 + [(4.0, 1.0)]).value == 2.0


def test_unequal_weights_are_worth_less() -> None:
    assert mean_of([(1.0, 1.0), (1.0, 1.0)]).effective_count == 2.0
    assert mean_of([(1.0, 3.0), (1.0, 1.0)]).effective_count == 1.6


def test_without_values_there_is_no_mean_and_with_one_no_error() -> None:
    assert (Mean().value, Mean().error, Mean().effective_count) == (None, None, 0.0)
    assert (mean_of([(3.0, 2.0)]).value, mean_of([(3.0, 2.0)]).error) == (3.0, None)


def test_weighting_by_the_inverse_probability_undoes_a_skewed_choice_and_knows_its_error() -> None:
    """Values of 0 are seen in a tenth of the cases and values of 1 in half of them: the mean of
    what is seen is far off, the weighted one lies within two errors in 95 of 100 trials."""
    dice, held = Random(0), 0
    for _ in range(400):
        pairs = []
        for _ in range(500):
            value = float(dice.random() < 0.3)
            seen_with = 0.5 if value else 0.1
            if dice.random() < seen_with:
                pairs.append((value, 1.0 / seen_with))
        mean = mean_of(pairs)
        assert mean.value is not None
        assert mean.error is not None
        assert statistics.fmean(value for value, _ in pairs) > 0.45
        held += abs(mean.value - 0.3) < 2 * mean.error
    # 380 of 400 are expected, with a standard deviation of 4.4.
    assert 360 <= held <= 396


@given(st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=60), st.floats(0.0, 1.0))
def test_quantiles_are_within_one_percent_of_the_value_at_their_rank(
    given_ms: list[int], share: float
) -> None:
    quantiles = Quantiles()
    for duration_ms in given_ms:
        quantiles.add(duration_ms)
    ordered = sorted(given_ms)
    near = [index for index in range(len(ordered)) if abs(index + 1 - share * len(ordered)) <= 1.0 + 1e-6]
    found = quantiles.value(share)
    assert any(found == pytest.approx(ordered[index], rel=0.0101) for index in near)


def test_quantiles_are_weighted() -> None:
    quantiles = Quantiles()
    assert quantiles.value(0.5) is None
    quantiles.add(100.0, 9.0)
    quantiles.add(1000.0, 1.0)
    assert quantiles.value(0.9) == pytest.approx(100.0, rel=0.01)
    assert quantiles.value(0.91) == pytest.approx(1000.0, rel=0.01)


def test_a_failure_and_an_outcome_without_a_duration_say_nothing_about_time() -> None:
    seen = ObservedOutcomes()
    seen.add(True, 100)
    seen.add(True, None)
    seen.add(False, 9000)
    said = seen.values()
    assert (said["outcomes"], said["measured"]) == (3, 1)
    assert said["success_rate"] == pytest.approx(2 / 3)
    assert said["mean_ms"] == 100.0
    assert said["p50_ms"] == said["p99_ms"] == pytest.approx(100.0, rel=0.01)
