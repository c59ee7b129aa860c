"""Points in time, as people and programs write them."""

import re
import warnings
from datetime import UTC, datetime

_UNIX_SECONDS = re.compile(r"\d{9,11}(\.\d+)?", re.ASCII)
"""Nine digits and more are no date that anybody writes; up to eleven, until the year 5138."""

_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{8}(?!\d)", re.ASCII)

_DEFAULTS = datetime(2000, 1, 1), datetime(2001, 2, 2)
"""Two days without anything in common: what a text leaves out of its date differs between them."""


def moment_of(written: str, *, today: datetime | None = None) -> datetime:
    """The point in time, in UTC, which is also the zone where none is given; ValueError for
    what is none.

    `today`, without a zone, lends the date that people leave out. Without it the date must
    be whole, and no other reading of it possible: 3/4/2026 is in March or in April.
    """
    if _UNIX_SECONDS.fullmatch(written):
        return datetime.fromtimestamp(float(written), UTC)
    parsed = _whole(written) if today is None else _parsed(written, today)
    return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _whole(written: str) -> datetime:
    from dateutil.parser import isoparse

    iso = _ISO_DATE.match(written)
    if iso:
        try:
            return isoparse(written)
        except ValueError:
            pass  # perhaps only the zone is written otherwise
    one = _parsed(written, _DEFAULTS[0])
    other = _parsed(written, _DEFAULTS[1], day_first=not iso)
    if one != other:
        raise ValueError(f"{written!r} has more than one reading")
    return one


def _parsed(written: str, default: datetime, *, day_first: bool = False) -> datetime:
    from dateutil.parser import UnknownTimezoneWarning, parse

    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownTimezoneWarning)  # it would go on with the zone left out
        try:
            return parse(written, default=default, dayfirst=day_first)
        except (UnknownTimezoneWarning, OverflowError) as error:
            raise ValueError(str(error)) from None
