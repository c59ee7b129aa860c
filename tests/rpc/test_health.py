"""grpc.health.v1 in memory, and as the official client sees it."""

from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpclib.testing import ChannelFor
from routing_pb.grpc.health.v1 import HealthCheckRequest, HealthListRequest, HealthStub

from routing import wire
from routing.rpc.calls import Calls
from routing.rpc.health import Health
from support.grpc_calls import in_memory, on_a_socket, status_of, until

SERVICE = "ipfs_kit_py.routing.RoutingService"


@pytest.fixture
def calls() -> Calls:
    return Calls(wire.Codec())


@pytest.fixture
def health() -> Health:
    return Health([SERVICE])


def watch(stub: HealthStub, service: str = SERVICE) -> AsyncIterator[object]:
    return stub.watch(HealthCheckRequest(service))


async def told(watching: AsyncIterator[object]) -> str:
    return str((await anext(watching)).status.name)  # type: ignore[attr-defined]


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_the_server_and_each_service_serve_until_said_otherwise(
    calls: Calls, health: Health, service: str
) -> None:
    async with in_memory(calls, health) as channel:
        stub = HealthStub(channel)
        assert (await stub.check(HealthCheckRequest(service))).status.name == "SERVING"
        health.set_serving(False)
        assert (await stub.check(HealthCheckRequest(service))).status.name == "NOT_SERVING"
        health.set_serving(True)
        assert (await stub.check(HealthCheckRequest(service))).status.name == "SERVING"


async def test_a_service_that_is_not_served_is_not_found(calls: Calls, health: Health) -> None:
    async with in_memory(calls, health) as channel:
        status = await status_of(HealthStub(channel).check(HealthCheckRequest("mail")))
    assert status == ("NOT_FOUND", f"service: 'mail' is not served; served are {SERVICE}")


async def test_the_list_names_every_service_and_the_server(calls: Calls, health: Health) -> None:
    health.set_serving(False)
    async with in_memory(calls, health) as channel:
        response = await HealthStub(channel).list(HealthListRequest())
    assert {name: each.status.name for name, each in response.statuses.items()} == {
        "": "NOT_SERVING",
        SERVICE: "NOT_SERVING",
    }


async def test_a_watch_reports_the_status_at_once_and_at_every_change(calls: Calls, health: Health) -> None:
    async with in_memory(calls, health) as channel:
        watching = watch(HealthStub(channel))
        assert await told(watching) == "SERVING"
        for serving, name in [(False, "NOT_SERVING"), (True, "SERVING")]:
            health.set_serving(serving)
            assert await told(watching) == name


async def test_a_watch_does_not_report_an_unchanged_status(calls: Calls, health: Health) -> None:
    """Twice the same, and there and back before it could look: neither is a change to it."""
    async with in_memory(calls, health) as channel:
        watching = watch(HealthStub(channel))
        assert await told(watching) == "SERVING"
        health.set_serving(True)
        health.set_serving(False)
        health.set_serving(True)
        await until(lambda: calls.open == 1)
        health.set_serving(False)
        assert await told(watching) == "NOT_SERVING"


async def test_watching_a_service_that_is_not_served_says_so_and_goes_on(
    calls: Calls, health: Health
) -> None:
    async with in_memory(calls, health) as channel:
        watching = watch(HealthStub(channel), "mail")
        assert await told(watching) == "SERVICE_UNKNOWN"
        health.set_serving(False)
        await calls.drain()
        assert (await status_of(anext(watching)))[0] == "UNAVAILABLE"


async def test_a_change_while_a_slow_watcher_reads_is_not_missed(health: Health) -> None:
    watching = health.watch(HealthCheckRequest())
    assert await told(watching) == "SERVING"
    health.set_serving(False)  # the watcher is still at its last word
    assert await told(watching) == "NOT_SERVING"
    await watching.aclose()  # type: ignore[attr-defined]


async def test_a_drain_tells_watchers_before_it_ends_them(calls: Calls, health: Health) -> None:
    async with in_memory(calls, health) as channel:
        watching = watch(HealthStub(channel))
        assert await told(watching) == "SERVING"
        health.set_serving(False)
        await calls.drain()
        assert await told(watching) == "NOT_SERVING"
        assert (await status_of(anext(watching)))[0] == "UNAVAILABLE"


async def test_a_check_is_answered_while_the_server_drains(calls: Calls, health: Health) -> None:
    async with ChannelFor([calls.wrap(health, even_draining=True)], codec=wire.Codec()) as channel:
        health.set_serving(False)
        await calls.drain()
        assert (await HealthStub(channel).check(HealthCheckRequest())).status.name == "NOT_SERVING"


async def test_watchers_past_the_limit_are_refused_until_one_leaves(calls: Calls) -> None:
    health = Health([SERVICE], max_watchers=2)
    async with in_memory(calls, health) as channel:
        stub = HealthStub(channel)
        watching = [watch(stub), watch(stub)]
        for each in watching:
            await told(each)
        assert repr(health) == "<Health serving=True watchers=2>"
        status = await status_of(anext(watch(stub)))
        assert status == ("RESOURCE_EXHAUSTED", "2 health watchers already; no more are accepted")
        await watching[0].aclose()  # type: ignore[attr-defined]
        await until(lambda: calls.open == 1)
        assert await told(watch(stub)) == "SERVING"
    assert repr(health) == "<Health serving=True watchers=0>"


async def test_the_official_client_understands(calls: Calls, health: Health) -> None:
    async with on_a_socket(calls, health) as address, grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="mail"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watching = stub.Watch(request)
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        health.set_serving(False)
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="mail"))
        assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        statuses = (await stub.List(health_pb2.HealthListRequest())).statuses
        assert sorted(statuses) == ["", SERVICE]
        watching.cancel()
        unknown.cancel()
