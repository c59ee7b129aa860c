"""Reflection as the official client asks, in both versions, and each question by itself."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from routing_pb.grpc.reflection.v1 import (
    ExtensionRequest,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServerReflectionStub,
)

from routing import wire
from routing.rpc.calls import Calls
from routing.rpc.reflection import Reflection, ReflectionAlpha, compiled_schema
from support.grpc_calls import BareCall, framed, in_memory, on_a_socket, until

ROUTING = "ipfs_kit_py.routing"


@pytest.fixture
def calls() -> Calls:
    return Calls(wire.Codec())


async def answers(calls: Calls, *questions: ServerReflectionRequest) -> list[ServerReflectionResponse]:
    async with in_memory(calls, Reflection(compiled_schema())) as channel:
        return [each async for each in ServerReflectionStub(channel).server_reflection_info(questions)]


async def answer(calls: Calls, **question: Any) -> ServerReflectionResponse:
    (only,) = await answers(calls, ServerReflectionRequest(**question))
    return only


def files_in(response: Any) -> list[str]:
    found = response.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(data).name for data in found]


async def test_services_are_listed(calls: Calls) -> None:
    response = await answer(calls, list_services="")
    assert [each.name for each in response.list_services_response.service] == [*compiled_schema().services]


async def test_a_file_comes_with_what_it_imports(calls: Calls) -> None:
    assert files_in(await answer(calls, file_by_filename="routing.proto")) == [
        "routing.proto",
        "google/protobuf/struct.proto",
        "google/protobuf/timestamp.proto",
    ]


@pytest.mark.parametrize(
    "symbol",
    [
        f"{ROUTING}.RoutingService",
        f"{ROUTING}.RoutingService.SelectBackend",
        f"{ROUTING}.SelectBackendRequest",
        f"{ROUTING}.SelectBackendRequest.GeoLocation",
        f"{ROUTING}.SelectBackendRequest.content_hash",
        f"{ROUTING}.MetricsUpdate.SystemStatus",
        f"{ROUTING}.MetricsUpdate.CRITICAL",
    ],
)
async def test_a_symbol_leads_to_its_file(calls: Calls, symbol: str) -> None:
    assert files_in(await answer(calls, file_containing_symbol=symbol))[0] == "routing.proto"


async def test_a_message_type_has_no_extensions(calls: Calls) -> None:
    name = f"{ROUTING}.SelectBackendRequest"
    response = await answer(calls, all_extension_numbers_of_type=name)
    assert response.all_extension_numbers_response.base_type_name == name
    assert response.all_extension_numbers_response.extension_number == []


@pytest.mark.parametrize(
    ("question", "code", "words"),
    [
        ({"file_by_filename": "mail.proto"}, 5, "'mail.proto' is not a file"),
        ({"file_containing_symbol": "mail.Box"}, 5, "'mail.Box' is not declared"),
        ({"file_containing_extension": ExtensionRequest("mail.Box", 7)}, 5, "'mail.Box', number 7"),
        ({"all_extension_numbers_of_type": "mail.Box"}, 5, "'mail.Box' is not a message"),
        ({"all_extension_numbers_of_type": f"{ROUTING}.RoutingService"}, 5, "is not a message"),
        ({}, 3, "expected one of file_by_filename,"),
    ],
)
async def test_what_cannot_be_answered_is_an_error_that_ends_no_stream(
    calls: Calls, question: dict[str, Any], code: int, words: str
) -> None:
    refused, listed = await answers(
        calls, ServerReflectionRequest(**question), ServerReflectionRequest(list_services="*")
    )
    assert refused.error_response.error_code == code
    assert words in refused.error_response.error_message
    assert listed.list_services_response is not None


async def test_an_answer_carries_its_question(calls: Calls) -> None:
    response = await answer(calls, host="h", file_by_filename="mail.proto")
    assert response.valid_host == "h"
    assert response.original_request == ServerReflectionRequest(host="h", file_by_filename="mail.proto")


async def test_a_question_that_does_not_parse_ends_the_stream_with_a_status(calls: Calls) -> None:
    async with in_memory(calls, Reflection(compiled_schema())) as channel:
        call = await BareCall(channel).start("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        await call.send(framed(bytes(ServerReflectionRequest(list_services=""))))
        await call.message(ServerReflectionResponse)
        await call.send(framed(b"\x0a\x01\xff"), end=True)
        assert (await call.status())[0] == 3


async def test_a_drain_ends_a_stream_that_asks_nothing(calls: Calls) -> None:
    async with in_memory(calls, Reflection(compiled_schema())) as channel:
        call = await BareCall(channel).start("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        await until(lambda: calls.open == 1)
        await calls.drain()
        assert (await call.status())[0] == 14


async def test_the_official_client_rebuilds_the_service_from_the_server(calls: Calls) -> None:
    def explore(address: str) -> tuple[list[str], list[str]]:
        with grpc.insecure_channel(address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            pool = descriptor_pool.DescriptorPool(database)
            service = pool.FindServiceByName(f"{ROUTING}.RoutingService")
            assert service.methods_by_name["StreamMetrics"].output_type.name == "MetricsUpdate"
            return sorted(database.get_services()), [method.name for method in service.methods]

    schema = compiled_schema()
    async with on_a_socket(calls, Reflection(schema), ReflectionAlpha(schema)) as address:
        services, methods = await asyncio.to_thread(explore, address)
    assert services == [*schema.services]
    assert methods == ["SelectBackend", "RecordOutcome", "GetInsights", "StreamMetrics"]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_both_versions_give_the_same_answers(calls: Calls, version: str) -> None:
    """The messages of the two are the same bytes, so one set of classes reads both."""
    schema = compiled_schema()

    async def ask() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(
            host="h", file_containing_symbol=f"{ROUTING}.MetricsUpdate"
        )
        yield reflection_pb2.ServerReflectionRequest(
            file_containing_extension=reflection_pb2.ExtensionRequest(containing_type="x", extension_number=1)
        )

    async with (
        on_a_socket(calls, Reflection(schema), ReflectionAlpha(schema)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        found, missing = [response async for response in call(ask())]
    assert files_in(found)[0] == "routing.proto"
    assert found.original_request.host == "h"
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert missing.original_request.file_containing_extension.containing_type == "x"


def test_the_older_version_has_the_path_of_the_official_stub() -> None:
    (path,) = ReflectionAlpha(compiled_schema()).__mapping__()
    service = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
    assert path == f"/{service.full_name}/ServerReflectionInfo"
    assert hasattr(reflection_pb2_grpc, "ServerReflectionStub")
