"""The gate by itself: however its bytes are cut, it lets the same ones through, and counts the same."""

from itertools import pairwise

import pytest
from h2.errors import ErrorCodes
from hypothesis import example, given
from hypothesis import strategies as st

from routing.http2.budget import Budget, Http2Limits
from routing.http2.frame_filter import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    FrameFilter,
    Violation,
)
from support.http2_peer import PREFACE, raw

GREETING = PREFACE + raw(SETTINGS)
UNKNOWN = 0xBE
SWALLOWED = {GOAWAY, UNKNOWN, 0x0A}

FRAMES = st.lists(
    st.one_of(
        st.builds(raw, st.sampled_from([DATA, HEADERS]), st.binary(max_size=40), stream=st.integers(0, 9)),
        st.builds(raw, st.sampled_from([*SWALLOWED]), st.binary(min_size=8, max_size=40)),
        st.builds(raw, st.just(PING), st.binary(min_size=8, max_size=8), flags=st.integers(0, 255)),
        st.builds(raw, st.just(SETTINGS), st.just(b"\0\4\0\0\0\1" * 2)),
        st.builds(raw, st.just(WINDOW_UPDATE), st.just(b"\0\0\0\1"), stream=st.integers(0, 9)),
        st.builds(raw, st.just(PRIORITY), st.just(b"\0\0\0\1\0"), stream=st.integers(1, 9)),
        st.builds(raw, st.just(HEADERS), st.binary(max_size=40), stream=st.just(1), flags=st.just(5)),
    ),
    max_size=12,
)


def gate(**limits: int) -> FrameFilter:
    allowed = Http2Limits(**limits)  # type: ignore[arg-type]
    return FrameFilter(allowed, Budget(allowed, lambda: 0.0))


def fed(gate: FrameFilter, pieces: list[bytes]) -> tuple[bytes, ErrorCodes | None, int]:
    """What came through, how it ended, and how many frames were seen."""
    through = b""
    try:
        for piece in pieces:
            through += gate.feed(piece)
    except Violation as violation:
        return through, violation.code, gate.frames
    return through, None, gate.frames


@given(FRAMES, st.lists(st.integers(0, 500), max_size=20))
@example([raw(UNKNOWN, b"?" * 9)] * 3, [24, 25, 33, 34, 40])
def test_how_the_bytes_are_cut_makes_no_difference(frames: list[bytes], cuts: list[int]) -> None:
    whole = GREETING + b"".join(frames)
    at = [0, *sorted(cuts), len(whole)]
    pieces = [whole[begin:end] for begin, end in pairwise(at)]
    through, code, seen = fed(gate(), pieces)
    expected, expected_code, expected_seen = fed(gate(), [GREETING, *frames])
    assert (code, seen) == (expected_code, expected_seen)
    if code is None:
        assert through == expected


@given(FRAMES)
def test_what_h2_must_not_see_is_left_out_and_all_else_goes_through_as_it_came(frames: list[bytes]) -> None:
    through, code, _ = fed(gate(), [GREETING, *frames])
    if code is None:
        assert through == GREETING + b"".join(one for one in frames if one[3] not in SWALLOWED)


def test_bytes_without_anything_to_leave_out_are_not_copied() -> None:
    data = GREETING + raw(HEADERS, b"\x82", stream=1, flags=5)
    assert gate().feed(data) is data


@pytest.mark.parametrize("kind", [PING, SETTINGS, WINDOW_UPDATE, UNKNOWN, GOAWAY])
def test_the_burst_is_how_many_frames_that_are_no_calls_come_for_nothing(kind: int) -> None:
    sizes = {SETTINGS: 6, WINDOW_UPDATE: 4}
    frame = raw(kind, b"\1" * sizes.get(kind, 8))
    one = gate(burst=10)
    one.feed(PREFACE + raw(SETTINGS) + frame * 9)
    with pytest.raises(Violation) as refused:
        one.feed(frame)
    assert refused.value.code is ErrorCodes.ENHANCE_YOUR_CALM


def test_calls_cost_nothing_whatever_their_number() -> None:
    one = gate(burst=1)
    one.feed(GREETING)
    for stream in range(1, 2001, 2):
        one.feed(raw(HEADERS, b"\x82", stream=stream, flags=4) + raw(DATA, b"x", stream=stream, flags=1))
    assert one.highest_stream == 1999


def test_large_data_costs_nothing_and_small_data_does() -> None:
    one = gate(burst=1)
    one.feed(GREETING + raw(HEADERS, b"\x82", stream=1, flags=4))
    one.feed(raw(DATA, b"x" * 256, stream=1) * 100)
    with pytest.raises(Violation):
        one.feed(raw(DATA, b"x" * 255, stream=1))


def test_a_header_block_may_be_as_long_as_its_list_and_come_in_a_few_pieces() -> None:
    one = gate()
    one.feed(GREETING + raw(HEADERS, b"x" * 1000, stream=1))
    one.feed(raw(CONTINUATION, b"x" * 2000, stream=1) * 7)
    assert one.in_block == 1
    one.feed(raw(CONTINUATION, b"x" * 1000, stream=1, flags=4))
    assert not one.mid_frame


def test_too_long_a_header_block_is_refused_before_it_is_whole() -> None:
    one = gate(max_continuations=1000)
    one.feed(GREETING + raw(HEADERS, b"x" * 16_384, stream=1))
    one.feed(raw(CONTINUATION, b"x" * 16_384, stream=1) * 3)
    with pytest.raises(Violation) as refused:
        one.feed(raw(CONTINUATION, length=1, stream=1))
    assert refused.value.code is ErrorCodes.ENHANCE_YOUR_CALM


def test_a_goodbye_is_heard_and_not_passed_on() -> None:
    one = gate()
    assert one.feed(GREETING + raw(GOAWAY, b"\0" * 8)) == GREETING
    assert one.leaving


def test_a_reset_of_a_stream_that_was_opened_goes_through() -> None:
    one = gate()
    reset = raw(RST_STREAM, b"\0\0\0\0", stream=1)
    one.feed(GREETING + raw(HEADERS, b"\x82", stream=3, flags=5))
    assert one.feed(reset) == reset


def test_the_budget_comes_back_with_time_and_with_answers_and_never_above_its_burst() -> None:
    now = [0.0]
    budget = Budget(Http2Limits(burst=10, refill_per_s=2.0), lambda: now[0])
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]
    now[0] = 1.0
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    budget.earn()
    assert [budget.spend() for _ in range(2)] == [True, False]
    now[0] = 1e6
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(12)].count(True) == 10
