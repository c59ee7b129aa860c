"""Validators of settings: each checks one value and describes what it expects.

A validator reads a value as TOML gives it; the text of an environment variable or a flag is
parsed into such a value first.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from routing.errors import listed, shown

LARGEST_INT64 = (1 << 63) - 1
"""The largest size that an int64 field of a request can carry."""

_LONGEST_SHOWN_BITS = 256
"""Longer integers are described by their size: TOML can hold thousands of digits, which Python
refuses to print."""

_BOOLEANS = MappingProxyType(
    {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
)

_MIME_PATTERN = re.compile(r"\*/\*|{name}/(\*|{name})".format(name=r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"))


_T = TypeVar("_T")


class Mismatch(Exception):
    """A value that its validator refuses; `at` is the path to the invalid part of it."""

    def __init__(self, expected: str, value: object, at: str = "") -> None:
        super().__init__(f"expected {expected}, got {described(value)}")
        self.at = at


@dataclass(frozen=True, slots=True)
class Validator:
    """One type of value. `expected` describes it for messages. `read` returns the value that the
    settings hold, or raises Mismatch; `parse` turns text into what `read` takes, or raises
    ValueError. `choices` lists the valid texts of a closed set; `switch` marks a boolean."""

    expected: str
    read: Callable[[object], Any]
    parse: Callable[[str], object] = str
    choices: tuple[str, ...] = ()
    switch: bool = False

    def read_text(self, written: str) -> Any:
        """The value of an environment variable or a flag."""
        try:
            value = self.parse(written)
        except ValueError:
            raise Mismatch(self.expected, written) from None
        return self.read(value)


def setting(default: _T, validator: Validator, help: str, metavar: str = "") -> _T:
    """A dataclass field with the metadata of its row in `options.OPTIONS`."""
    return field(default=default, metadata={"validator": validator, "help": help, "metavar": metavar})


def whole(low: int, high: int) -> Validator:
    """An integer in [low, high]."""
    return _checked(
        f"a whole number from {low:,} to {high:,}",
        lambda value: type(value) is int and low <= value <= high,
        parse=int,
    )


def number(low: float, high: float) -> Validator:
    """A number in [low, high]; NaN and infinities are refused."""
    return _checked(
        f"a number from {low:,} to {high:,}",
        lambda value: type(value) in (int, float) and low <= value <= high,
        convert=float,
        parse=float,
    )


def switch() -> Validator:
    """A boolean."""
    return _checked("true or false", lambda value: type(value) is bool, parse=_boolean, switch=True)


def text(low: int, high: int) -> Validator:
    """Printable text of low to high bytes in UTF-8."""
    expected = f"{low:,} to {high:,} bytes of printable text"
    return _checked(expected, lambda value: _is_text(value, low, high))


def matching(pattern: str, expected: str) -> Validator:
    """Text that matches a regular expression as a whole."""
    regex = re.compile(pattern)
    return _checked(expected, lambda value: isinstance(value, str) and regex.fullmatch(value) is not None)


def one_of(*choices: str) -> Validator:
    """One of these texts, case included."""
    return _checked(f"one of {listed(choices)}", lambda value: value in choices, choices=choices)


def names(max_names: int, max_bytes: int) -> Validator:
    """A list of names, stored as a frozenset."""
    return _checked(
        f"a list of at most {max_names:,} names of 1 to {max_bytes:,} bytes",
        lambda value: (
            isinstance(value, list)
            and len(value) <= max_names
            and all(_is_text(name, 1, max_bytes) for name in value)
        ),
        convert=frozenset,
    )


def affinities(max_patterns: int) -> Validator:
    """A table of MIME patterns to scores in [0, 1], stored in lower case, as requests are."""
    expected = f'a table of at most {max_patterns:,} MIME patterns such as "image/*" to numbers from 0 to 1'
    score = number(0, 1)

    def read(value: object) -> Mapping[str, float]:
        if not isinstance(value, dict) or len(value) > max_patterns:
            raise Mismatch(expected, value)
        scores: dict[str, float] = {}
        for pattern, given in value.items():
            if not _MIME_PATTERN.fullmatch(pattern):
                raise Mismatch('a MIME pattern: "type/subtype", "type/*" or "*/*"', pattern)
            if pattern.lower() in scores:
                raise Mismatch("each MIME pattern once, whatever its case", pattern)
            try:
                scores[pattern.lower()] = score.read(given)
            except Mismatch:
                raise Mismatch(score.expected, given, at=f'."{pattern}"') from None
        return MappingProxyType(scores)

    return Validator(expected, read)


def described(value: object) -> str:
    """The value for a message: as TOML writes it if that is short, else its type and size."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > _LONGEST_SHOWN_BITS:
        return f"a whole number of {value.bit_length():,} bits"
    if isinstance(value, dict | list) and value:
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value):,}"
    return shown(value)


def _checked(
    expected: str,
    fits: Callable[[Any], bool],
    convert: Callable[[Any], Any] = lambda value: value,
    **more: Any,
) -> Validator:
    def read(value: object) -> Any:
        if not fits(value):
            raise Mismatch(expected, value)
        return convert(value)

    return Validator(expected, read, **more)


def _boolean(written: str) -> bool:
    try:
        return _BOOLEANS[written.strip().lower()]
    except KeyError:
        raise ValueError(written) from None


def _is_text(value: object, low: int, high: int) -> bool:
    # Printable text has no lone surrogates, so it can be encoded.
    return isinstance(value, str) and value.isprintable() and low <= len(value.encode()) <= high
