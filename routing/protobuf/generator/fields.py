"""The emitted code that reads and writes one field: a row of KINDS for each kind of field.

A field without a row is refused by name, so no wrong code is emitted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from textwrap import indent

from routing.errors import RoutingError
from routing.protobuf.generator.schema import Field, Message

_LARGEST_NUMBER = 15
"""The largest field number whose tag is one byte; decoders compare single bytes."""

_RESERVED_NAMES = frozenset(
    {"complete", "data", "depth", "end", "entries", "into", "message", "pos", "size", "stop", "tag", "value"}
)
"""Names of a decoder's own variables; a field of such a name is suffixed with "_"."""


@dataclass(frozen=True, slots=True)
class FieldKind:
    """Code templates for the fields of one protobuf type.

    `read` computes the value from data[pos:stop] (wire type 2), from the bytes at pos + 1 (wire
    type 1), or from the varint `value` (wire type 0), which `read_long` reads if it has more than
    one byte. `write` computes the bytes after the tag (and the size, in wire type 2). `is_set` is
    the condition under which a value without presence is sent.
    """

    wire: int
    default: str
    read: str
    write: str
    read_long: str = ""
    is_set: str = "value := {whole}"
    repeats: bool = True


def _integer(bits: int, default: str = "0", read: str = "value") -> FieldKind:
    write = f"(SIZES[value] if 0 <= value < 128 else write_int{bits}(value))"
    return FieldKind(0, default, read, write, f"read_int{bits}")


_READ_MESSAGE = "decode_{type}(data, pos, stop, depth - 1{into})"

KINDS: Mapping[str, FieldKind] = {
    "bool": FieldKind(0, "False", "value != 0", "SIZES[value]", "read_varint"),
    "int32": _integer(32),
    "int64": _integer(64),
    "enum": _integer(32, default="{type}(0)", read="{type}(value)"),
    "double": FieldKind(
        wire=1,
        default="0.0",
        read="read_double(data, pos + 1)[0]",
        write="write_double(value)",
        is_set="(value := {whole}) or is_negative_zero(value)",
        repeats=False,
    ),
    "string": FieldKind(2, '""', "data[pos:stop].decode()", "value.encode()"),
    "bytes": FieldKind(2, 'b""', "data[pos:stop]", "value"),
    "message": FieldKind(2, "None", _READ_MESSAGE, "encode_{type}(value)"),
    "timestamp": FieldKind(2, "None", _READ_MESSAGE, "write_datetime(value)", repeats=False),
    "map": FieldKind(2, "{{}}", "_read_{type}(data, pos, stop, depth - 1, {local})", ""),
}

_READ: Mapping[int, str] = {
    0: """\
{loop} tag == {tag}:  # {name}
    value = data[pos + 1]
    pos += 2
    if value > 127:
        value, pos = {read_long}(data, pos - 1)
    {store}
    tag = data[pos] if pos < end else 0
""",
    1: """\
{loop} tag == {tag}:  # {name}
    {store}
    pos += 9
    tag = data[pos] if pos < end else 0
""",
    2: """\
{loop} tag == {tag}:  # {name}
    size = data[pos + 1]
    pos += 2
    if size > 127:
        size, pos = read_size(data, pos - 1)
    stop = pos + size
    {store}
    pos = stop
    tag = data[pos] if pos < end else 0
""",
}

_READ_PACKED = """\
while tag == {packed_tag}:  # {name}, packed
    size, pos = read_size(data, pos + 1)
    stop = pos + size
    while pos < stop:
        value = data[pos]
        pos += 1
        if value > 127:
            value, pos = {read_long}(data, pos - 1)
        {store}
    if pos != stop:
        raise malformed(pos, stop)
    tag = data[pos] if pos < end else 0
"""

_SIZED = "{tag!r} + (SIZES[size] if size < 128 else write_varint(size)) + body"


def refuse_unknown(message: Message, *, merged: bool) -> None:
    """Raises RoutingError for the first field that has no correct templates."""
    for field in message.fields:
        row = KINDS.get(field.kind)
        reasons = {
            f"its kind, {field.kind}, has no row in KINDS": row is None,
            f"its number is above {_LARGEST_NUMBER}": field.number > _LARGEST_NUMBER,
            f"a repeated {field.kind} is not supported": field.repeated
            and row is not None
            and not row.repeats,
            "a timestamp in a message that may arrive in pieces": field.kind == "timestamp" and merged,
        }
        for reason in (reason for reason, holds in reasons.items() if holds):
            raise RoutingError(f"no codec can be emitted for {message.type.full_name}.{field.name}: {reason}")


def tags(message: Message) -> dict[int, Field]:
    """{tag that the decoder compares: its field}."""
    found = {tag(field): field for field in message.fields}
    return found | {_packed_tag(field): field for field in message.fields if packable(field)}


def tag(field: Field) -> int:
    return field.number << 3 | KINDS[field.kind].wire


def packable(field: Field) -> bool:
    """Whether this is a list of numbers, which may arrive one by one or packed."""
    return field.repeated and KINDS[field.kind].wire != 2


def _packed_tag(field: Field) -> int:
    return field.number << 3 | 2


def local(field: Field) -> str:
    """The decoder's variable for the field."""
    return f"{field.name}_" if field.name in _RESERVED_NAMES else field.name


def default(field: Field) -> str:
    if field.repeated:
        return "[]"
    return "None" if field.oneof is not None else KINDS[field.kind].default.format(type=_class(field))


def finished(field: Field) -> str:
    """The value to store in the dataclass: the decoder's variable, converted for a Timestamp."""
    if field.kind != "timestamp":
        return local(field)
    return f"None if {local(field)} is None else read_datetime({local(field)}.seconds, {local(field)}.nanos)"


def reading(field: Field, others: Iterable[Field]) -> str:
    """The decoder's link for one field; it clears the `others` of its oneof."""
    row, name = KINDS[field.kind], local(field)
    into = "" if field.repeated else f", {name}"
    read = row.read.format(type=_class(field), into=into, local=name)
    store = (
        read if field.kind == "map" else f"{name}.append({read})" if field.repeated else f"{name} = {read}"
    )
    if unset := " = ".join(map(local, others)):
        store += f"\n    {unset} = None"
    template = _READ[row.wire] + (_READ_PACKED if packable(field) else "")
    return template.format(
        loop="while" if field.repeated or field.kind == "map" else "if",
        tag=tag(field),
        packed_tag=_packed_tag(field),
        name=field.name,
        read_long=row.read_long,
        store=store,
    )


def writing(field: Field, *, otherwise: bool) -> str:
    """The encoder's lines for one field. `otherwise` if it is in a oneof with the previous field."""
    row, whole = KINDS[field.kind], f"message.{field.name}"
    if packable(field):
        numbers = f'body = b"".join([{row.write} for value in {whole}])\nsize = len(body)\n'
        sized = _SIZED.format(tag=bytes([_packed_tag(field)]))
        return f"if {whole}:\n{indent(numbers, '    ')}    out += {sized}"
    if field.repeated or field.kind == "map":
        each = f"for key, held in {whole}.items():" if field.kind == "map" else f"for value in {whole}:"
        body = indent(_piece(field, "parts.append({})"), " " * 8)
        return f'if {whole}:\n    parts = []\n    {each}\n{body}\n    out += b"".join(parts)'
    present = field.oneof is not None or row.default == "None"
    is_set = f"(value := {whole}) is not None" if present else row.is_set.format(whole=whole)
    return f"{'elif' if otherwise else 'if'} {is_set}:\n{indent(_piece(field, 'out += {}'), '    ')}"


def _piece(field: Field, put: str) -> str:
    """The lines that write one `value` after its tag; in a map, a `key` and the `held` value."""
    row, start = KINDS[field.kind], bytes([tag(field)])
    if row.wire != 2:
        return put.format(f"{start!r} + {row.write}")
    sized = put.format(_SIZED.format(tag=start))
    if field.parts:
        key, held = field.parts
        parts = ["value = key", _piece(key, "entry = {}"), "value = held", _piece(held, "body = entry + {}")]
        return "\n".join([*parts, "size = len(body)", sized])
    return f"body = {row.write.format(type=_class(field))}\nsize = len(body)\n{sized}"


def _class(field: Field) -> str:
    return field.type.python if field.type else ""
