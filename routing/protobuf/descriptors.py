"""Indexes a compiled schema for reflection: which file declares which symbol.

`routing generate` stores protoc's FileDescriptorSet beside the generated code. Reflection serves its
files unchanged, byte for byte; this module reads only their names and imports, by the few field
numbers of descriptor.proto that lead to them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from routing.protobuf.wireformat import read_varint

_NAME, _PACKAGE, _DEPENDENCY = 1, 2, 3


@dataclass(frozen=True, slots=True)
class _Declaration:
    """A descriptor message: {field number: kind} of the declarations inside it.

    Each has its name in field 1. Enum values are siblings of their enum, as in C++; all other
    declarations are scoped by the one around them.
    """

    parts: Mapping[int, str]
    opens_scope: bool = True


_DECLARATIONS: Final[Mapping[str, _Declaration]] = MappingProxyType(
    {
        "file": _Declaration({4: "message", 5: "enum", 6: "service", 7: "field"}),
        "message": _Declaration({2: "field", 3: "message", 4: "enum", 6: "field", 8: "oneof"}),
        "enum": _Declaration({2: "value"}, opens_scope=False),
        "service": _Declaration({2: "method"}),
        "field": _Declaration({}),
        "oneof": _Declaration({}),
        "value": _Declaration({}),
        "method": _Declaration({}),
    }
)


class Schema:
    """The files of a FileDescriptorSet, by name and by the symbols that they declare."""

    def __init__(self, descriptor_set: bytes) -> None:
        self._files: dict[str, bytes] = {}
        self._imports: dict[str, tuple[str, ...]] = {}
        self._declared: dict[str, tuple[str, str]] = {}
        for _, data in _fields(descriptor_set):  # the only field of a set: its files
            self._add(data)

    @property
    def services(self) -> tuple[str, ...]:
        """Full names of the services, sorted."""
        return tuple(sorted(name for name, (kind, _) in self._declared.items() if kind == "service"))

    def file_declaring(self, symbol: str) -> str | None:
        """The file that declares a fully qualified name of any kind."""
        return self._declared[symbol][1] if symbol in self._declared else None

    def is_message(self, symbol: str) -> bool:
        """Whether a message type has this fully qualified name."""
        return symbol in self._declared and self._declared[symbol][0] == "message"

    def with_imports(self, file: str) -> list[bytes] | None:
        """The file and its transitive imports; None for a file that is not in the set."""
        if file not in self._files:
            return None
        names = [file]
        for name in names:  # grows during the loop
            names += [imported for imported in self._imports[name] if imported not in names]
        return [self._files[name] for name in names]

    def _add(self, data: bytes) -> None:
        fields = [(number, value.decode()) for number, value in _fields(data) if number <= _DEPENDENCY]
        texts = dict(fields)
        file = texts[_NAME]
        self._files[file] = data
        self._imports[file] = tuple(value for number, value in fields if number == _DEPENDENCY)
        for symbol, kind in _declarations(data, "file", texts.get(_PACKAGE, "")):
            self._declared[symbol] = kind, file


def _declarations(data: bytes, kind: str, scope: str) -> Iterator[tuple[str, str]]:
    """(fully qualified name, kind) of everything declared in a descriptor."""
    parts = _DECLARATIONS[kind].parts
    for number, part in _fields(data):
        if number in parts:
            name = next(value.decode() for number, value in _fields(part) if number == _NAME)
            full_name = f"{scope}.{name}" if scope else name
            yield full_name, parts[number]
            inner = full_name if _DECLARATIONS[parts[number]].opens_scope else scope
            yield from _declarations(part, parts[number], inner)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, value) of the strings and messages in a descriptor.

    The other fields of descriptor.proto are varints, which are skipped.
    """
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        value, at = read_varint(data, at)
        if tag & 7 == 2:  # length-delimited: the number is the length
            yield tag >> 3, data[at : at + value]
            at += value
