"""Timestamps as people and programs write them, parsed to UTC."""

import re
import warnings
from datetime import UTC, datetime

_UNIX_SECONDS = re.compile(r"\d{9,11}(\.\d+)?", re.ASCII)
"""Nine to eleven digits: a date written in digits has eight at most; eleven last until the year 5138."""

_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{8}(?!\d)", re.ASCII)

_DEFAULTS = datetime(2000, 1, 1), datetime(2001, 2, 2)
"""Two dates that differ in year, month and day: a part that the text leaves out is filled from
these, so the two results differ."""


def moment_of(written: str, *, today: datetime | None = None) -> datetime:
    """The time in UTC; text without a zone is UTC. ValueError for text that is not a timestamp.

    `today`, without a zone, fills in a date that is left out. If it is None, the date must be
    complete and unambiguous: 3/4/2026 is refused, since it may be in March or in April.
    """
    if _UNIX_SECONDS.fullmatch(written):
        return datetime.fromtimestamp(float(written), UTC)
    parsed = _unambiguous(written) if today is None else _parsed(written, today)
    return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _unambiguous(written: str) -> datetime:
    from dateutil.parser import isoparse

    iso = _ISO_DATE.match(written)
    if iso:
        try:
            return isoparse(written)
        except ValueError:
            pass  # perhaps only its zone is not ISO 8601
    month_first = _parsed(written, _DEFAULTS[0])
    day_first = _parsed(written, _DEFAULTS[1], day_first=not iso)
    if month_first != day_first:
        raise ValueError(f"{written!r} has more than one reading")
    return month_first


def _parsed(written: str, default: datetime, *, day_first: bool = False) -> datetime:
    from dateutil.parser import UnknownTimezoneWarning, parse

    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownTimezoneWarning)  # dateutil would drop an unknown zone
        try:
            return parse(written, default=default, dayfirst=day_first)
        except (UnknownTimezoneWarning, OverflowError) as error:
            raise ValueError(str(error)) from None
