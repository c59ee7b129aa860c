import json
import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.learning.changepoint import LATEST_OUTCOMES
from routing.core.learning.context import OWN, Context, context_of
from routing.core.learning.estimates import Learning, prior_duration
from routing.core.learning.history import (
    ESTIMATE_STEP_S,
    MAX_CONTEXT_ESTIMATES,
    BackendHistory,
)
from routing.core.learning.kinds import rate_shift_of, shift_of
from routing.core.learning.posterior import MIN_DRAWN_RATE
from routing.core.learning.success import PRIOR_OUTCOMES, SUCCESS_HALF_LIFE_S
from routing.core.model import Backend, Location
from support.makers import NOON

BACKEND = Backend("a", latency_ms=100.0, throughput_mbps=80.0, success_rate=0.9)
"""10,000 bytes a millisecond."""

HERE = context_of(None, Location(48.1, 11.6), "image/png", 0)
THERE = context_of(None, Location(-33.9, 151.2), "image/png", 0)


class Lesson:
    """A learner with a clock: one outcome a minute."""

    def __init__(self, backend: Backend = BACKEND) -> None:
        self.learning = Learning()
        self.backend = backend
        self.now = NOON

    def note(self, success: bool = True, duration_ms: int | None = 200, **fields: Any) -> None:
        self.now += 60.0
        said = {"context": HERE, "size_bytes": 1_000_000, "distance_km": None, "at": self.now, **fields}
        self.learning.note(
            self.backend, said.pop("context"), success=success, duration_ms=duration_ms, **said
        )

    def expected_ms(
        self, size_bytes: int = 1_000_000, context: tuple[str, ...] = HERE, after: float = 0.0
    ) -> float:
        return self.learning.estimate(
            self.backend, context, size_bytes, None, now=self.now + after
        ).expected_ms

    def success(self, after: float = 0.0) -> float:
        return self.learning.success_probability(self.backend, now=self.now + after)

    def draws(self, count: int = 300, after: float = 0.0) -> list[tuple[float, float]]:
        dice = Random(0)
        now = self.now + after
        drawn = [
            self.learning.draw(self.backend, HERE, 1_000_000, None, now=now, random=dice)
            for _ in range(count)
        ]
        return [(one.expected_ms, one.success_probability) for one in drawn]


def spread(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return float((sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5)


# --- context ---


@pytest.mark.parametrize(
    ("location", "content_type", "names"),
    [
        (None, "", (OWN,)),
        (None, "image/png", (OWN, "type:image/png")),
        (Location(48.1, 11.6), "", (OWN, "cell:30.0:1:0", "cell:10.0:4:1")),
        (Location(-0.1, -180.0), "", (OWN, "cell:30.0:-1:-6", "cell:10.0:-1:-18")),
        (Location(48.1, 11.6, "eu"), "", (OWN, "region:eu", "cell:30.0:1:0", "cell:10.0:4:1")),
        (Location(region="eu"), "", (OWN, "region:eu")),
        (Location(), "", (OWN,)),
    ],
)
def test_a_context_is_a_region_two_cells_and_a_type(
    location: Location | None, content_type: str, names: tuple[str, ...]
) -> None:
    assert context_of(None, location, content_type, 0) == names


def test_the_promise_is_latency_transfer_and_a_round_trip() -> None:
    assert prior_duration(BACKEND, 1_000_000, None) == (200.0, 0.5)
    assert prior_duration(BACKEND, 1_000_000, 1000.0) == pytest.approx((216.0, 100.0 / 216.0))


# --- speed ---


def test_without_outcomes_the_profile_speaks() -> None:
    estimate = Lesson().learning.estimate(BACKEND, HERE, 1_000_000, None, now=NOON)
    assert (estimate.expected_ms, estimate.prior_ms) == (200.0, 200.0)
    assert (estimate.success_probability, estimate.prior_success) == (0.9, 0.9)
    assert estimate.evidence == (0.0, 0.0)


def test_outcomes_correct_the_profile() -> None:
    lesson = Lesson()
    for _ in range(30):
        lesson.note(duration_ms=600)
    assert lesson.expected_ms() == pytest.approx(600.0, rel=0.02)
    estimate = lesson.learning.estimate(BACKEND, HERE, 1_000_000, None, now=lesson.now)
    assert estimate.prior_ms == 200.0
    assert 0.9 < estimate.evidence.speed < 1.0
    assert estimate.evidence.success == pytest.approx(30.0 / (30.0 + PRIOR_OUTCOMES), rel=0.02)


def test_a_far_place_is_believed_like_the_backend_until_it_is_heard_of() -> None:
    lesson = Lesson()
    for _ in range(30):
        lesson.note(duration_ms=600)
    assert 400.0 < lesson.expected_ms(context=THERE) < 600.0
    for _ in range(10):
        lesson.note(duration_ms=1200, context=THERE)
    assert lesson.expected_ms(context=THERE) > 1000.0
    assert lesson.expected_ms() < 750.0


def test_a_small_object_teaches_about_latency_and_a_large_one_about_throughput() -> None:
    lesson = Lesson()
    for _ in range(30):
        lesson.note(duration_ms=300, size_bytes=100)
        lesson.note(duration_ms=10_000, size_bytes=100_000_000)
    assert lesson.expected_ms(100) == pytest.approx(300.0, rel=0.05)
    assert lesson.expected_ms(100_000_000) == pytest.approx(10_000.0, rel=0.05)


@pytest.mark.parametrize("fields", [{"success": False}, {"duration_ms": None}])
def test_failures_and_outcomes_without_a_duration_say_nothing_about_speed(fields: dict[str, Any]) -> None:
    lesson = Lesson()
    lesson.note(**{"duration_ms": 5000, **fields})
    assert lesson.expected_ms() == 200.0


def test_an_unknown_size_counts_as_the_assumed_one() -> None:
    lesson, twin = Lesson(), Lesson()
    lesson.note(size_bytes=0)
    twin.note(size_bytes=1 << 20)
    assert lesson.expected_ms() == twin.expected_ms()


def test_one_odd_transfer_convinces_nobody_three_do() -> None:
    lesson = Lesson()
    for _ in range(30):
        lesson.note()
    lesson.note(duration_ms=20_000)
    assert lesson.expected_ms() < 400.0
    lesson.note(duration_ms=20_000)
    lesson.note(duration_ms=20_000)
    assert lesson.expected_ms() > 1000.0


def test_a_slow_spell_is_over_when_transfers_are_fast_again() -> None:
    lesson = Lesson()
    for _ in range(30):
        lesson.note()
    for _ in range(5):
        lesson.note(duration_ms=1600)
    assert lesson.expected_ms() > 1200.0
    for _ in range(3):
        lesson.note()
    assert lesson.expected_ms() < 400.0


def test_a_slow_spell_that_is_not_heard_of_is_believed_ever_less() -> None:
    lesson = Lesson()
    for _ in range(30):
        lesson.note()
    for _ in range(5):
        lesson.note(duration_ms=1600)
    hours = [lesson.expected_ms(after=3600.0 * hour) for hour in range(6)]
    assert hours == sorted(hours, reverse=True)
    assert hours[-1] < 350.0


def test_a_backend_that_slows_under_load_is_expected_to() -> None:
    lesson = Lesson()
    for number in range(60):
        lesson.note(duration_ms=200 * (1 + number % 4), inflight=number % 4)
    idle, load = (
        lesson.learning.estimate(BACKEND, HERE, 1_000_000, None, inflight, now=lesson.now).expected_ms
        for inflight in (0, 7)
    )
    assert idle == pytest.approx(200.0, rel=0.1)
    assert load == pytest.approx(1600.0, rel=0.25)
    dice = Random(0)
    drawn = lesson.learning.draw(BACKEND, HERE, 1_000_000, None, 7, now=lesson.now, random=dice)
    assert drawn.expected_ms > 1000.0


# --- success ---


def test_the_profile_counts_like_a_few_outcomes() -> None:
    lesson = Lesson()
    lesson.note()
    assert lesson.success() == pytest.approx((PRIOR_OUTCOMES * 0.9 + 1.0) / (PRIOR_OUTCOMES + 1.0))


def test_an_outage_is_believed_after_a_handful_of_failures() -> None:
    lesson = Lesson()
    for _ in range(100):
        lesson.note()
    before = lesson.success()
    for _ in range(3):
        lesson.note(success=False)
    assert before > 0.98
    assert lesson.success() < 0.4
    assert lesson.learning.overall_success(BACKEND, now=lesson.now) > 0.9


def test_a_good_record_outlasts_an_outage() -> None:
    lesson = Lesson()
    for _ in range(100):
        lesson.note()
    for _ in range(5):
        lesson.note(success=False)
    assert lesson.success(after=4 * 3600.0) > 0.9
    for _ in range(4):
        lesson.note()
    assert lesson.success() > 0.85


def test_a_backend_that_was_left_is_believed_in_again_as_decisions_go_elsewhere() -> None:
    lesson = Lesson()
    for _ in range(100):
        lesson.note()
    for _ in range(4):
        lesson.note(success=False, duration_ms=None)
    before = lesson.success()
    for _ in range(300):
        lesson.learning.note_decision("other", HERE)
    assert before < 0.4 < 0.85 < lesson.success()


def test_an_outage_hardly_stains_a_good_record() -> None:
    lesson = Lesson(Backend("a", success_rate=0.99))
    for _ in range(200):
        lesson.note()
    for _ in range(20):
        lesson.note(success=False)
    overall = lesson.learning.overall_success(lesson.backend, now=lesson.now)
    for _ in range(LATEST_OUTCOMES):
        lesson.note()
    assert overall < 0.92
    assert lesson.success() > 0.97


def test_a_backend_that_never_kept_its_promise_is_not_explained_share() -> None:
    lesson = Lesson(Backend("a", success_rate=0.99))
    for number in range(300):
        lesson.note(success=number % 2 == 0)
    assert 0.45 < lesson.success(after=3600.0) < 0.65


def test_a_record_fades_into_the_profile() -> None:
    lesson = Lesson()
    for number in range(100):
        lesson.note(success=number % 2 == 0)
    assert lesson.learning.overall_success(BACKEND, now=lesson.now) < 0.55
    assert lesson.success(after=20 * SUCCESS_HALF_LIFE_S) == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_profile_that_is_certain_can_be_taught(rate: float) -> None:
    lesson = Lesson(Backend("a", success_rate=rate))
    for number in range(20):
        lesson.note(success=number % 2 == 0)
    assert 0.1 < lesson.success() < 0.9
    assert all(0.0 < drawn < 1.0 for _, drawn in lesson.draws())


def test_the_last_failure_is_remembered_whatever_order_outcomes_come_in() -> None:
    lesson = Lesson()
    assert lesson.learning.last_failure_at("a") is None
    lesson.note()
    assert lesson.learning.last_failure_at("a") is None
    lesson.note(success=False, at=NOON + 500.0)
    lesson.note(success=False, at=NOON + 100.0)
    assert lesson.learning.last_failure_at("a") == NOON + 500.0


def test_outcomes_are_counted_for_each_backend() -> None:
    lesson = Lesson()
    lesson.note()
    lesson.note(success=False)
    assert (lesson.learning.outcomes("a"), lesson.learning.outcomes("b")) == (2, 0)
    assert repr(lesson.learning) == "Learning(backends=1, outcomes=2)"


def test_of_two_outcomes_at_one_time_the_later_told_is_the_later() -> None:
    fell, rose = Lesson(), Lesson()
    for lesson, order in ((fell, [True] * 5 + [False] * 3), (rose, [False] * 3 + [True] * 5)):
        for success in order:
            lesson.note(success=success, at=NOON)
    assert fell.success() < rose.success()


# --- draws ---


def test_draws_lie_around_the_estimate_and_close_in_with_outcomes() -> None:
    lesson = Lesson()
    few = lesson.draws()
    for _ in range(100):
        lesson.note()
    many = lesson.draws()
    for part in (0, 1):
        assert spread([one[part] for one in many]) < spread([one[part] for one in few]) / 2.0
    assert sum(ms for ms, _ in many) / len(many) == pytest.approx(lesson.expected_ms(), rel=0.05)
    assert sum(rate for _, rate in many) / len(many) == pytest.approx(lesson.success(), abs=0.02)


def test_draws_spread_again_with_time() -> None:
    lesson = Lesson()
    for _ in range(100):
        lesson.note()
    now, later = ([ms for ms, _ in lesson.draws(after=days * 86_400.0)] for days in (0.0, 10.0))
    assert spread(later) > 2.0 * spread(now)


def test_some_draws_doubt_that_a_condition_still_holds() -> None:
    lesson = Lesson()
    for _ in range(100):
        lesson.note()
    for _ in range(8):
        lesson.note(duration_ms=3000)
    slow = [ms for ms, _ in lesson.draws(1000)]
    assert 5 <= sum(ms < 900.0 for ms in slow) <= 60
    for _ in range(8):
        lesson.note(success=False)
    good = [rate for _, rate in lesson.draws(1000)]
    assert 5 <= sum(rate > 0.8 for rate in good) <= 60


def test_one_odd_transfer_convinces_no_draw_for_good_and_three_do() -> None:
    """The profile promises 200 ms, and the first transfer takes ten times as long."""

    def hopeful(transfers: int) -> int:
        lesson = Lesson()
        for _ in range(transfers):
            lesson.note(duration_ms=2_000)
        return sum(ms < 300.0 for ms, _ in lesson.draws(1_000))

    assert hopeful(1) > 100
    assert hopeful(3) < 10


def test_draws_stay_inside_what_a_probability_may_be() -> None:
    lesson = Lesson(Backend("a", success_rate=1.0))
    for number in range(3):
        lesson.note(success=number != 1)
    rates = [rate for _, rate in lesson.draws()]
    assert MIN_DRAWN_RATE <= min(rates) <= max(rates) <= 1.0 - MIN_DRAWN_RATE


# --- uncertainty ---


def test_uncertainty_is_the_spread_of_the_draws() -> None:
    lesson = Lesson()
    for number in range(30):
        lesson.note(success=number % 10 != 0, duration_ms=200 + number)
    said = lesson.learning.uncertainty(BACKEND, HERE, 1_000_000, None, now=lesson.now)
    drawn = lesson.draws(4000)
    assert spread([math.log(ms) for ms, _ in drawn]) == pytest.approx(said[0], rel=0.1)
    assert spread([rate for _, rate in drawn]) == pytest.approx(said[1], rel=0.1)


def test_uncertainty_closes_in_with_outcomes_and_opens_with_time() -> None:
    lesson = Lesson()

    def said(after: float = 0.0) -> tuple[float, float]:
        return lesson.learning.uncertainty(BACKEND, HERE, 1_000_000, None, now=lesson.now + after)

    decisions_since = said()
    for _ in range(50):
        lesson.note()
    heard, later = said(), said(after=10 * 86_400.0)
    assert heard[0] < later[0] < decisions_since[0]
    assert heard[1] < later[1] < decisions_since[1]


@pytest.mark.parametrize("odd", [{"duration_ms": 2000}, {"success": False}])
def test_where_a_condition_may_hold_or_not_little_is_sure(odd: dict[str, Any]) -> None:
    lesson = Lesson()

    def said(after: float = 0.0) -> float:
        both = lesson.learning.uncertainty(BACKEND, HERE, 1_000_000, None, now=lesson.now + after)
        return both[0 if "duration_ms" in odd else 1]

    for _ in range(50):
        lesson.note()
    calm = said()
    for _ in range(3):
        lesson.note(**odd)
    assert said(after=1800.0) > 2.0 * calm


def test_a_draw_of_a_type_that_began_to_fail_may_succeed_rarely() -> None:
    lesson = Lesson()
    fine, failing = ((*HERE[:-1], f"type:{name}") for name in ("text/plain", "video/mp4"))
    for number in range(60):
        lesson.note(context=failing if number % 3 == 0 else fine)
    for number in range(18):
        lesson.note(number % 3 > 0, context=failing if number % 3 == 0 else fine)

    def mean(context: tuple[str, ...]) -> float:
        dice = Random(0)
        drawn = [
            lesson.learning.draw(BACKEND, context, 1_000_000, None, now=lesson.now, random=dice)
            for _ in range(300)
        ]
        return sum(one.success_probability for one in drawn) / len(drawn)

    assert mean(failing) < 0.3 < 0.8 < mean(fine)


# --- merging ---

notes = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.booleans(),
        # Within four times of the promise: how odd a transfer is, and with it how much it counts, is
        # judged by what the server saw before.
        st.none() | st.integers(60, 500),
        st.integers(0, 10**5),
        st.sampled_from([HERE, THERE, (OWN,)]),
        st.integers(0, 200_000),
    ),
    max_size=25,
    unique_by=lambda note: note[-1],
)
Notes = list[tuple[str, bool, int | None, int, tuple[str, ...], int]]
PROFILES = {name: Backend(name, latency_ms=120.0) for name in "ab"}


def taught(*servers: Notes) -> Learning:
    learning = Learning()
    for server, stream in enumerate(servers):
        for name, success, duration_ms, size_bytes, context, ago in stream:
            learning.note(
                PROFILES[name],
                context,
                success=success,
                duration_ms=duration_ms,
                size_bytes=size_bytes,
                distance_km=None,
                # No two at one time: their order would be that of the reports.
                at=NOON - ago - server / 4.0,
            )
    return learning


def joined(*parts: Learning) -> Learning:
    learning = Learning()
    for part in parts:
        learning.merge(json.loads(json.dumps(part.snapshot())))
    return learning


def beliefs(learning: Learning) -> list[tuple[float, ...]]:
    rows = []
    for backend in PROFILES.values():
        for context in (HERE, THERE):
            one = learning.estimate(backend, context, 50_000, None, now=NOON)
            rows.append((one.expected_ms, one.success_probability, *one.evidence))
    return rows


def alike(mine: tuple[float, ...], theirs: tuple[float, ...]) -> bool:
    """Durations within a factor of three, where transfers differ by eight; success within a third, since
    a run of failures counts less where it is seen as a change; equal evidence."""
    return (
        1 / 3 < mine[0] / theirs[0] < 3.0
        and mine[1] == pytest.approx(theirs[1], abs=0.35)
        and mine[2:] == pytest.approx(theirs[2:], abs=1e-9)
    )


@given(notes, notes, notes)
def test_merging_is_having_seen_all_in_any_order_and_any_grouping(a: Notes, b: Notes, c: Notes) -> None:
    whole = taught(a, b, c)
    parts = [taught(a), taught([], b), taught([], [], c)]
    tail = joined(*parts[1:])
    for order in (parts, parts[::-1], [parts[0], tail], [tail, parts[0]]):
        both = joined(*order)
        for mine, theirs in zip(beliefs(both), beliefs(whole), strict=True):
            # The sums are the same. The effects that they give are solved for step by step,
            # and each server judges for itself what a change explains, of the backend or a kind, and
            # what is odd.
            assert alike(mine, theirs)
        for name in PROFILES:
            assert both.outcomes(name) == whole.outcomes(name)
            assert both.last_failure_at(name) == whole.last_failure_at(name)


@given(notes)
def test_a_snapshot_brings_back_the_same(stream: Notes) -> None:
    learning = taught(stream)
    copy = joined(learning)
    assert copy.snapshot() == learning.snapshot()
    assert beliefs(copy) == beliefs(learning)


@given(notes, st.randoms(use_true_random=False))
def test_outcomes_may_come_in_any_order(stream: Notes, dice: Random) -> None:
    shuffled = taught(dice.sample(stream, len(stream)))
    for mine, theirs in zip(beliefs(shuffled), beliefs(taught(stream)), strict=True):
        assert alike(mine, theirs)


@given(notes)
def test_a_belief_is_a_time_and_a_probability(stream: Notes) -> None:
    for expected_ms, success, speed_evidence, success_evidence in beliefs(taught(stream)):
        assert 0.0 < expected_ms < float("inf")
        assert 0.0 < success < 1.0
        assert 0.0 <= speed_evidence < 1.0
        assert 0.0 <= success_evidence < 1.0


@given(notes, st.integers(0, 5), st.integers(0, 300), st.floats(0.0, 7200.0))
def test_what_is_believed_of_several_is_what_the_parts_say_of_each(
    stream: Notes, beside: int, decisions: int, later: float
) -> None:
    """The loop in `estimates` against its parts: prior duration, effects, changes."""
    learning = taught(stream)
    for _ in range(decisions):
        learning.note_decision("elsewhere", HERE)
    backends = tuple(PROFILES.values())
    now = NOON + later
    for context in (HERE, THERE):
        several = learning.estimates(backends, context, 50_000, (None, 900.0), (0, beside), now=now)
        for backend, km, load, one in zip(backends, (None, 900.0), (0, beside), several, strict=True):
            assert one[:2] == pytest.approx(plainly(learning, backend, context, km, load, now), rel=1e-9)
            assert one.prior_ms == prior_duration(backend, 50_000, km)[0]
            assert one.prior_success == backend.success_rate


def plainly(
    learning: Learning, backend: Backend, context: Context, km: float | None, beside: int, now: float
) -> tuple[float, float]:
    prior_ms, share = prior_duration(backend, 50_000, km)
    history = learning._histories.get(backend.id) or BackendHistory(now)
    decisions_since = learning._decisions - history.decisions_then
    # The record decays in steps.
    start = now // ESTIMATE_STEP_S * ESTIMATE_STEP_S
    level = history.speed.effects.total(context, share, math.log1p(beside))
    if level > 0.0:
        level *= history.speed.doubt.belief(start, learning._decisions)
    kinds = history.kinds.known(context[1:])
    speeds = [(history.speed.change, decisions_since)]
    speeds += [(kind.speed_change, kind.decisions_since) for kind in kinds]
    speed, since = max(speeds, key=lambda one: shift_of(one[0]))
    level += speed.probability_at(now, since) * speed.mean
    level += history.speed.log_mean
    long_term = history.success.long_term(backend, start)
    long_term *= history.kinds.success_rate(context[1:], start)
    rates = [(history.success.change(backend), decisions_since)]
    rates += [(kind.success_change, kind.decisions_since) for kind in kinds]
    change, since = max(rates, key=lambda one: rate_shift_of(one[0], long_term))
    probability = change.probability_at(now, since)
    return prior_ms * math.exp(level), probability * change.mean + (1.0 - probability) * long_term


def test_more_contexts_than_are_kept_change_no_belief() -> None:
    lesson = Lesson()
    for number in range(40):
        lesson.note(duration_ms=100 + 10 * (number % 3), context=context_of(None, None, f"x/{number}", 0))
    for number in range(2 * MAX_CONTEXT_ESTIMATES):
        context = context_of(None, None, f"x/{number % 40}", 0)
        assert lesson.expected_ms(context=(*context, f"cell:{number}")) == lesson.expected_ms(context=context)
        assert len(lesson.learning._histories["a"].context_estimates) <= MAX_CONTEXT_ESTIMATES


def test_no_more_outcomes_are_kept_than_the_latest() -> None:
    lesson = Lesson()
    for _ in range(3 * LATEST_OUTCOMES):
        lesson.note()
    kept = lesson.learning.snapshot()["a"]
    assert len(kept["latest"]) == len(kept["transfers"]) == LATEST_OUTCOMES
    both = joined(lesson.learning, lesson.learning).snapshot()["a"]
    assert len(both["latest"]) == len(both["transfers"]) == LATEST_OUTCOMES


def test_a_late_outcome_takes_its_place_among_the_latest() -> None:
    def after(order: Callable[[list[int]], list[int]]) -> float:
        lesson = Lesson()
        for minute in order(list(range(8))):
            lesson.note(success=minute >= 4, at=NOON + 60.0 * minute)
        return lesson.success()

    assert after(lambda minutes: minutes) == pytest.approx(after(lambda minutes: minutes[::-1]), rel=0.1)
