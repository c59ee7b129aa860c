"""The bucket in one number is the bucket in two, for every caller, in bounded memory."""

from collections.abc import Iterable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.access.rate_limit import MAX_CALLERS, RateLimit

RATES = st.sampled_from([0.5, 1.0, 8.0, 1024.0])
"""Whose intervals a float holds exactly, as it does the times below: twins then agree to the last digit."""

BURSTS = st.integers(1, 20)
STEPS_S = st.lists(st.integers(0, 4096).map(lambda step: step / 1024), max_size=60)
SLIGHTLY_S = 1e-9


class Tokens:
    """The dumb twin: a bucket as a number of tokens, and when it was last looked at."""

    def __init__(self, per_second: float, burst: int) -> None:
        self.per_second, self.burst = Fraction(per_second), Fraction(burst)
        self.tokens, self.at = self.burst, Fraction(0)

    def take(self, now: float) -> float:
        self.tokens = min(self.burst, self.tokens + (Fraction(now) - self.at) * self.per_second)
        self.at = Fraction(now)
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return float((1 - self.tokens) / self.per_second)


def times(steps: Iterable[float]) -> Iterable[float]:
    now = 1000.0
    for step in steps:
        now += step
        yield now


@settings(deadline=None)
@given(RATES, BURSTS, STEPS_S)
def test_it_is_a_bucket_of_tokens(per_second: float, burst: int, steps: list[float]) -> None:
    limit, twin = RateLimit(per_second, burst), Tokens(per_second, burst)
    for now in times(steps):
        assert limit.take("one", now=now) == pytest.approx(twin.take(now), abs=SLIGHTLY_S)


@settings(deadline=None)
@given(st.floats(0.01, 1e4), BURSTS, STEPS_S)
def test_within_any_time_no_more_get_in_than_the_burst_and_the_rate(
    per_second: float, burst: int, steps: list[float]
) -> None:
    limit = RateLimit(per_second, burst)
    let_in = [now for now in times(steps) if not limit.take("one", now=now)]
    for first, begun in enumerate(let_in):
        for count, ended in enumerate(let_in[first:], 1):
            assert count <= burst + (ended - begun) * per_second + SLIGHTLY_S * per_second + SLIGHTLY_S


@settings(deadline=None)
@given(st.floats(0.01, 1e4), BURSTS, st.lists(st.floats(0, 10), max_size=30))
def test_a_caller_that_waits_for_the_pushback_is_admitted(
    per_second: float, burst: int, steps: list[float]
) -> None:
    limit = RateLimit(per_second, burst)
    for now in times(steps):
        wait_s = limit.take("one", now=now)
        assert 0.0 <= wait_s <= 1.0 / per_second + SLIGHTLY_S
        if wait_s:
            assert limit.take("one", now=now + wait_s + SLIGHTLY_S) == 0.0
            return


def test_who_does_not_wait_is_not_made_to_wait_longer() -> None:
    limit = RateLimit(per_second=1, burst=1)
    assert limit.take("one", now=0.0) == 0.0
    assert [limit.take("one", now=0.5) for _ in range(3)] == [0.5, 0.5, 0.5]
    assert limit.take("one", now=1.0) == 0.0


def test_a_caller_does_not_pay_for_another() -> None:
    limit = RateLimit(per_second=1, burst=1)
    assert limit.take("one", now=0.0) == limit.take("other", now=0.0) == 0.0
    assert limit.take("one", now=0.0) == 1.0


@settings(deadline=None)
@given(RATES, BURSTS, st.lists(st.tuples(st.sampled_from("abcdef"), STEPS_S.map(sum)), max_size=40))
def test_as_long_as_there_is_room_forgetting_changes_nothing(
    per_second: float, burst: int, asked: list[tuple[str, float]]
) -> None:
    little, much = RateLimit(per_second, burst, max_callers=6), RateLimit(per_second, burst)
    for (caller, _), now in zip(asked, times(step for _, step in asked), strict=True):
        assert little.take(caller, now=now) == much.take(caller, now=now)


def test_past_the_limit_the_one_goes_that_has_not_tried_for_longest() -> None:
    limit = RateLimit(per_second=1, burst=1, max_callers=2)
    assert [limit.take(caller, now=0.0) for caller in "ab"] == [0.0, 0.0]
    assert limit.take("a", now=0.1) > 0  # a try, though in vain
    assert limit.take("c", now=0.1) == 0.0  # for which b goes
    assert limit.take("a", now=0.1) > 0
    assert limit.take("b", now=0.1) == 0.0


def test_no_more_callers_are_remembered_than_there_is_room_for() -> None:
    limit = RateLimit(per_second=1, burst=1)
    for number in range(MAX_CALLERS + 10):
        limit.take(str(number), now=0.0)
    assert repr(limit) == f"<RateLimit 1/s callers={MAX_CALLERS}>"
