"""Points in time: every usual way to write one, and none that could be two."""

from datetime import UTC, datetime

import pytest

from routing.timestamps import moment_of

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "written",
    [
        "1772625600",
        "1772625600.0",
        "2026-03-04T12:00:00Z",
        "2026-03-04T12:00:00",
        "2026-03-04 12:00:00.000",
        "2026-03-04T14:00+02:00",
        "2026-03-04 12:00:00 UTC",
        "20260304T120000Z",
        "4 March 2026, 12:00",
        "Wed, 04 Mar 2026 12:00:00 GMT",
        "Mar 4 2026 7:00 -0500",
    ],
)
def test_every_usual_way_to_write_a_time_is_read(written: str) -> None:
    assert moment_of(written) == NOON
    assert moment_of(written).tzinfo is UTC


def test_a_fraction_of_a_second_is_kept() -> None:
    expected = NOON.replace(microsecond=250_000)
    assert moment_of("1772625600.25") == moment_of("2026-03-04T12:00:00.250Z") == expected


def test_a_date_alone_is_its_midnight() -> None:
    assert moment_of("2026-03-04") == moment_of("4 March 2026") == NOON.replace(hour=0)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "soon",
        "12:00",  # on which day?
        "4 March",
        "2026",
        "2026-03",
        "3/4/2026",  # in March, or in April?
        "2026-03-04T25:00",
        "2026-13-04",
        "1772625600000",  # milliseconds
        "-5",
        "2026-03-04 12:00 XYZ",
        "9" * 400,
        "\x00",
    ],
)
def test_what_is_no_time_or_could_be_two_is_refused(written: str) -> None:
    with pytest.raises(ValueError):
        moment_of(written)


def test_a_date_that_reads_the_same_either_way_is_read() -> None:
    assert moment_of("3/25/2026") == moment_of("25/3/2026") == datetime(2026, 3, 25, tzinfo=UTC)


def test_today_lends_what_people_leave_out() -> None:
    today = datetime(2026, 3, 4)
    assert moment_of("12:00", today=today) == NOON
    assert moment_of("3/4/2026 12:00", today=today) == NOON
