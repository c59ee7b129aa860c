"""Protobuf's wire format: what the generated codecs in gen/routing_pb are built from.

How a generated decoder reads. `data` is the whole message received; `pos` points
at the current tag, `end` behind the last byte of the message at hand, which may be
a part of `data`. Every step moves `pos` forward and none looks at `end`: a piece
that is longer than its message carries `pos` past `end`, where the loop stops and
`malformed` is raised, and past the end of `data` Python raises IndexError. Nothing
read on the way survives. So the one comparison at the end replaces one at each step.

A message is refused if and only if google's protobuf refuses it, which
tests/wire/test_codec.py checks, with three exceptions. A Timestamp that no datetime can hold
is refused, and so is a message of more than MAX_FIELDS fields; and field number 0, which
google lets pass in messages that declare no field at all, is refused everywhere.
"""

import math
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from routing.errors import BadMessage

MAX_DEPTH: Final = 100
"""Messages and groups inside each other. Protobuf's own limit in every language: a
smaller one refuses what others send, a larger one lets a few bytes deepen our stack."""

MAX_FIELDS: Final = 410_000
"""Fields in one message, at any depth. A field may take as little as two bytes and
become an object of more than a hundred, so that 4 MiB could ask for 300 MB and hold
the event loop for seconds; this many take less than half a second and 100 MB. A Struct
spends four on each entry: 100,000 of them, and the message around, still fit. A tag of
more than one byte counts as one field more, and so do every four bytes of a number, since
they are read byte by byte: a message of nothing else took a second."""

_BYTES_LIKE_A_FIELD: Final = 4

SIZES: Final = tuple(bytes((size,)) for size in range(128))
"""The sizes that take one byte, encoded; longer ones go through `write_varint`."""

_CUT_SHORT: Final = "it is cut short"
_VARINT_BYTES: Final = 10
_SIZE_BYTES: Final = 5
_FIXED_BYTES: Final = {1: 8, 5: 4}
_MAX_TAG: Final = 2**32 - 1
_MAX_SIZE: Final = 2**31 - 1
_MASK_64: Final = 2**64 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

read_double: Final = struct.Struct("<d").unpack_from
write_double: Final = struct.Struct("<d").pack

new: Final = object.__new__
"""A message without its constructor, which costs more than all of its fields: the
decoders set every attribute themselves."""


class MessageCodec(NamedTuple):
    """What `routing generate` emits for one message: its full name and the two ways."""

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[..., Any]


def decode_message(codec: MessageCodec, data: bytes) -> Any:
    """The message in these bytes, all of them; raises BadMessage."""
    try:
        return codec.decode(data, 0, len(data), MAX_DEPTH)
    except (IndexError, struct.error):
        raise BadMessage(_CUT_SHORT) from None
    except UnicodeDecodeError:
        raise BadMessage("it holds a string that is not UTF-8") from None


def malformed(pos: int, end: int) -> BadMessage:
    """Why a message does not end where it should: a tag of 0, or a piece too long."""
    return BadMessage(_CUT_SHORT if pos > end else f"field number 0 at byte {pos}")


def too_deep() -> BadMessage:
    """What a message nested deeper than MAX_DEPTH is refused with."""
    return BadMessage(f"it is nested deeper than {MAX_DEPTH} levels")


def read_varint(data: bytes, pos: int, longest: int = _VARINT_BYTES) -> tuple[int, int]:
    """The unsigned number at `pos`, its low 64 bits, and the position behind it.

    Needless leading zeros are fine up to `longest` bytes. Each byte takes back, by the
    -1, the bit with which the one before it said that more follows.
    """
    value = data[pos]
    if value < 128:
        return value, pos + 1
    for at in range(1, longest):
        byte = data[pos + at]
        value += byte - 1 << 7 * at
        if byte < 128:
            return value & _MASK_64, pos + at + 1
    raise BadMessage(f"a number of more than {longest} bytes at byte {pos}")


def read_int64(data: bytes, pos: int) -> tuple[int, int]:
    """The signed number at `pos`, in two's complement."""
    value, pos = read_varint(data, pos)
    return value - (value >> 63 << 64), pos


def read_int32(data: bytes, pos: int) -> tuple[int, int]:
    """The signed number at `pos`; of a longer one the low 32 bits, as protobuf does."""
    value, pos = read_varint(data, pos)
    value &= 2**32 - 1
    return value - (value >> 31 << 32), pos


def read_size(data: bytes, pos: int) -> tuple[int, int]:
    """The length of a string, of bytes or of a message."""
    value, pos = read_varint(data, pos, _SIZE_BYTES)
    if value > _MAX_SIZE:
        raise BadMessage(f"a length of {value:,} bytes at byte {pos}")
    return value, pos


def read_tag(data: bytes, pos: int) -> tuple[int, int]:
    """A tag of more than one byte, and the position of its last byte.

    The position is what a decoder's `pos` is for a tag of one byte, so that a known
    field whose tag has needless zeros is read like any other.
    """
    tag, pos = read_varint(data, pos, _SIZE_BYTES)
    if tag > _MAX_TAG:
        raise BadMessage(f"field number {tag >> 3} at byte {pos - 1}")
    return tag, pos - 1


def skip_field(tag: int, data: bytes, pos: int, depth: int) -> int:
    """The position behind an unknown field, whose tag ends at `pos`.

    A group is skipped as a whole, with field number 0 in it where google skips that
    too. Groups inside count as levels, but are walked in a loop, `open_groups`
    holding the end tags that are due.
    """
    if tag < 8:
        raise BadMessage(f"field number 0 at byte {pos}")
    open_groups: list[int] = []
    while True:
        kind = tag & 7
        pos += 1
        if kind == 0:
            _, pos = read_varint(data, pos)
        elif kind == 1:
            pos += 8
        elif kind == 2:
            size, pos = read_size(data, pos)
            pos += size
        elif kind == 5:
            pos += 4
        elif kind == 3:
            open_groups.append(tag + 1)
            if len(open_groups) > depth:
                raise too_deep()
        elif not open_groups or tag != open_groups.pop():
            raise BadMessage(f"an end of a group that is not open, or wire type {kind}, at byte {pos - 1}")
        if not open_groups:
            return pos
        tag = data[pos]
        if tag > 127:
            tag, pos = read_tag(data, pos)


def check_field_count(data: bytes, children: Mapping[str, Mapping[int, str]], name: str, limit: int) -> None:
    """Raises BadMessage if the message of this full name has more than `limit` fields.

    `children` tells for each message which tags hold messages, and of which name; ""
    stands for packed numbers, each byte of which counts. The walk takes what is malformed
    as the end, for the decoder to say what is wrong; and it looks at no byte twice, which
    it would if a message could reach past the end of the one around it.
    """
    count = 0
    rest = [(0, len(data), name)]
    try:
        while rest:
            pos, end, name = rest.pop()
            inner = children.get(name, {})
            while pos < end:
                count += 1
                tag = data[pos]
                if tag > 127:
                    tag, pos = read_tag(data, pos)
                    count += 1
                kind = tag & 7
                pos += 1
                if kind == 2:
                    size = data[pos]
                    pos += 1
                    if size > 127:
                        size, pos = read_size(data, pos - 1)
                    child = inner.get(tag)
                    if child == "":
                        count += size
                    elif child and size:
                        rest.append((pos, min(pos + size, end), child))
                    pos += size
                elif kind == 0:
                    begin = pos
                    while data[pos] > 127:
                        pos += 1
                    pos += 1
                    count += (pos - begin) // _BYTES_LIKE_A_FIELD
                else:
                    pos += _FIXED_BYTES.get(kind, 0)
                if count > limit:
                    raise BadMessage(f"it has more than {limit:,} fields")
    except IndexError:
        return


def read_datetime(seconds: int, nanos: int) -> datetime:
    """A google.protobuf.Timestamp as the messages hold it: aware, UTC, in microseconds.

    What a datetime cannot hold is refused, though protobuf would let it pass: years
    before 1 and after 9999, and nanoseconds outside [0, 10⁹).
    """
    if not 0 <= nanos < 10**9:
        raise BadMessage(f"a timestamp with {nanos:,} nanoseconds")
    try:
        return _EPOCH + timedelta(0, seconds, nanos // 1000)
    except OverflowError:
        raise BadMessage(f"a timestamp of {seconds:,} seconds, outside the years 1 to 9999") from None


def write_datetime(value: datetime) -> bytes:
    """The google.protobuf.Timestamp {1: seconds, 2: nanos} of an aware time."""
    offset = value - _EPOCH
    seconds = offset.days * 86_400 + offset.seconds
    out = b"\x08" + write_varint(seconds) if seconds else b""
    return out + b"\x10" + write_varint(offset.microseconds * 1000) if offset.microseconds else out


def write_varint(value: int) -> bytes:
    """The number as protobuf writes it; a negative one as its 64-bit complement."""
    if value < 0:
        value += 2**64
    out = []
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_int64(value: int) -> bytes:
    """As `write_varint`; ValueError for what 64 bits cannot hold."""
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{value} does not fit into an int64")
    return write_varint(value)


def write_int32(value: int) -> bytes:
    """As `write_varint`; ValueError for what 32 bits cannot hold."""
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{value} does not fit into an int32")
    return write_varint(value)


def is_negative_zero(value: float) -> bool:
    """Whether this is -0.0, which equals the default 0.0 and yet is sent, as google does."""
    return value == 0 and math.copysign(1.0, value) < 0
