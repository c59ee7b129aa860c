"""What is read of the compiled schema, against google's own reading of it."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from routing.protobuf.descriptors import Schema
from routing.rpc.reflection import compiled_schema

PROTO = descriptor_pb2.FileDescriptorProto(
    name="shop.proto",
    package="shop.v1",
    dependency=["base.proto"],
    message_type=[
        descriptor_pb2.DescriptorProto(
            name="Order",
            field=[descriptor_pb2.FieldDescriptorProto(name="lines", number=300, type=5, label=3)],
            oneof_decl=[descriptor_pb2.OneofDescriptorProto(name="payment")],
            nested_type=[
                descriptor_pb2.DescriptorProto(
                    name="Line",
                    nested_type=[descriptor_pb2.DescriptorProto(name="Note")],
                    enum_type=[
                        descriptor_pb2.EnumDescriptorProto(
                            name="Kind",
                            value=[descriptor_pb2.EnumValueDescriptorProto(name="GIFT", number=0)],
                        )
                    ],
                )
            ],
            extension=[descriptor_pb2.FieldDescriptorProto(name="inner", number=100, extendee=".base.Open")],
        )
    ],
    enum_type=[
        descriptor_pb2.EnumDescriptorProto(
            name="Colour", value=[descriptor_pb2.EnumValueDescriptorProto(name="RED", number=0)]
        )
    ],
    service=[
        descriptor_pb2.ServiceDescriptorProto(
            name="Till", method=[descriptor_pb2.MethodDescriptorProto(name="Pay")]
        )
    ],
    extension=[descriptor_pb2.FieldDescriptorProto(name="outer", number=101, extendee=".base.Open")],
)
BASE = descriptor_pb2.FileDescriptorProto(
    name="base.proto",
    dependency=["root.proto"],
    message_type=[descriptor_pb2.DescriptorProto(name="Bare")],
)
ROOT = descriptor_pb2.FileDescriptorProto(name="root.proto", package="root", syntax="proto3")


def serialised(*files: Any) -> bytes:
    return descriptor_pb2.FileDescriptorSet(file=files).SerializeToString()


@pytest.fixture
def schema() -> Schema:
    return Schema(serialised(PROTO, BASE, ROOT))


@pytest.mark.parametrize(
    "symbol",
    [
        "shop.v1.Order",
        "shop.v1.Order.lines",
        "shop.v1.Order.payment",
        "shop.v1.Order.Line",
        "shop.v1.Order.Line.Note",
        "shop.v1.Order.Line.Kind",
        "shop.v1.Order.Line.GIFT",
        "shop.v1.Order.inner",
        "shop.v1.Colour",
        "shop.v1.RED",
        "shop.v1.Till",
        "shop.v1.Till.Pay",
        "shop.v1.outer",
    ],
)
def test_every_kind_of_name_leads_to_its_file(schema: Schema, symbol: str) -> None:
    assert schema.file_declaring(symbol) == "shop.proto"


@pytest.mark.parametrize(
    "symbol", ["", "Order", "shop.v1", "shop.v1.Colour.RED", "shop.v1.Order.Line.Kind.GIFT"]
)
def test_what_is_not_declared_has_no_file(schema: Schema, symbol: str) -> None:
    assert schema.file_declaring(symbol) is None


def test_a_file_without_a_package_declares_bare_names(schema: Schema) -> None:
    assert schema.file_declaring("Bare") == "base.proto"


def test_only_messages_are_messages(schema: Schema) -> None:
    assert schema.is_message("shop.v1.Order.Line")
    assert not schema.is_message("shop.v1.Colour")
    assert not schema.is_message("shop.v1.Cart")


def test_services_are_listed_by_their_full_names(schema: Schema) -> None:
    assert schema.services == ("shop.v1.Till",)


def test_a_file_comes_with_all_that_it_imports(schema: Schema) -> None:
    assert schema.with_imports("shop.proto") == [each.SerializeToString() for each in (PROTO, BASE, ROOT)]
    assert schema.with_imports("root.proto") == [ROOT.SerializeToString()]
    assert schema.with_imports("shop") is None


def test_files_that_import_each_other_come_once() -> None:
    one = descriptor_pb2.FileDescriptorProto(name="one.proto", dependency=["two.proto"])
    two = descriptor_pb2.FileDescriptorProto(name="two.proto", dependency=["one.proto"])
    assert len(Schema(serialised(one, two)).with_imports("two.proto") or ()) == 2


def declared(message: Any) -> Iterator[str]:
    """All names that google's pool knows in a file or message."""
    for inner in (
        getattr(message, "message_types_by_name", None) or getattr(message, "nested_types_by_name", {})
    ).values():
        yield inner.full_name
        yield from (field.full_name for field in inner.fields)
        yield from declared(inner)
    for enum in message.enum_types_by_name.values():
        yield enum.full_name
        scope = enum.full_name.rpartition(".")[0]
        yield from (f"{scope}.{value.name}" for value in enum.values)


def test_googles_pool_finds_the_same_files_for_all_our_names() -> None:
    schema = compiled_schema()
    pool = descriptor_pool.DescriptorPool()
    files = schema.with_imports("routing.proto") or []
    for data in reversed(files):
        pool.AddSerializedFile(data)
    for name in ("routing.proto", "google/protobuf/struct.proto", "google/protobuf/timestamp.proto"):
        file = pool.FindFileByName(name)
        names = list(declared(file))
        names += [
            method.full_name for service in file.services_by_name.values() for method in service.methods
        ]
        assert len(names) >= 3
        assert {schema.file_declaring(each) for each in names} == {name}


def test_the_compiled_schema_declares_what_is_served() -> None:
    assert compiled_schema().services == (
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "ipfs_kit_py.routing.RoutingService",
    )
