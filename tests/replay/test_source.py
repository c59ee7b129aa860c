"""CSV and JSON lines, with or without gzip: rows with line numbers, in order of time, and errors."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.errors import BadTrace
from routing.replay.source import MAX_LINE_CHARACTERS, Source
from support.replay_makers import NOON, csv_lines, json_lines, trace_of, written

HEADER = "timestamp,backend_id,success,duration_ms"


def rows_of(content: str | bytes, **how: Any) -> list[tuple[int, float, str]]:
    return [(row.line, row.at - NOON, row.backend_id) for row in trace_of(content, **how)]


def complaint(content: str | bytes) -> str:
    with pytest.raises(BadTrace) as caught:
        rows_of(content)
    assert "\n" not in caught.value.message
    return caught.value.message


# --- what it is written in ---


def test_csv_rows_come_with_the_line_on_which_they_end() -> None:
    content = f'{HEADER}\n\n{NOON},"a\nb",true,5\n{NOON + 1},c,false,\n'
    assert rows_of(content) == [(4, 0, "a\nb"), (5, 1, "c")]


def test_json_lines_come_with_theirs() -> None:
    content = "\n  \n" + json_lines([{}]) + "\n" + json_lines([{"backend_id": "b"}])
    assert rows_of(content) == [(3, 0, "a"), (5, 0, "b")]


@pytest.mark.parametrize("content", [csv_lines(HEADER, f"{NOON},a,true,5"), json_lines([{}])])
def test_line_ends_byte_order_mark_and_gzip_change_nothing(content: str) -> None:
    plain = [at for _, *at in rows_of(content)]
    windows = content.replace("\n", "\r\n")
    for other in (windows, b"\xef\xbb\xbf" + content.encode(), gzip.compress(content.encode()), content[:-1]):
        assert [at for _, *at in rows_of(other)] == plain == [[0, "a"]]


def test_a_file_is_read_by_its_path_and_says_how_far(tmp_path: Path) -> None:
    path = written(tmp_path, json_lines([{}] * 3000))
    with Source(path) as source:
        assert source.share_read == 0.0
        shares = [source.share_read or 0.0 for _ in source.rows()]
    assert shares == sorted(shares)
    assert 0.0 < shares[0] < shares[-1] == 1.0


# --- what is wrong with it ---


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "text: expected rows, got nothing"),
        ("\n\n", "text: expected rows, got nothing"),
        ("a,b\n1,2\n", "text: line 1: expected a header with the columns timestamp, backend_id, or one JSON"),
        ("\nbackend_id,x\n", "text: line 2: expected a header with the columns timestamp, or one JSON"),
        ('[{"timestamp": 1}]', "text: line 1: expected a header with the columns"),
        (f"{HEADER},success\n", "text: line 1: expected each column once, got 'success' again"),
        ('"timestamp,backend_id\n', "text: line 1: expected CSV: unexpected end of data"),
        (f"{HEADER}\n{NOON},a\n", "text: line 2: expected 4 fields as in the header, got 2"),
        (f'{HEADER}\n{NOON},"a"b,true,\n', "text: line 2: expected CSV: "),
        (f'{HEADER}\n{NOON},"a,true,\n', "text: line 2: expected CSV: unexpected end of data"),
        (f"{HEADER}\n{NOON},a,soon,\n", "text: line 2: success: expected true or false, got 'soon'"),
        ('{"timestamp": 1', "text: line 1: expected a JSON object: "),
        (json_lines([{}]) + "[1]\n", "text: line 2: expected a JSON object, got a list of 1"),
        (json_lines([{}]) + "{" * 100_000, "text: line 2: expected a JSON object: "),
        (
            json_lines([{"duration_ms": float("nan")}]),
            "text: line 1: expected a JSON object: NaN is no number",
        ),
        ("{" + " " * MAX_LINE_CHARACTERS, "text: line 1: expected at most 4,194,304 characters in a line"),
        (
            gzip.compress(json_lines([{}] * 9).encode(), mtime=0)[:-9],
            "text: expected a file that can be read: ",
        ),
        (
            f"{HEADER}\n{NOON},".encode() + b"\xe9,true,\n",
            "text: line 2: backend_id: expected at most 256 bytes",
        ),
    ],
)
def test_a_mistake_is_one_line_with_file_line_and_what_was_expected(content: str | bytes, said: str) -> None:
    assert complaint(content).startswith(said)


@pytest.mark.parametrize("path", ["absent.csv", ".", "a\x00b"])
def test_a_file_that_cannot_be_read_is_one_line(path: str, tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match="expected a file that can be read: "), Source(str(tmp_path / path)):
        pass


def test_invalid_rows_are_skipped_and_counted_on_request() -> None:
    content = csv_lines(
        HEADER, f"{NOON},a,true,5", "soon,a,true,5", f"{NOON},a", f'{NOON},"x"y,true,5', f"{NOON},b,true,5"
    )
    trace = trace_of(content, skip_invalid=True)
    assert [row.backend_id for row in trace] == ["a", "b"]
    assert trace.skipped == 3
    assert trace.first_skipped.startswith("text: line 3: timestamp: expected a time")


def test_a_propensity_in_some_rows_only_is_refused() -> None:
    with_one, without = {"propensity": 0.5}, {"propensity": None}
    for first, second, said in ((with_one, without, "one"), (without, with_one, "none")):
        content = json_lines([first, second])
        assert complaint(content) == f"text: line 2: propensity: expected {said}, as in line 1"
    trace = trace_of(json_lines([with_one, with_one]))
    assert list(trace)
    assert trace.has_propensity


def test_unknown_columns_are_listed_up_to_a_limit() -> None:
    trace = trace_of(json_lines([{f"c{number}": 1, "durations": 2} for number in range(100)]))
    assert len(list(trace)) == 100
    assert trace.unknown[:3] == ["c0", "durations", "c1"]
    assert len(trace.unknown) == 20


# --- order ---


@given(st.lists(st.integers(0, 20), max_size=40))
def test_rows_come_by_time_and_equal_times_in_order_of_the_file(times: list[int]) -> None:
    trace = trace_of(json_lines([{"timestamp": NOON + at} for at in times]) or json_lines([{}]))
    lines = [(row.at, row.line) for row in trace]
    assert lines == sorted(lines)
    assert len(lines) == max(1, len(times))
    latest = [max(times[: index + 1]) for index in range(len(times))]
    assert trace.out_of_order == sum(at < before for at, before in zip(times, latest, strict=True))


def test_a_row_past_the_reorder_window_is_invalid() -> None:
    times = [0, 1, 2, 3, 4, 0]
    content = json_lines([{"timestamp": NOON + at} for at in times])
    assert [at for _, at, _ in rows_of(content, sorted_rows=6)] == [0, 0, 1, 2, 3, 4]
    with pytest.raises(
        BadTrace, match=re.escape("line 6: timestamp: expected rows out of order by at most 3")
    ):
        rows_of(content, sorted_rows=3)
    trace = trace_of(content, sorted_rows=3, skip_invalid=True)
    assert [row.at - NOON for row in trace] == [0, 1, 2, 3, 4]
    assert trace.skipped == 1


def test_no_more_rows_are_buffered_than_the_reorder_window() -> None:
    """An endless trace is streamed: the buffer is bounded."""
    asked = 0

    class Endless:
        name, share_read = "endless", None

        def rows(self) -> Any:
            nonlocal asked
            while True:
                asked += 1
                yield asked, json.loads(json_lines([{"timestamp": NOON + asked}]))

    trace = trace_of("")
    trace._source = Endless()  # type: ignore[assignment]
    rows = iter(trace)
    for number in range(1, 50):
        assert next(rows).line == number
        assert asked == number + 1000
