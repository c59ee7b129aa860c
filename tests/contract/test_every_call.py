"""Every call: what is malformed, too large, unknown, late or compressed gets a status of its own.

What holds of one method holds of all, so each is asked; how it comes about is tested
with calls.py.
"""

import gzip
from random import Random

import pytest
from grpclib.testing import ChannelFor
from routing_pb.grpc.health.v1 import HealthCheckRequest, HealthStub
from routing_pb.grpc.reflection.v1 import ServerReflectionRequest, ServerReflectionStub

from routing import wire
from routing.config.load import load
from routing.core.model import Backend
from routing.rpc.calls import Calls
from routing.server.assembly import assemble
from support.contract_world import NOON, world
from support.grpc_calls import ROUTING, BareCall, framed, in_memory, status_of

METHODS = ("SelectBackend", "RecordOutcome", "GetInsights", "StreamMetrics")

INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 3, 4, 8, 12

MALFORMED = {
    "a string longer than the message": b"\x0a\x05abc",
    "a length that does not end": b"\x0a\xff",
    "bytes that are not UTF-8": b"\x0a\x02\xff\xfe",
    "a tag that does not end": b"\xff\xff",
    "field number 0": b"\x00\x00",
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
async def test_a_message_that_does_not_parse_is_an_invalid_argument(method: str, data: bytes) -> None:
    """A message that does not parse … gets a gRPC error status of its own (INVALID_ARGUMENT …),
    never a dropped connection"""
    if method == "StreamMetrics" and data == MALFORMED["bytes that are not UTF-8"]:
        data = b"\x12\x02\xff\xfe"  # its field 1 is no string
    async with world(Backend(id="a")) as server:
        call = await BareCall(server.channel).start(f"{ROUTING}/{method}")
        await call.send(framed(data), end=True)
        assert (await call.status())[0] == INVALID_ARGUMENT
        assert (await server.select()).backend_id == "a"


@pytest.mark.parametrize("method", METHODS)
async def test_a_request_of_more_than_4_mib_is_refused(method: str) -> None:
    """a request of more than 4 MiB, gets a gRPC error status of its own (… RESOURCE_EXHAUSTED)"""
    async with world(Backend(id="a")) as server:
        call = await BareCall(server.channel).start(f"{ROUTING}/{method}")
        await call.send(framed(b"", length=4 * 2**20 + 1))
        assert (await call.status())[0] == RESOURCE_EXHAUSTED
        assert (await server.select()).backend_id == "a"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{ROUTING}/Select", UNIMPLEMENTED),
        ("/other.Service/SelectBackend", UNIMPLEMENTED),
        ("/", UNIMPLEMENTED),
    ],
)
async def test_an_unknown_method_is_unimplemented(path: str, status: int) -> None:
    """an unknown method gets UNIMPLEMENTED"""
    async with world(Backend(id="a")) as server:
        call = await (await BareCall(server.channel).start(path)).send(framed(b""), end=True)
        assert (await call.status())[0] == status


async def test_a_fault_of_the_servers_own_is_internal_without_internals() -> None:
    """a fault of the server's own gets INTERNAL with no internals in the message"""
    service = assemble(load(), random=Random(0), clock=lambda: 1 / 0).service
    async with in_memory(Calls(wire.Codec()), service) as channel:
        status = await status_of(wire.RoutingServiceStub(channel).select_backend(wire.SelectBackendRequest()))
    assert status == ("INTERNAL", "internal error")


async def test_a_deadline_is_honoured() -> None:
    """Deadlines and cancellation are honoured."""
    async with world(Backend(id="a")) as server:
        call = await BareCall(server.channel).start(f"{ROUTING}/StreamMetrics", ("grpc-timeout", "30m"))
        await call.send(framed(b""), end=True)
        assert (await call.status())[0] == DEADLINE_EXCEEDED
        await server.calls.wait_idle()


@pytest.mark.parametrize("method", METHODS)
async def test_a_compressed_request_is_refused_naming_identity(method: str) -> None:
    """Compressed requests are answered UNIMPLEMENTED, naming `identity`"""
    async with world(Backend(id="a")) as server:
        call = await BareCall(server.channel).start(f"{ROUTING}/{method}", ("grpc-encoding", "gzip"))
        await call.send(framed(gzip.compress(b""), compressed=1), end=True)
        code, message = await call.status()
    assert (code, "identity" in message) == (UNIMPLEMENTED, True)


def varint(value: int) -> bytes:
    data = bytearray()
    value %= 2**64
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def field(tag: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return bytes([tag]) + varint(len(data)) + data


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(253_402_300_799, 0), (253_402_300_800, INVALID_ARGUMENT), (-62_135_596_801, INVALID_ARGUMENT)],
)
async def test_a_year_10000_is_no_time(seconds: int, status: int) -> None:
    """(Generated clients may send … year-10000 timestamps …: each gets a status, not a traceback.)"""
    async with world(Backend(id="a")) as server:
        call = await BareCall(server.channel).start(f"{ROUTING}/SelectBackend")
        await call.send(framed(field(0x52, b"\x08" + varint(seconds))), end=True)
        assert (await call.status())[0] == status


@pytest.mark.parametrize(("levels", "status"), [(30, 0), (40, INVALID_ARGUMENT), (2_000, INVALID_ARGUMENT)])
async def test_structs_inside_each_other_are_read_as_deep_as_protobuf_reads_them(
    levels: int, status: int
) -> None:
    """(… and Structs nested 100 deep: protobuf itself reads 100 messages inside each other,
    and a Struct in a Struct is three: the Struct, its entry and the Value.)"""
    struct = b""
    for _ in range(levels):
        struct = field(0x0A, field(0x12, field(0x2A, struct)))
    async with world(Backend(id="a")) as server:
        call = await BareCall(server.channel).start(f"{ROUTING}/SelectBackend")
        await call.send(framed(field(0x22, struct)), end=True)
        assert (await call.status())[0] == status


async def test_fields_that_the_server_does_not_know_are_skipped() -> None:
    """(Additions are allowed: a newer client may send what this server has no name for.)"""
    async with world(Backend(id="a")) as server:
        call = await BareCall(server.channel).start(f"{ROUTING}/SelectBackend")
        unknown = b"\xf8\x07\x01" + b"\xfa\x07\x02hi" + b"\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4)
        await call.send(framed(unknown + bytes(wire.SelectBackendRequest(request_id="r"))), end=True)
        await call.headers()
        assert (await call.message(wire.SelectBackendResponse)).request_id == "r"


async def test_health_and_reflection_are_served() -> None:
    """The server also serves `grpc.health.v1.Health` and `grpc.reflection.v1` and
    `v1alpha.ServerReflection`."""
    assembly = assemble(load(), random=Random(0), clock=lambda: NOON)
    async with ChannelFor(assembly.servables, codec=assembly.codec) as channel:
        health = await HealthStub(channel).check(HealthCheckRequest("ipfs_kit_py.routing.RoutingService"))
        assert health.status.name == "SERVING"
        answers = ServerReflectionStub(channel).server_reflection_info(
            [ServerReflectionRequest(list_services="")]
        )
        listed = [each.name async for answer in answers for each in answer.list_services_response.service]
    served = {path.split("/")[1] for servable in assembly.servables for path in servable.__mapping__()}
    assert (
        served
        == set(listed)
        == {
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "ipfs_kit_py.routing.RoutingService",
        }
    )


async def test_without_a_config_file_three_backends_are_known() -> None:
    """Without a config file the server knows three backends, `ipfs`, `filecoin` and `s3`"""
    assembly = assemble(load(), random=Random(0), clock=lambda: NOON)
    async with ChannelFor(assembly.servables, codec=assembly.codec) as channel:
        insights = await wire.RoutingServiceStub(channel).get_insights(wire.GetInsightsRequest())
    assert wire.read_struct(insights.backend_scores).keys() == {"ipfs", "filecoin", "s3"}
