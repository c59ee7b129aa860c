"""Parsers of argument values: sizes, times, ports, seconds, counts."""

import re
from argparse import ArgumentTypeError
from datetime import UTC, datetime
from decimal import Decimal

from routing.contract import MAX_PORT
from routing.errors import shown
from routing.timestamps import moment_of

_UNIT_BYTES = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgtp", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgtp", 1)},
}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", re.ASCII)
_MAX_SIZE_BYTES = (1 << 63) - 1


def text(given: str) -> str:
    """Text that can be sent; an argument with bytes that are not UTF-8 is refused."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError(f"{given!a} is not UTF-8") from None
    return given


def size(given: str) -> int:
    """Bytes from a number with or without a unit.

    >>> size("1500"), size("10MB"), size("4GiB"), size("1.5 kB")
    (1500, 10000000, 4294967296, 1500)
    """
    match = _SIZE.fullmatch(given.strip().lower())
    if match is None or match[2] not in _UNIT_BYTES:
        raise ArgumentTypeError(
            f"{shown(given)} is no size; expected bytes, or a number with kB, MB, GB, TB, PB (1,000s) "
            "or KiB, MiB, GiB, TiB, PiB (1,024s)"
        )
    size_bytes = Decimal(match[1]) * _UNIT_BYTES[match[2]]
    if size_bytes > _MAX_SIZE_BYTES:
        raise ArgumentTypeError(f"{shown(given)} is too large; expected at most {_MAX_SIZE_BYTES} bytes")
    return int(size_bytes)


def moment(given: str) -> datetime:
    """A time in any common format; UTC if it has no zone.

    >>> moment("2026-03-01 12:00+02:00").isoformat()
    '2026-03-01T10:00:00+00:00'
    >>> moment("1 March 2026, 10am") == moment("1772359200")
    True
    """
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    try:
        return moment_of(given, today=midnight)
    except (OverflowError, ValueError):
        raise ArgumentTypeError(
            f"{shown(given)} is no time; expected for example 2026-03-01T12:00:00Z, "
            "'1 March 2026 12:00 +02:00', 10:30 (today, UTC) or Unix seconds"
        ) from None


def port(given: str) -> int:
    """A TCP port from 1 to MAX_PORT."""
    if given.isascii() and given.isdigit() and len(given) <= 5 and 1 <= int(given) <= MAX_PORT:
        return int(given)
    raise ArgumentTypeError(f"{shown(given)} is no port; expected 1 to {MAX_PORT}")


def seconds(given: str) -> float:
    """A duration in seconds, positive and finite."""
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if 0 < value < float("inf"):
        return value
    raise ArgumentTypeError(f"{shown(given)} is no time to wait; expected seconds, more than 0")


def count(given: str) -> int:
    """A whole number that is not negative and fits the wire's int32."""
    if given.isascii() and given.isdigit() and len(given) <= 10 and int(given) < 1 << 31:
        return int(given)
    raise ArgumentTypeError(f"{shown(given)} is no count; expected a whole number from 0 to {(1 << 31) - 1}")


def positive(given: str) -> int:
    """A count of at least one."""
    if given.isascii() and given.isdigit() and len(given) <= 10 and 0 < int(given) < 1 << 31:
        return int(given)
    raise ArgumentTypeError(
        f"{shown(given)} is not enough; expected a whole number from 1 to {(1 << 31) - 1}"
    )
