"""The sketch against sorting, its dumb twin."""

import math
import random
import statistics

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routing.core.usage.sketch import DenseSketch, Sketch

LARGEST_MS = 2**31 - 1
"""A wire duration is an int32."""

SHARES = (0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 1.0)

durations = st.integers(1, LARGEST_MS) | st.integers(1, 50) | st.sampled_from([1, 2, LARGEST_MS])
samples = st.lists(durations, min_size=1, max_size=80)


def sketch_of(values: list[int]) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


def sorted_quantile(values: list[int], share: float) -> float:
    """The twin: what lies at this share of the sorted values, between two neighbours in proportion."""
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


@given(samples)
@example([1])
@example([LARGEST_MS])
@example([1, LARGEST_MS])
@example([10] * 50 + [1000] * 50)
def test_quantiles_are_within_2_percent_of_sorting_and_the_rest_is_exact(values: list[int]) -> None:
    sketch = sketch_of(values)
    for share, quantile in zip(SHARES, sketch.quantiles(SHARES), strict=True):
        assert quantile == pytest.approx(sorted_quantile(values, share), rel=0.02)
        assert sketch.quantile(share) == quantile
    assert (sketch.count, sketch.sum_ms) == (len(values), sum(values))
    assert (sketch.min_ms, sketch.max_ms) == (min(values), max(values))
    assert sketch.mean_ms == pytest.approx(statistics.fmean(values))


@given(samples)
def test_the_first_and_the_last_quantile_are_the_extremes_and_none_lies_outside(values: list[int]) -> None:
    quantiles = sketch_of(values).quantiles(SHARES)
    assert (quantiles[0], quantiles[-1]) == (min(values), max(values))
    assert quantiles == sorted(quantiles)


@pytest.mark.parametrize("draw", ["lognormal", "bimodal", "constant", "uniform"])
def test_quantiles_hold_on_large_samples_of_every_shape(draw: str) -> None:
    dice = random.Random(0)
    shapes = {
        "lognormal": lambda: 1 + int(dice.lognormvariate(5.0, 1.5)),
        "bimodal": lambda: dice.choice([20, 3000]) + dice.randrange(10),
        "constant": lambda: 137,
        "uniform": lambda: dice.randrange(1, 5000),
    }
    values = [shapes[draw]() for _ in range(20_000)]
    sketch = sketch_of(values)
    for share in (0.5, 0.9, 0.99, 0.999):
        assert sketch.quantile(share) == pytest.approx(sorted_quantile(values, share), rel=0.02)


@given(samples | st.just([]), samples | st.just([]))
def test_merging_is_having_counted_both(first: list[int], second: list[int]) -> None:
    both = sketch_of(first)
    both.merge(sketch_of(second))
    assert both == sketch_of([*first, *second])
    other_way = sketch_of(second)
    other_way.merge(sketch_of(first))
    assert other_way == both


@given(samples, samples, samples)
def test_merging_in_any_grouping_is_the_same(a: list[int], b: list[int], c: list[int]) -> None:
    left, right, tail = sketch_of(a), sketch_of(a), sketch_of(b)
    left.merge(sketch_of(b))
    left.merge(sketch_of(c))
    tail.merge(sketch_of(c))
    right.merge(tail)
    assert left == right


def test_merging_leaves_the_other_as_it_was() -> None:
    one, other = sketch_of([1, 2]), sketch_of([3])
    one.merge(other)
    one.add(3)
    assert other == sketch_of([3])


@given(samples | st.just([]))
def test_a_sketch_survives_being_written_as_numbers(values: list[int]) -> None:
    sketch = sketch_of(values)
    row = sketch.as_row()
    assert all(type(number) is int for number in row)
    assert Sketch.from_row(row) == sketch


def test_bins_are_few_whatever_is_counted() -> None:
    sketch = Sketch()
    value = 1.0
    while value < LARGEST_MS:
        sketch.add(int(value))
        value *= 1.001
    sketch.add(LARGEST_MS)
    assert sketch.count > 20_000
    assert len(sketch.bins) <= 1076


def test_a_sketch_shows_what_it_holds_and_equals_nothing_else() -> None:
    assert repr(sketch_of([5, 7])) == "Sketch(count=2, min_ms=5, max_ms=7)"
    assert sketch_of([5]) != [5]


# --- a sketch that is asked all the time ---

steps = st.lists(st.tuples(st.sampled_from(["add", "merge", "take", "ask"]), samples), max_size=25)


@given(steps)
def test_a_dense_sketch_answers_like_a_plain_one_after_every_step(done: list[tuple[str, list[int]]]) -> None:
    dense, parts = DenseSketch(), [sketch_of([])]
    for what, values in done:
        if what == "merge":
            parts.append(sketch_of(values))
            dense.merge(parts[-1])
        elif what == "take" and len(parts) > 1:
            dense.subtract(parts.pop())
        elif what == "add":
            for value in values:
                parts[0].add(value)
                dense.add(value)
        plain = Sketch()
        for part in parts:
            plain.merge(part)
        assert (dense.bins, dense.count, dense.sum_ms) == (plain.bins, plain.count, plain.sum_ms)
        if plain.count:
            dense.min_ms, dense.max_ms = plain.min_ms, plain.max_ms
            assert dense.quantiles((0.5, 0.9)) == plain.quantiles((0.5, 0.9))
            assert dense.quantiles(SHARES) == plain.quantiles(SHARES)


def test_a_dense_sketch_grows_with_what_it_counts() -> None:
    dice = random.Random(4)
    dense, plain = DenseSketch(), Sketch()
    for _ in range(2_000):
        duration_ms = 1 + int(dice.lognormvariate(5.0, 1.5))
        dense.add(duration_ms)
        plain.add(duration_ms)
        assert dense.quantiles(SHARES) == plain.quantiles(SHARES)
    assert dense == plain
    assert dense.as_row() == plain.as_row()


def test_a_dense_sketch_takes_in_nothing_where_there_is_nothing() -> None:
    dense = DenseSketch()
    dense.merge(Sketch())
    assert (dense.count, dense.bins) == (0, {})
    dense.add(5)
    dense.merge(Sketch())
    assert dense == sketch_of([5])
