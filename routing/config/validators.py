"""What a setting may hold: the check, and the words that name what it expects.

A kind reads a value as TOML gives it, and turns the text of an environment
variable or a flag into such a value first.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from routing.errors import listed, shown

LARGEST_INT64 = (1 << 63) - 1
"""The largest size that the wire can carry."""

_LONGEST_SHOWN_BITS = 256
"""Python refuses to print integers of many thousand digits; TOML can hold them."""

_WORDS = MappingProxyType(
    {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
)

_MIME_PATTERN = re.compile(r"\*/\*|{name}/(\*|{name})".format(name=r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"))


_T = TypeVar("_T")


class Mismatch(Exception):
    """A value that is not of its kind; `at` leads to the part of it that is meant."""

    def __init__(self, expected: str, came: object, at: str = "") -> None:
        super().__init__(f"expected {expected}, got {seen(came)}")
        self.at = at


@dataclass(frozen=True, slots=True)
class Validator:
    """One kind of value. `read` answers with what the settings hold, or raises Mismatch;
    `parse` turns text into what `read` takes, or raises ValueError. `choices` is what
    may be written, where that is a closed set."""

    expected: str
    read: Callable[[object], Any]
    parse: Callable[[str], object] = str
    choices: tuple[str, ...] = ()
    switch: bool = False

    def read_text(self, written: str) -> Any:
        """The value that an environment variable or a flag spells."""
        try:
            value = self.parse(written)
        except ValueError:
            raise Mismatch(self.expected, written) from None
        return self.read(value)


def setting(default: _T, validator: Validator, help: str, metavar: str = "") -> _T:
    """A dataclass field that also carries its row of `options.OPTIONS`."""
    return field(default=default, metadata={"validator": validator, "help": help, "metavar": metavar})


def whole(low: int, high: int) -> Validator:
    """Whole numbers, both ends included."""
    return _checked(
        f"a whole number from {low:,} to {high:,}",
        lambda value: type(value) is int and low <= value <= high,
        parse=int,
    )


def number(low: float, high: float) -> Validator:
    """Numbers, whole or not, both ends included; never NaN or an infinity."""
    return _checked(
        f"a number from {low:,} to {high:,}",
        lambda value: type(value) in (int, float) and low <= value <= high,
        settle=float,
        parse=float,
    )


def switch() -> Validator:
    """true or false."""
    return _checked("true or false", lambda value: type(value) is bool, parse=_word, switch=True)


def text(low: int, high: int) -> Validator:
    """Printable text of so many bytes in UTF-8."""
    length = f"{low:,} to {high:,} bytes of printable text"
    return _checked(length, lambda value: _is_text(value, low, high))


def matching(pattern: str, expected: str) -> Validator:
    """Text of which the whole matches a regular expression; `expected` tells people so."""
    form = re.compile(pattern)
    return _checked(expected, lambda value: isinstance(value, str) and form.fullmatch(value) is not None)


def one_of(*choices: str) -> Validator:
    """One of a few words, as they are written."""
    return _checked(f"one of {listed(choices)}", lambda value: value in choices, choices=choices)


def names(most: int, longest: int) -> Validator:
    """A list of names, held as a set."""
    return _checked(
        f"a list of at most {most:,} names of 1 to {longest:,} bytes",
        lambda value: (
            isinstance(value, list)
            and len(value) <= most
            and all(_is_text(name, 1, longest) for name in value)
        ),
        settle=frozenset,
    )


def affinities(most: int) -> Validator:
    """A table of MIME patterns to scores in [0, 1], held in lower case as requests are."""
    expected = f'a table of at most {most:,} MIME patterns such as "image/*" to numbers from 0 to 1'
    score = number(0, 1)

    def read(value: object) -> Mapping[str, float]:
        if not isinstance(value, dict) or len(value) > most:
            raise Mismatch(expected, value)
        scores: dict[str, float] = {}
        for pattern, given in value.items():
            if not _MIME_PATTERN.fullmatch(pattern):
                raise Mismatch('a MIME pattern: "type/subtype", "type/*" or "*/*"', pattern)
            if pattern.lower() in scores:
                raise Mismatch("each MIME pattern once, in whatever case", pattern)
            try:
                scores[pattern.lower()] = score.read(given)
            except Mismatch:
                raise Mismatch(score.expected, given, at=f'."{pattern}"') from None
        return MappingProxyType(scores)

    return Validator(expected, read)


def seen(value: object) -> str:
    """The value in short, as a message may show it: TOML's word for it where that is brief."""
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
    settle: Callable[[Any], Any] = lambda value: value,
    **more: Any,
) -> Validator:
    def read(value: object) -> Any:
        if not fits(value):
            raise Mismatch(expected, value)
        return settle(value)

    return Validator(expected, read, **more)


def _word(written: str) -> bool:
    try:
        return _WORDS[written.strip().lower()]
    except KeyError:
        raise ValueError(written) from None


def _is_text(value: object, low: int, high: int) -> bool:
    # What is printable has no lone surrogate, so it encodes.
    return isinstance(value, str) and value.isprintable() and low <= len(value.encode()) <= high
