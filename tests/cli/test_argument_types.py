"""What people type becomes the value that they meant, or one line that says what to type."""

import time
from argparse import ArgumentTypeError
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.cli.argument_types import count, moment, port, positive, seconds, size, text


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("0", 0),
        ("1500", 1500),
        ("12B", 12),
        ("10MB", 10_000_000),
        ("10mb", 10_000_000),
        ("4GiB", 4 * 2**30),
        ("1.5 kB", 1500),
        (".5KiB", 512),
        ("1 TB", 10**12),
        ("2PiB", 2 * 2**50),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_a_size_is_bytes_or_a_number_with_a_unit(written: str, meant: int) -> None:
    assert size(written) == meant


@pytest.mark.parametrize(
    "written", ["", "MB", "-5", "10 M", "1e9", "1,000", "10XB", "½MB", "１０", "inf", "0x10"]
)
def test_what_is_no_size_names_the_units(written: str) -> None:
    with pytest.raises(ArgumentTypeError, match="no size; expected bytes, or a number with kB"):
        size(written)


@pytest.mark.parametrize("written", ["9223372036854775808", "9PiB9", "10000PB", "9" * 5000])
def test_a_size_that_no_request_can_carry_is_refused(written: str) -> None:
    with pytest.raises(ArgumentTypeError):
        size(written)


@given(st.integers(0, 10**15), st.sampled_from(["kB", "MB", "GiB"]))
def test_a_unit_is_a_factor(number: int, unit: str) -> None:
    assert size(f"{min(number, 10**9)}{unit}") == min(number, 10**9) * size(f"1{unit}")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00+02:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01 12:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("1 March 2026 12:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("Sun, 01 Mar 2026 12:00:00 GMT", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("1772366400", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("1772366400.25", datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_a_time_comes_in_any_usual_format_and_is_utc_unless_it_says(written: str, meant: datetime) -> None:
    assert moment(written) == meant
    assert moment(written).utcoffset() == timedelta(0)


def test_this_machines_zone_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert moment("2026-03-01 12:00") == datetime(2026, 3, 1, 12, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_time_without_a_date_is_today() -> None:
    before = datetime.now(UTC).date()
    at = moment("10:30")
    assert (at.hour, at.minute, at.second) == (10, 30, 0)
    assert before <= at.date() <= datetime.now(UTC).date()


@pytest.mark.parametrize(
    "written",
    [
        "",
        "soon",
        "2026-13-01",
        "99999-01-01",
        "10:30 XYZT",
        "1" * 4000,
        "2026-03-01T25:00Z",
        "0001-01-01T00:00+14:00",
    ],
)
def test_what_is_no_time_shows_times(written: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no time; expected for example 2026-03-01T12:00:00Z"):
        moment(written)


@given(st.text())
def test_no_text_breaks_the_reading_of_a_time(written: str) -> None:
    with suppress(ArgumentTypeError):
        assert moment(written).tzinfo is UTC


@pytest.mark.parametrize(
    ("read", "written"), [(port, "1"), (port, "65535"), (count, "0"), (count, "2147483647")]
)
def test_the_ends_of_a_range_belong_to_it(read: object, written: str) -> None:
    assert callable(read)
    assert read(written) == int(written)


@pytest.mark.parametrize(
    ("read", "written"),
    [
        (port, "0"),
        (port, "65536"),
        (port, "http"),
        (port, "-1"),
        (port, "٣"),
        (port, "9" * 5000),
        (count, "2147483648"),
        (count, "-1"),
        (count, "1.5"),
        (count, "9" * 5000),
        (seconds, "0"),
        (seconds, "-1"),
        (seconds, "nan"),
        (seconds, "inf"),
        (seconds, "soon"),
    ],
)
def test_what_lies_outside_is_refused_with_what_is_expected(read: object, written: str) -> None:
    assert callable(read)
    with pytest.raises(ArgumentTypeError, match="expected"):
        read(written)


def test_bytes_that_are_no_utf8_are_refused_before_they_are_sent() -> None:
    assert text("ipfs-фал") == "ipfs-фал"
    with pytest.raises(ArgumentTypeError, match="is not UTF-8"):
        text(b"s3\xff".decode(errors="surrogateescape"))


@pytest.mark.parametrize("given", ["0", "-1", "x", "", "1.5", "2147483648"])
def test_what_is_less_than_one_is_not_enough(given: str) -> None:
    with pytest.raises(ArgumentTypeError, match="expected a whole number from 1 to 2147483647"):
        positive(given)


def test_one_is_enough() -> None:
    assert positive("1") == 1
