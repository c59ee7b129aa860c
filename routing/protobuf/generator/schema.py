"""Reads protoc's descriptors into the messages and fields that the emitter needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from betterproto2_compiler.compile.naming import pythonize_class_name, pythonize_field_name
from betterproto2_compiler.known_types import WRAPPED_TYPES
from betterproto2_compiler.lib.google.protobuf import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FieldDescriptorProtoLabel,
    FileDescriptorSet,
)


@dataclass(frozen=True, slots=True)
class Type:
    """A message or an enum: its package, its name in the proto, its class in Python."""

    package: str
    name: str

    @property
    def full_name(self) -> str:
        return f"{self.package}.{self.name}"

    @property
    def python(self) -> str:
        return pythonize_class_name(self.name)


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `kind` is protobuf's type name in lower case, with two exceptions.

    A map has the kind "map"; its `type` is the message of its entries, its `parts` are their key
    and value. A message that betterproto2 represents as a Python value (a Timestamp as a datetime)
    has its name in lower case as its kind. Fields of one oneof have the same `oneof`; a field with
    explicit presence is alone in its oneof, as protoc declares it.
    """

    name: str
    number: int
    kind: str
    type: Type | None
    repeated: bool
    oneof: int | None
    parts: "tuple[Field, ...]" = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One message, with its fields in the order of their numbers. `entry` marks a map's entry."""

    type: Type
    fields: tuple[Field, ...]
    entry: bool


def read_messages(descriptors: bytes) -> list[Message]:
    """All messages of a serialised FileDescriptorSet, which must include all imports."""
    declared = {
        f".{type_.full_name}": (type_, item)
        for file in FileDescriptorSet.parse(descriptors).file
        for type_, item in _walk(file.package, "", [*file.message_type, *file.enum_type])
    }
    return [
        _read_message(type_, item, declared)
        for type_, item in declared.values()
        if isinstance(item, DescriptorProto)
    ]


_Item = DescriptorProto | EnumDescriptorProto
_Declared = Mapping[str, tuple[Type, _Item]]


def _walk(package: str, prefix: str, items: Sequence[_Item]) -> Iterator[tuple[Type, _Item]]:
    for item in items:
        name = f"{prefix}{item.name}"
        yield Type(package, name), item
        if isinstance(item, DescriptorProto):
            yield from _walk(package, f"{name}.", [*item.nested_type, *item.enum_type])


def _is_entry(item: DescriptorProto) -> bool:
    return item.options is not None and item.options.map_entry


def _read_message(type_: Type, item: DescriptorProto, declared: _Declared) -> Message:
    return Message(type_, _read_fields(item, declared), _is_entry(item))


def _read_fields(item: DescriptorProto, declared: _Declared) -> tuple[Field, ...]:
    fields = sorted(item.field, key=lambda field: field.number)
    return tuple(_read_field(field, declared) for field in fields)


def _read_field(field: FieldDescriptorProto, declared: _Declared) -> Field:
    type_, item = declared.get(field.type_name, (None, None))
    kind = str(field.type.name).lower()
    parts: tuple[Field, ...] = ()
    if type_ is not None and (type_.package, type_.name) in WRAPPED_TYPES:
        kind = type_.name.lower()
    elif isinstance(item, DescriptorProto) and _is_entry(item):
        kind, parts = "map", _read_fields(item, declared)
    return Field(
        name=pythonize_field_name(field.name),
        number=field.number,
        kind=kind,
        type=type_,
        repeated=field.label == FieldDescriptorProtoLabel.REPEATED and kind != "map",
        oneof=field.oneof_index,
        parts=parts,
    )
