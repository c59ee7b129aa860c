"""The contract's tables of RPCs and fields, against what we serve."""

import asyncio
from importlib import resources
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from routing.core.model import Backend
from support.contract_world import world
from support.grpc_calls import ROUTING, BareCall, framed

PACKAGE = "ipfs_kit_py.routing"

RPCS = {
    "SelectBackend": ("SelectBackendRequest", "SelectBackendResponse", False),
    "RecordOutcome": ("RecordOutcomeRequest", "RecordOutcomeResponse", False),
    "GetInsights": ("GetInsightsRequest", "GetInsightsResponse", False),
    "StreamMetrics": ("StreamMetricsRequest", "MetricsUpdate", True),
}

FIELDS = {
    "SelectBackendRequest": "1: content_hash string · 2: content_type string · 3: content_size int64 ·"
    " 4: metadata Struct · 5: strategy string · 6: priority string ·"
    " 7: available_backends repeated string · 8: client_location GeoLocation ·"
    " 9: request_id string · 10: timestamp Timestamp",
    "SelectBackendRequest.GeoLocation": "1: latitude double · 2: longitude double · 3: region string",
    "SelectBackendResponse": "1: backend_id string · 2: score double · 3: factor_scores Struct ·"
    " 4: alternatives repeated Alternative · 5: request_id string · 6: timestamp Timestamp",
    "SelectBackendResponse.Alternative": "1: backend_id string · 2: score double",
    "RecordOutcomeRequest": "1: backend_id string · 2: success bool · 3: content_hash string ·"
    " 4: content_type string · 5: content_size int64 · 6: duration_ms int32 · 7: error string ·"
    " 8: timestamp Timestamp · 9: request_id string",
    "RecordOutcomeResponse": "1: success bool · 2: message string · 3: timestamp Timestamp",
    "GetInsightsRequest": "1: backend_id string · 2: content_type string · 3: time_window_hours int32",
    "GetInsightsResponse": "1: factor_weights Struct · 2: backend_scores Struct ·"
    " 3: backend_success_rates Struct · 4: content_type_distribution Struct ·"
    " 5: backend_usage_stats Struct · 6: latency_stats Struct · 7: timestamp Timestamp",
    "StreamMetricsRequest": "1: update_interval_seconds int32 · 2: metrics_types repeated string ·"
    " 3: include_backends bool · 4: include_content_types bool",
    "MetricsUpdate": "1: metrics Struct · 2: status SystemStatus · 3: timestamp Timestamp",
}

SCALARS = {"double": 1, "int64": 3, "int32": 5, "bool": 8, "string": 9}
MESSAGE, ENUM = 11, 14


def compiled() -> Any:
    data = resources.files("routing_pb").joinpath("descriptors.bin").read_bytes()
    return next(
        file for file in descriptor_pb2.FileDescriptorSet.FromString(data).file if file.package == PACKAGE
    )


def message_named(name: str, messages: Any) -> Any:
    first, _, rest = name.partition(".")
    found = next(message for message in messages if message.name == first)
    return message_named(rest, found.nested_type) if rest else found


def test_service_and_methods_have_their_names() -> None:
    """proto3, package `ipfs_kit_py.routing`, service `RoutingService`"""
    file = compiled()
    (service,) = file.service
    assert (file.syntax, service.name) == ("proto3", "RoutingService")
    found = {
        each.name: (
            each.input_type.removeprefix(f".{PACKAGE}."),
            each.output_type.removeprefix(f".{PACKAGE}."),
            each.server_streaming,
        )
        for each in service.method
    }
    assert RPCS.items() <= found.items()
    assert not any(each.client_streaming for each in service.method)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_have_their_numbers_names_and_types(name: str) -> None:
    """Names, field numbers and types below are fixed"""
    fields = {field.number: field for field in message_named(name, compiled().message_type).field}
    for row in FIELDS[name].split(" · "):
        number, _, described = row.partition(": ")
        field = fields[int(number)]
        label = "repeated " if field.label == field.LABEL_REPEATED else ""
        kind = next((word for word, type_ in SCALARS.items() if type_ == field.type), None)
        assert f"{field.name} {label}{kind or field.type_name.rpartition('.')[2]}" == described


def test_the_status_has_its_numbers() -> None:
    """NORMAL = 0 · WARNING = 1 · CRITICAL = 2"""
    (status,) = message_named("MetricsUpdate", compiled().message_type).enum_type
    assert status.name == "SystemStatus"
    assert {value.name: value.number for value in status.value} == {"NORMAL": 0, "WARNING": 1, "CRITICAL": 2}


def first_schema() -> descriptor_pool.DescriptorPool:
    """The contract's tables and nothing that was added since, as google protobuf compiles them."""
    file = compiled()
    for name, rows in FIELDS.items():
        message = message_named(name, file.message_type)
        numbers = {int(row.partition(":")[0]) for row in rows.split(" · ")} - (
            {9} if name == "RecordOutcomeRequest" else set()
        )
        kept = [field for field in message.field if field.number in numbers]
        del message.field[:]
        message.field.extend(kept)
    data = resources.files("routing_pb").joinpath("descriptors.bin").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for imported in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        if imported.name.startswith("google/"):
            pool.Add(imported)
    pool.Add(file)
    return pool


async def test_a_client_of_the_first_schema_works_unmodified() -> None:
    """a client generated from any earlier copy of the schema must work unmodified"""
    pool = first_schema()

    def kind(name: str) -> Any:
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))

    requests = {
        "SelectBackend": {"contentHash": "h", "metadata": {}, "contentSize": 5, "clientLocation": {}},
        "RecordOutcome": {"backendId": "s3", "success": True, "contentHash": "h", "durationMs": 7},
        "GetInsights": {},
        "StreamMetrics": {"includeBackends": True},
    }  # fmt: skip
    async with world(Backend(id="s3")) as server:
        for method, fields in requests.items():
            taken, given, _ = RPCS[method]
            request = json_format.ParseDict(fields, kind(taken)())
            call = await BareCall(server.channel).start(f"{ROUTING}/{method}")
            await call.send(framed(request.SerializeToString()), end=True)
            async with asyncio.timeout(10):
                response = await call.message(kind(given), parse="FromString")
            assert response.HasField("timestamp")
            assert method != "SelectBackend" or response.backend_id == "s3"
            assert method != "RecordOutcome" or response.success
