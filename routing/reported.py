"""Insights and metrics as the bytes of their responses, without the messages in between.

The short way to what `convert.write_insights` and `convert.write_metrics` and the codec make
in two steps, byte for byte. A report about a thousand backends is fifteen thousand numbers,
and by content type a quarter of a million: as messages, three objects each. The field
numbers of Struct and Value are written out here; they are google.protobuf's, and fixed.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Set
from itertools import chain
from math import isfinite
from struct import Struct
from typing import Any

from routing import wire
from routing.core.report import Insights, Metrics
from routing.decided import Names, sized

ENTRIES_IN_A_STEP = 4_000
"""Entries of a Struct that are written before others have their turn: about a millisecond."""

ROWS = ("backend_usage_stats", "latency_stats")
"""Fields of a GetInsightsResponse that have a row for each backend, all with the same keys."""

Steps = Generator[None, None, bytes]
"""Work in steps of some milliseconds, with the bytes at its end."""

_number: Callable[[float], bytes] = Struct("<d").pack
_codec = wire.Codec()


class StructWriter:
    """JSON-like values as the bytes of a google.protobuf.Struct.

    State: what precedes a number, by its key; at most MAX_NAMES keys.
    """

    def __init__(self) -> None:
        self._begin = Names(_begin_of_number)

    def steps(self, values: Mapping[str, Any]) -> Steps:
        """All of it, in steps; a mapping inside is read in one of them, and may change before.

        Raises what `wire.write_struct` raises.
        """
        parts = []
        entries = 0
        for key, held in list(values.items()):
            parts.append(self._entry(key, held, wire.MAX_STRUCT_DEPTH))
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


class ReportWriter:
    """The responses of GetInsights and StreamMetrics."""

    def __init__(self) -> None:
        self._structs = StructWriter()
        self._insights = {name: _tag(wire.GetInsightsResponse, name) for name in Insights.__slots__}
        self._metrics = _tag(wire.MetricsUpdate, "metrics")
        # {field of Insights whose rows are alike: their writer}, once the first row has come.
        self._rows: dict[str, RowsWriter] = {}

    def insights(self, insights: Insights, *, now: float) -> Steps:
        """What `write_insights` says, encoded, in steps."""
        parts = []
        for name, tag in self._insights.items():
            values = getattr(insights, name)
            if name in ROWS and values:
                body = self._rows_of(name, values).write(values)
            else:
                body = yield from self._structs.steps(values)
            parts.append(tag + sized(body))
        rest = wire.GetInsightsResponse(timestamp=wire.write_time(now))
        return b"".join(parts) + _codec.encode(rest, wire.GetInsightsResponse)

    def _rows_of(self, name: str, values: Mapping[str, Mapping[str, float]]) -> RowsWriter:
        found = self._rows.get(name)
        if found is None:
            found = self._rows[name] = RowsWriter(next(iter(values.values())))
        return found

    def metrics(self, metrics: Metrics, *, now: float) -> bytes:
        """What `write_metrics` says, encoded."""
        rest = wire.MetricsUpdate(
            status=wire.MetricsUpdateSystemStatus(int(metrics.status)), timestamp=wire.write_time(now)
        )
        body = finished(self._structs.steps(metrics.values))
        return self._metrics + sized(body) + _codec.encode(rest, wire.MetricsUpdate)


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


def _tag(message_type: type, field: str) -> bytes:
    """What precedes the size of this field, which is a Struct."""
    return _codec.encode(message_type(**{field: wire.Struct()}), message_type)[:-1]


def _check(depth: int) -> None:
    if depth == 0:
        raise ValueError(f"values nested deeper than {wire.MAX_STRUCT_DEPTH} levels")
