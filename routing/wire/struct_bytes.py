"""JSON-like values as the bytes of a google.protobuf.Struct, without the messages in between.

A report about a thousand backends is fifteen thousand numbers, and by content type a quarter of a
million: as messages, three objects each. The field numbers of Struct and Value are written out here;
they are google.protobuf's, and fixed.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Set
from itertools import chain
from math import isfinite
from struct import Struct
from typing import Any

from routing.protobuf.wireformat import SIZES, write_varint
from routing.wire.values import MAX_STRUCT_DEPTH

ENTRIES_IN_A_STEP = 4_000
"""Entries of a Struct that are written before others have their turn: about a millisecond."""


Steps = Generator[None, None, bytes]
"""Work in steps of some milliseconds, with the bytes at its end."""


_number: Callable[[float], bytes] = Struct("<d").pack


class StructWriter:
    """JSON-like values as the bytes of a google.protobuf.Struct.

    State: what precedes a number, by its key; at most MAX_NAMES keys.
    """

    def __init__(self) -> None:
        self._begin = Names(_begin_of_number)

    def steps(self, values: Mapping[str, Any]) -> Steps:
        """All of it, in steps; a mapping inside is read in one of them, and may change before.

        Raises what `write_struct` raises.
        """
        parts = []
        entries = 0
        for key, held in list(values.items()):
            parts.append(self._entry(key, held, MAX_STRUCT_DEPTH))
            entries += len(held) if isinstance(held, Mapping) else 1
            if entries >= ENTRIES_IN_A_STEP:
                entries = 0
                yield
        return b"".join(parts)

    def _entry(self, key: str, held: Any, depth: int) -> bytes:
        kind = type(held)
        if (kind is float or kind is int) and isfinite(held):
            return self._begin[key] + _number(held)
        return b"\n" + sized(b"\n" + sized(key.encode()) + b"\x12" + sized(self._value(held, depth)))

    def _mapping(self, values: Mapping[str, Any], depth: int) -> bytes:
        _check(depth)
        begin, entry = self._begin, self._entry
        # As in `_entry`: nearly all that is in a report is a number in a mapping of numbers.
        return b"".join(
            [
                begin[key] + _number(held)
                if (type(held) is float or type(held) is int) and isfinite(held)
                else entry(key, held, depth)
                for key, held in values.items()
            ]
        )

    def _sequence(self, values: Iterable[Any], depth: int) -> bytes:
        _check(depth)
        return b"".join([b"\n" + sized(self._value(held, depth)) for held in values])

    def _value(self, held: Any, depth: int) -> bytes:
        if isinstance(held, str):
            return b"\x1a" + sized(held.encode())
        if isinstance(held, bool):
            return b"\x20\x01" if held else b"\x20\x00"
        if isinstance(held, (float, int)):
            if not isfinite(held):
                raise ValueError(f"{held} is not a number that a Struct can hold")
            return b"\x11" + _number(held)
        if held is None:
            return b"\x08\x00"
        if isinstance(held, Mapping):
            return b"*" + sized(self._mapping(held, depth - 1))
        if isinstance(held, list | tuple | Set):
            return b"2" + sized(self._sequence(held, depth - 1))
        raise TypeError(f"a Struct cannot hold a {type(held).__name__}")


class RowsWriter:
    """A Struct of rows that all have the same keys, and numbers that were counted: one packing
    for each row.

    State: what precedes a row, by its name; at most MAX_NAMES names.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = tuple(keys)
        self._between = [_begin_of_number(key) for key in self.keys]
        self._pack = Struct("<" + "".join(f"{len(piece)}sd" for piece in self._between)).pack
        size = sum(len(piece) + 8 for piece in self._between)
        self._begin = Names(lambda name: _begin_of_struct(name, size))

    def write(self, rows: Mapping[str, Mapping[str, float]]) -> bytes:
        """All rows, whose keys are in the order of `keys`."""
        begin, between, pack = self._begin, self._between, self._pack
        return b"".join(
            [
                begin[name] + pack(*chain.from_iterable(zip(between, row.values(), strict=True)))
                for name, row in rows.items()
            ]
        )


def finished(steps: Steps) -> bytes:
    """All steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bytes(end.value)


def _begin_of_number(key: str) -> bytes:
    name = b"\n" + sized(key.encode())
    # Behind it come a tag, a size, another tag, and the eight bytes of the number.
    return b"\n" + sized(name + b"\x12\x09\x11" + bytes(8))[:-8]


def _begin_of_struct(key: str, size: int) -> bytes:
    """What precedes the `size` bytes of a Struct, as an entry of another."""
    held = b"*" + sized(bytes(size))
    return (b"\n" + sized(b"\n" + sized(key.encode()) + b"\x12" + sized(held)))[:-size]


def _check(depth: int) -> None:
    if depth == 0:
        raise ValueError(f"values nested deeper than {MAX_STRUCT_DEPTH} levels")


MAX_NAMES = 4_096
"""Backends whose encoded names are remembered, about 1 MB at most; with more, all are
forgotten now and then. A limit of `max_backends` far above the default's 1,024 is rare."""


class Names(dict[str, bytes]):
    """What precedes a number, by the name that it belongs to."""

    def __init__(self, begin: Callable[[str], bytes]) -> None:
        super().__init__()
        self._begin = begin

    def __missing__(self, name: str) -> bytes:
        if len(self) >= MAX_NAMES:
            self.clear()
        begin = self[name] = self._begin(name)
        return begin


def sized(body: bytes) -> bytes:
    """The bytes behind their number."""
    size = len(body)
    return (SIZES[size] if size < 128 else write_varint(size)) + body
