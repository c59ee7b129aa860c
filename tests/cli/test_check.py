"""`routing check` finds a server that does what the contract says to be so, and any other not."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.testing import ChannelFor
from routing_pb.grpc.reflection import v1

from routing import wire
from routing.cli.check import CHECKS, CONTENT_TYPE, Finding, Probe, examine
from routing.client import RoutingClient
from routing.config.load import load
from routing.errors import InvalidArgument
from routing.rpc.reflection import Reflection, compiled_schema
from routing.rpc.service import RoutingService
from routing.server.assembly import Assembly, assemble

NAMES = [name for name, _ in CHECKS]


@asynccontextmanager
async def probing(channel: Channel, timeout_s: float = 10.0) -> AsyncIterator[Probe]:
    async with RoutingClient(channel, retries=0, timeout_seconds=timeout_s) as client:
        yield Probe(client, channel, timeout_s)


async def findings_of(channel: Channel, timeout_s: float = 10.0) -> list[Finding]:
    async with probing(channel, timeout_s) as probe:
        return [finding async for finding in examine(probe)]


async def examined(
    service: type[RoutingService] = RoutingService, *, but: Callable[[Assembly], Any] = lambda assembly: None
) -> dict[str, Finding]:
    """The findings about a server in memory that has this service, after something was done to it."""
    assembly = assemble(load(), random=random.Random(0))
    served = service(assembly.router, assembly.store, clock=time.time, version="0.1.0")
    rest = but(assembly) or assembly.servables[1:]
    async with ChannelFor([assembly.calls.wrap(served), *rest], codec=assembly.codec) as channel:
        return {finding.name: finding for finding in await findings_of(channel)}


async def test_a_server_that_keeps_the_contract_passes_every_check() -> None:
    findings = await examined()
    assert list(findings) == NAMES
    assert [finding.said for finding in findings.values() if not finding.passed] == []


async def test_a_check_leaves_one_decision_and_one_outcome_that_can_be_told_apart() -> None:
    assembly = assemble(load(), random=random.Random(0))
    async with ChannelFor(assembly.servables, codec=assembly.codec) as channel, probing(channel) as probe:
        async for _ in examine(probe):
            pass
        left = await probe.client.insights()
    assert [usage.request_count for usage in left.backend_usage_stats.values()] == [1]
    assert [usage.outcome_count for usage in left.backend_usage_stats.values()] == [1]
    assert list(left.content_type_distribution) == [CONTENT_TYPE]


ANSWERS = {
    "get_insights": wire.GetInsightsResponse,
    "select_backend": wire.SelectBackendResponse,
    "stream_metrics": wire.MetricsUpdate,
}


def as_message(method: str, answer: Any) -> Any:
    """An answer that can be changed: the service gives most of them as bytes."""
    return wire.Codec().decode(answer, ANSWERS[method]) if isinstance(answer, bytes) else answer


def late(answer: Any) -> None:
    answer.timestamp = wire.write_time(time.time() + 3600)


def with_factors(**scores: float) -> Callable[[Any], None]:
    def change(answer: wire.SelectBackendResponse) -> None:
        answer.factor_scores = wire.write_struct(wire.read_struct(answer.factor_scores) | scores)

    return change


def setting(**fields: Any) -> Callable[[Any], None]:
    def change(answer: Any) -> None:
        for name, value in fields.items():
            setattr(answer, name, value)

    return change


SPOILED = [
    ("get_insights", late, "GetInsights", "timestamp: the server's clock is +3,"),
    (
        "get_insights",
        setting(factor_weights=wire.write_struct({"cost": 0.9})),
        "GetInsights",
        "factor_weights sum to 0.900000; expected 1",
    ),
    ("select_backend", late, "SelectBackend", "timestamp: the server's clock is +3,"),
    ("select_backend", setting(request_id="other"), "SelectBackend", "request_id: 'other' came back"),
    ("select_backend", setting(backend_id=""), "SelectBackend", "backend_id is empty"),
    ("select_backend", setting(score=0.001), "SelectBackend", "not ordered by score"),
    ("select_backend", with_factors(cost=1.5), "SelectBackend", "a score lies outside [0, 1]"),
    ("select_backend", with_factors(cost=0.5 + 1e-4), "score", "factor_scores × factor_weights"),
    ("select_backend", with_factors(luck=1.0), "score", "factors: scored"),
    ("record_outcome", late, "RecordOutcome", "timestamp: the server's clock is +3,"),
    ("record_outcome", setting(success=False, message="full"), "RecordOutcome", "not recorded: full"),
    ("get_insights", setting(backend_usage_stats=None), "recorded", "GetInsights has no usage of s3"),
]


@pytest.mark.parametrize(("method", "spoil", "name", "reason"), SPOILED)
async def test_what_is_off_is_named(
    method: str, spoil: Callable[[Any], None], name: str, reason: str
) -> None:
    async def handler(self: RoutingService, message: Any) -> Any:
        answer = as_message(method, await getattr(RoutingService, method)(self, message))
        spoil(answer)
        return answer

    findings = await examined(type("Spoiled", (RoutingService,), {method: handler}))
    assert not findings[name].passed
    assert reason in findings[name].said


async def test_an_outcome_that_the_insights_do_not_count_is_noticed() -> None:
    class Forgetful(RoutingService):
        async def record_outcome(self, message: wire.RecordOutcomeRequest) -> wire.RecordOutcomeResponse:
            return wire.RecordOutcomeResponse(True, "recorded", wire.write_time(time.time()))

    findings = await examined(Forgetful)
    assert findings["RecordOutcome"].passed
    assert findings["recorded"].said == "GetInsights does not count the outcome of s3"


async def test_a_decision_that_the_insights_do_not_count_is_noticed() -> None:
    class Forgetful(RoutingService):
        async def get_insights(self, message: wire.GetInsightsRequest) -> wire.GetInsightsResponse:
            answer: wire.GetInsightsResponse = as_message("get_insights", await super().get_insights(message))
            usage = wire.read_struct(answer.backend_usage_stats)
            for each in usage.values():
                each["request_count"] = 0
            answer.backend_usage_stats = wire.write_struct(usage)
            return answer

    assert (await examined(Forgetful))["recorded"].said == "GetInsights does not count the decision for s3"


async def test_a_server_that_takes_any_strategy_is_noticed() -> None:
    class Credulous(RoutingService):
        async def select_backend(self, message: wire.SelectBackendRequest) -> wire.SelectBackendResponse:
            message.strategy = ""
            return await super().select_backend(message)

    assert "an unknown strategy was taken" in (await examined(Credulous))["refusal"].said


async def test_what_depends_on_a_failed_check_says_so_and_the_rest_is_tried() -> None:
    class Closed(RoutingService):
        async def select_backend(self, message: wire.SelectBackendRequest) -> wire.SelectBackendResponse:
            raise KeyError("a fault of our own")

    findings = await examined(Closed)
    assert findings["SelectBackend"].said.startswith("INTERNAL")
    for name in ("score", "RecordOutcome", "recorded"):
        assert findings[name].said == "not tried, because SelectBackend failed"
    assert findings["health Watch"].passed
    assert "lacks" not in findings["StreamMetrics"].said


async def test_without_insights_the_score_cannot_be_checked() -> None:
    class Closed(RoutingService):
        async def get_insights(self, message: wire.GetInsightsRequest) -> wire.GetInsightsResponse:
            raise KeyError("a fault of our own")

    findings = await examined(Closed)
    for name in ("score", "recorded"):
        assert findings[name].said == "not tried, because GetInsights failed"


async def test_a_stream_without_its_sections_is_noticed() -> None:
    class Bare(RoutingService):
        async def stream_metrics(
            self, message: wire.StreamMetricsRequest
        ) -> AsyncIterator[wire.MetricsUpdate]:
            yield wire.MetricsUpdate(timestamp=wire.write_time(time.time()))

    assert "lacks the sections" in (await examined(Bare))["StreamMetrics"].said


async def test_a_server_that_is_not_serving_is_noticed() -> None:
    findings = await examined(but=lambda assembly: assembly.health.set_serving(False))
    for name in ("health Check", "health Watch"):
        assert "NOT_SERVING" in findings[name].said


async def test_a_refusal_that_does_not_name_the_field_is_noticed() -> None:
    class Curt(RoutingService):
        async def select_backend(self, message: wire.SelectBackendRequest) -> wire.SelectBackendResponse:
            if message.strategy:
                raise InvalidArgument("request", "this one", "another one")
            return await super().select_backend(message)

    assert "the message does not name the field" in (await examined(Curt))["refusal"].said


async def test_a_stream_that_does_not_count_is_noticed() -> None:
    class Forgetful(RoutingService):
        async def stream_metrics(
            self, message: wire.StreamMetricsRequest
        ) -> AsyncIterator[wire.MetricsUpdate]:
            async for encoded in super().stream_metrics(message):
                update = as_message("stream_metrics", encoded)
                sections = wire.read_struct(update.metrics)
                sections["system"]["outcomes_total"] = 0
                update.metrics = wire.write_struct(sections)
                yield update

    assert "does not count the calls" in (await examined(Forgetful))["StreamMetrics"].said


@pytest.mark.parametrize(
    ("field", "answer", "reason"),
    [
        ("list_services_response", v1.ListServiceResponse([]), "list_services lacks grpc.health.v1.Health, "),
        ("list_services_response", None, "list_services was answered with something else"),
        ("file_descriptor_response", None, "no file contains the symbol ipfs_kit_py.routing.RoutingService"),
        (
            "file_descriptor_response",
            v1.FileDescriptorResponse([b"SelectBackend GetInsights"]),
            "the schema lacks RecordOutcome, StreamMetrics",
        ),
    ],
)
async def test_a_schema_that_is_not_ours_is_noticed(field: str, answer: object, reason: str) -> None:
    class Foreign(Reflection):
        async def server_reflection_info(
            self, messages: AsyncIterator[v1.ServerReflectionRequest]
        ) -> AsyncIterator[v1.ServerReflectionResponse]:
            async for response in super().server_reflection_info(messages):
                if getattr(response, field) is not None:
                    setattr(response, field, answer)
                yield response

    def instead(assembly: Assembly) -> list[Any]:
        _, health, _, alpha = assembly.servables
        return [health, assembly.calls.wrap(Foreign(compiled_schema())), alpha]

    findings = await examined(but=instead)
    assert findings["reflection v1"].said.startswith(reason)
    assert findings["reflection v1alpha"].passed


async def test_a_server_without_reflection_is_noticed_for_each_version() -> None:
    findings = await examined(but=lambda assembly: assembly.servables[1:3])
    assert findings["reflection v1"].passed
    assert not findings["reflection v1alpha"].passed


async def test_a_connection_that_never_comes_about_is_given_up_after_the_timeout() -> None:
    class Nowhere(Channel):
        async def __connect__(self) -> Any:
            await asyncio.Event().wait()

    [finding] = await findings_of(Nowhere(codec=wire.Codec()), timeout_s=0.05)
    assert finding.said == "no answer in time"


@asynccontextmanager
async def peer(answer: bytes) -> AsyncIterator[Channel]:
    """A channel to something that listens and is no gRPC server."""

    hung_up = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    channel = Channel("127.0.0.1", server.sockets[0].getsockname()[1], codec=wire.Codec())
    try:
        yield channel
        channel.close()
        await hung_up.wait()
    finally:
        server.close()


async def test_where_nothing_listens_one_finding_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        [finding] = await findings_of(Channel("127.0.0.1", taken.getsockname()[1], codec=wire.Codec()))
    assert (finding.name, finding.passed) == (NAMES[0], False)
    assert "Connect call failed" in finding.said


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_peer_that_speaks_no_grpc_is_given_up_after_the_timeout(answer: bytes) -> None:
    async with peer(answer) as channel:
        [finding] = await findings_of(channel, timeout_s=0.05)
    assert finding.said == "no answer in time"
