"""Encodes JSON-like values as a google.protobuf.Struct directly, without messages.

A report about a thousand backends is fifteen thousand numbers, and by content type a quarter of a
million; as messages, each is three objects. The tags of Struct and Value are literals here, since
google.protobuf never changes them.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Set
from itertools import chain
from math import isfinite
from struct import Struct
from typing import Any

from routing.protobuf.wireformat import SIZES, write_varint
from routing.wire.values import MAX_STRUCT_DEPTH

ENTRIES_IN_A_STEP = 4_000
"""Entries of a Struct that are encoded without yielding to other calls: about a millisecond."""


Steps = Generator[None, None, bytes]
"""An encoding in steps of about a millisecond each; the generator returns the bytes."""


_number: Callable[[float], bytes] = Struct("<d").pack


class StructWriter:
    """Encodes JSON-like values as a google.protobuf.Struct.

    State: {key: the bytes before a number}, for at most MAX_NAMES keys.
    """

    def __init__(self) -> None:
        self._prefixes = PrefixCache(_number_prefix)

    def steps(self, values: Mapping[str, Any]) -> Steps:
        """Encodes the values in steps. A nested mapping is read in one step, and may change before it.

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

    def entry(self, key: str, held: Any) -> bytes:
        """Encodes one entry of a Struct: the bytes of a Struct are those of its entries, joined."""
        return self._entry(key, held, MAX_STRUCT_DEPTH)

    def _entry(self, key: str, held: Any, depth: int) -> bytes:
        kind = type(held)
        if (kind is float or kind is int) and isfinite(held):
            return self._prefixes[key] + _number(held)
        return b"\n" + sized(b"\n" + sized(key.encode()) + b"\x12" + sized(self._value(held, depth)))

    def _mapping(self, values: Mapping[str, Any], depth: int) -> bytes:
        _check_depth(depth)
        prefixes, entry = self._prefixes, self._entry
        # Repeats the fast case of `_entry`: nearly all values of a report are numbers in such a mapping.
        return b"".join(
            [
                prefixes[key] + _number(held)
                if (type(held) is float or type(held) is int) and isfinite(held)
                else entry(key, held, depth)
                for key, held in values.items()
            ]
        )

    def _sequence(self, values: Iterable[Any], depth: int) -> bytes:
        _check_depth(depth)
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
    """Encodes a Struct of rows that all have the same keys and only finite numbers, each row with one
    call of `struct.pack`.

    State: {name of a row: the bytes before it}, for at most MAX_NAMES names.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = tuple(keys)
        self._key_prefixes = [_number_prefix(key) for key in self.keys]
        self._pack = Struct("<" + "".join(f"{len(piece)}sd" for piece in self._key_prefixes)).pack
        size = sum(len(piece) + 8 for piece in self._key_prefixes)
        self._prefixes = PrefixCache(lambda name: _struct_prefix(name, size))

    def write(self, rows: Mapping[str, Mapping[str, float]]) -> bytes:
        """Encodes all rows; their keys must be in the order of `keys`."""
        prefixes, key_prefixes, pack = self._prefixes, self._key_prefixes, self._pack
        return b"".join(
            [
                prefixes[name] + pack(*chain.from_iterable(zip(key_prefixes, row.values(), strict=True)))
                for name, row in rows.items()
            ]
        )


def finished(steps: Steps) -> bytes:
    """Runs all steps at once and returns the bytes."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bytes(end.value)


def _number_prefix(key: str) -> bytes:
    name = b"\n" + sized(key.encode())
    # The Value follows: its tag and size, the tag of the number, and the number's eight bytes.
    return b"\n" + sized(name + b"\x12\x09\x11" + bytes(8))[:-8]


def _struct_prefix(key: str, size: int) -> bytes:
    """The bytes before a nested Struct of `size` bytes, as an entry of another Struct."""
    held = b"*" + sized(bytes(size))
    return (b"\n" + sized(b"\n" + sized(key.encode()) + b"\x12" + sized(held)))[:-size]


def _check_depth(depth: int) -> None:
    if depth == 0:
        raise ValueError(f"values nested deeper than {MAX_STRUCT_DEPTH} levels")


MAX_NAMES = 4_096
"""Entries of one PrefixCache, about 1 MB at most; a full cache is cleared. More backends than that
are rare: the default of `max_backends` is 1,024."""


class PrefixCache(dict[str, bytes]):
    """{name: the constant bytes before the value of that name}, computed when first needed."""

    def __init__(self, compute: Callable[[str], bytes]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, name: str) -> bytes:
        if len(self) >= MAX_NAMES:
            self.clear()
        prefix = self[name] = self._compute(name)
        return prefix


def sized(body: bytes) -> bytes:
    """The bytes, preceded by their number as a varint."""
    size = len(body)
    return (SIZES[size] if size < 128 else write_varint(size)) + body
