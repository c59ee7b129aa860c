"""Google's protobuf as the judge of our codec: its classes, made-up messages, mutations, comparison.

Everything random comes from the `random.Random` that is handed in, so that a seed
brings back any case. The tests try some hundreds; run by itself, it tries many:

    python tests/support/differential.py 300000          # mutated messages, of all kinds
    python tests/support/differential.py 300000 1000000  # others: seeds from here on
"""

import keyword
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from routing_pb.codec import CODECS

from routing.errors import BadMessage
from routing.protobuf.wireformat import MessageCodec, decode_message

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def google_classes() -> dict[str, type[Message]]:
    """{full name: google's class} for every message that we have a codec for."""
    data = resources.files("routing_pb").joinpath("descriptors.bin").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    names = sorted(codec.name for codec in CODECS.values())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}


GOOGLE = google_classes()
OURS: Mapping[str, MessageCodec] = {codec.name: codec for codec in CODECS.values()}
CLASSES: Mapping[str, type] = {codec.name: cls for cls, codec in CODECS.items()}

_TEXTS = ("", "a", "s3", "Zürich", "\0", "𝄞" * 3, "x" * 127, "y" * 128, "z" * 300)
_NUMBERS = (0, 1, -1, 5, 127, 128, 300, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63), 1_700_000_000)
_DOUBLES = (0.0, -0.0, 1.0, 0.25, 1e300, 5e-324, math.inf, -math.inf, math.nan)


def _scalar(rng: random.Random, field: FieldDescriptor) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return rng.choice(_TEXTS)
        case FieldDescriptor.TYPE_BYTES:
            return rng.choice(_TEXTS).encode()
        case FieldDescriptor.TYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.TYPE_DOUBLE:
            return rng.choice(_DOUBLES)
        case FieldDescriptor.TYPE_INT32 | FieldDescriptor.TYPE_ENUM:
            return rng.choice([number for number in _NUMBERS if -(2**31) <= number < 2**31])
        case FieldDescriptor.TYPE_INT64:
            return rng.choice(_NUMBERS)
    raise AssertionError(f"no made-up value for {field.full_name}")


def fill(rng: random.Random, message: Message, depth: int = 4) -> Message:
    """The message with each field, in about half of the cases, given some value."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        message.seconds = rng.choice((0, -1, 1, 1_700_000_000, -62_135_596_800, 253_402_300_799))
        message.nanos = rng.choice((0, 1, 999, 1000, 123_456_789, 999_999_999))
        return message
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.5:
            _fill_field(rng, message, field, depth)
    return message


def _fill_field(rng: random.Random, message: Message, field: FieldDescriptor, depth: int) -> None:
    held = getattr(message, field.name)
    if is_map(field):
        key, value = field.message_type.fields
        for _ in range(rng.randrange(4) if depth else 0):
            if value.message_type:
                fill(rng, held[_scalar(rng, key)], depth - 1)
            else:
                held[_scalar(rng, key)] = _scalar(rng, value)
    elif field.is_repeated and field.message_type:
        for _ in range(rng.randrange(4) if depth else 0):
            fill(rng, held.add(), depth - 1)
    elif field.is_repeated:
        held.extend(_scalar(rng, field) for _ in range(rng.randrange(4)))
    elif field.message_type:
        if depth:
            held.SetInParent()
            fill(rng, held, depth - 1)
    else:
        setattr(message, field.name, _scalar(rng, field))


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def varint(value: int, padding: int = 0) -> bytes:
    """The number in its shortest form, or with `padding` needless bytes."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    for _ in range(padding):
        out[-1] |= 128
        out.append(0)
    return bytes(out)


def _some_field(rng: random.Random) -> bytes:
    """One field of any number and wire type, known or not, with some content."""
    number = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 2047, 2**29 - 1, 2**29))
    kind = rng.randrange(8)
    tag = varint(number << 3 | kind, rng.choice((0, 0, 0, 0, 1, 4, 5)))
    inner = _some_field(rng) if rng.random() < 0.3 else rng.choice(_TEXTS).encode()
    content = {
        0: varint(rng.choice((0, 1, 127, 128, 2**32, 2**64 - 1, 2**70 - 1)), rng.choice((0, 0, 0, 1, 8, 9))),
        1: rng.randbytes(8),
        2: varint(len(inner), rng.choice((0, 0, 0, 0, 1, 4, 5))) + inner,
        3: (inner if rng.random() < 0.5 else b"") + varint(number << 3 | 4),
        5: rng.randbytes(4),
    }
    return tag + content.get(kind, b"")


def _cut(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randrange(1, 12))


def _replace(rng: random.Random, data: bytes, piece: Callable[[bytes], bytes]) -> bytes:
    start, stop = _cut(rng, data)
    return data[:start] + piece(data[start:stop]) + data[stop:]


MUTATIONS: Sequence[Callable[[random.Random, bytes, bytes], bytes]] = (
    lambda rng, data, other: data[: rng.randrange(len(data) + 1)],
    lambda rng, data, other: _replace(rng, data, lambda piece: b""),
    lambda rng, data, other: _replace(rng, data, lambda piece: piece * 2),
    lambda rng, data, other: _replace(
        rng, data, lambda piece: bytes(rng.choice((0, 1, 127, 128, 255)) for _ in piece)
    ),
    lambda rng, data, other: _replace(
        rng, data, lambda piece: bytes([piece[0] ^ 1 << rng.randrange(8)]) + piece[1:] if piece else b""
    ),
    lambda rng, data, other: _replace(rng, data, lambda piece: _some_field(rng) + piece),
    lambda rng, data, other: _replace(rng, data, lambda piece: rng.randbytes(rng.randrange(1, 4)) + piece),
    lambda rng, data, other: _some_field(rng) + data,
    lambda rng, data, other: data + _some_field(rng),
    lambda rng, data, other: data + data,
    lambda rng, data, other: data + other,
    lambda rng, data, other: data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :],
    lambda rng, data, other: (
        rng.choice((b"\x0a", b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x32")) + varint(len(data)) + data
    ),
    lambda rng, data, other: b"\x7b" + data + b"\x7c",
)


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The message with one to three of the mutations done to it."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(MUTATIONS)(rng, data, other)
    return data


def parsed(name: str, data: bytes) -> Message | None:
    """What google makes of these bytes; None if it refuses them."""
    try:
        return GOOGLE[name].FromString(data)
    except DecodeError:
        return None


def disagreement(name: str, data: bytes) -> str:
    """How we and google differ about these bytes; "" if not at all.

    Two things are not counted. Google parses timestamps that no datetime can hold. And
    in a message that declares no fields it takes field number 0 for an unknown field,
    which the encoding does not know and which it refuses in every other message.
    """
    theirs = parsed(name, data)
    try:
        ours = decode_message(OURS[name], data)
    except BadMessage as error:
        if theirs is None or ("timestamp" in error.message and not times_fit(theirs)):
            return ""
        if "field number 0" in error.message and not theirs.DESCRIPTOR.fields:
            return ""
        return f"we refuse what google parses: {error.message}"
    if theirs is None:
        return "we parse what google refuses"
    if not times_fit(theirs):
        return "we parse a time that no datetime holds"
    if difference := compare(ours, theirs):
        return difference
    written = OURS[name].encode(ours)
    if parsed(name, theirs.SerializeToString()) is None:
        return ""  # an entry without a value is written with one: a level more than was read
    back = GOOGLE[name].FromString(written)
    return compare(ours, back) and f"our bytes say something else: {compare(ours, back)}"


def times_fit(message: Message) -> bool:
    """Whether every Timestamp field in the message is one that a datetime can hold."""
    for field, value in message.ListFields():
        if field.message_type is None or is_map(field):
            continue
        if field.message_type.full_name == "google.protobuf.Timestamp":
            try:
                _time(value)
            except (OverflowError, ValueError):
                return False
    return True


def _time(timestamp: Any) -> datetime:
    if not 0 <= timestamp.nanos < 10**9:
        raise ValueError("nanos out of range")
    return EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)


def compare(ours: Any, theirs: Message) -> str:
    """Where our dataclass and google's message hold different values; "" if nowhere."""
    for field in theirs.DESCRIPTOR.fields:
        name = f"{field.name}_" if keyword.iskeyword(field.name) else field.name
        mine, value = getattr(ours, name), getattr(theirs, field.name)
        if field.has_presence and not theirs.HasField(field.name):
            difference = "" if mine is None else f"{mine!r} against nothing"
        elif is_map(field):
            difference = _compare_maps(field, mine, value)
        elif field.is_repeated:
            difference = f"{len(mine)} against {len(value)} items" if len(mine) != len(value) else ""
            difference = difference or next(filter(None, map(_compare_one(field), mine, value)), "")
        else:
            difference = _compare_one(field)(mine, value)
        if difference:
            return f"{field.name}: {difference}"
    return ""


def _compare_maps(field: FieldDescriptor, mine: Mapping[Any, Any], value: Mapping[Any, Any]) -> str:
    if mine.keys() != value.keys():
        return f"keys {sorted(mine)} against {sorted(value)}"
    held: Descriptor = field.message_type
    one = _compare_one(held.fields_by_name["value"])
    return next(filter(None, (one(mine[key], value[key]) for key in mine)), "")


def _compare_one(field: FieldDescriptor) -> Callable[[Any, Any], str]:
    if field.message_type is None:
        return lambda mine, value: "" if repr_of(mine) == repr_of(value) else f"{mine!r} against {value!r}"
    if field.message_type.full_name == "google.protobuf.Timestamp":
        return lambda mine, value: "" if mine == _time(value) else f"{mine} against {value}"
    return compare


def repr_of(value: Any) -> str:
    """Tells -0.0 from 0.0 and True from 1, and NaN from nothing else; enums are numbers."""
    return repr(int(value)) if isinstance(value, int) and not isinstance(value, bool) else repr(value)


def mutated(seed: int) -> tuple[str, bytes]:
    """The message and the bytes that this seed stands for."""
    rng = random.Random(seed)
    name, other = rng.choice(sorted(OURS)), rng.choice(sorted(OURS))
    data, more = (fill(rng, GOOGLE[one]()).SerializePartialToString() for one in (name, other))
    return name, mutate(rng, data, more)


def main() -> None:
    count, first = (int(word) for word in (*sys.argv[1:], "0")[:2])
    refused = 0
    for seed in range(first, first + count):
        name, data = mutated(seed)
        if difference := disagreement(name, data):
            sys.exit(f"seed {seed}, {name}, {data.hex()}: {difference}")
        refused += parsed(name, data) is None
    print(f"{count:,} messages, of which {refused:,} are refused by both: no disagreement")


if __name__ == "__main__":
    main()
