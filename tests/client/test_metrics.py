"""The stream of updates: as long as it is wanted, over as many connections as it takes."""

import asyncio
from contextlib import aclosing

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from routing import wire
from routing.client import ClientClosed, InvalidRequest, RoutingClient, ServerUnavailable
from support.lossy_server import serving, silence
from support.scripted_server import UNAVAILABLE, Endless, Script, Waits, client_of, number, update


async def test_updates_come_in_their_order_until_the_server_ends_them() -> None:
    async with client_of(Script(metrics=[[update(0.1), update(0.2)]])) as client:
        assert [number(each) async for each in client.metrics()] == [0.1, 0.2]


async def test_what_is_wanted_is_asked_for() -> None:
    script = Script(metrics=[[]])
    async with client_of(script) as client:
        wanted = client.metrics(
            interval_seconds=5, sections=["system"], include_backends=True, include_content_types=True
        )
        assert [each async for each in wanted] == []
    assert script.asked["metrics"] == [wire.StreamMetricsRequest(5, ["system"], True, True)]


async def test_a_stream_that_breaks_is_taken_up_again_after_a_wait() -> None:
    script, waits = Script(metrics=[[update(0.1), UNAVAILABLE], UNAVAILABLE, [update(0.2)]]), Waits()
    async with client_of(script, sleep=waits) as client:
        assert [number(each) async for each in client.metrics()] == [0.1, 0.2]
    assert waits.seconds == [0.1, 0.2]


async def test_a_server_that_was_heard_is_waited_for_without_end() -> None:
    script = Script(metrics=[[update(0.1), UNAVAILABLE], *[UNAVAILABLE] * 20, [update(0.2)]])
    async with client_of(script, retries=1) as client:
        assert [number(each) async for each in client.metrics()] == [0.1, 0.2]


async def test_a_server_that_was_never_there_is_given_up_like_in_any_call() -> None:
    script = Script(metrics=UNAVAILABLE)
    async with client_of(script, retries=2) as client:
        with pytest.raises(ServerUnavailable):
            await anext(client.metrics())
    assert len(script.asked["metrics"]) == 3


async def test_any_other_error_goes_on() -> None:
    script = Script(metrics=[[update(0.1), GRPCError(Status.INVALID_ARGUMENT, "metrics_types: no")]])
    async with client_of(script) as client:
        updates = client.metrics()
        await anext(updates)
        with pytest.raises(InvalidRequest, match="metrics_types: no"):
            await anext(updates)


@pytest.mark.parametrize("way", ["break", "aclose", "close"])
async def test_the_server_learns_that_nobody_listens_any_more(way: str) -> None:
    script = Endless()
    async with serving(script) as server, RoutingClient(server.address) as client:
        if way == "break":
            async for _ in client.metrics():
                break
        else:
            async with aclosing(client.metrics()) as updates:
                await anext(updates)
                await (updates.aclose() if way == "aclose" else client.aclose())
        async with asyncio.timeout(10):
            await script.left.wait()


async def test_a_closed_client_has_no_more_updates() -> None:
    async with serving(Endless()) as server:
        client = RoutingClient(server.address)
        updates = client.metrics()
        await anext(updates)
        await client.aclose()
        with pytest.raises(ClientClosed):
            while True:
                await anext(updates)


async def test_a_client_closed_before_has_no_updates_either() -> None:
    async with serving(Endless()) as server:
        client = RoutingClient(server.address)
        await client.aclose()
        with pytest.raises(ClientClosed):
            await anext(client.metrics())
        assert not server.protocols


async def test_a_cancelled_listener_leaves() -> None:
    script = Endless()
    async with serving(script) as server, RoutingClient(server.address) as client:

        async def listen() -> None:
            async for _ in client.metrics():
                heard.set()

        heard = asyncio.Event()
        listening = asyncio.create_task(listen())
        await heard.wait()
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
        async with asyncio.timeout(10):
            await script.left.wait()


async def test_a_lost_server_is_found_again_and_its_updates_go_on() -> None:
    async with serving(Endless()) as server:

        async def come_back(_: float) -> None:
            if not again.protocols:
                await again.open(int(server.address.rpartition(":")[2]))

        async with RoutingClient(server.address, sleep=come_back) as client:
            again = type(server)(Endless())
            async with aclosing(client.metrics()) as updates:
                await anext(updates)
                await server.lose()
                async with asyncio.timeout(10):
                    while not again.protocols:
                        await anext(updates)
                    await anext(updates)
        await again.lose()


async def test_an_update_that_is_overdue_means_that_the_server_is_lost() -> None:
    async with silence() as (address, came):
        async with RoutingClient(address, timeout_seconds=0.01, retries=0, sleep=Waits()) as client:
            with pytest.raises(Exception, match="in time"):
                await anext(client.metrics())
        assert len(came) == 1


async def test_an_update_may_be_as_late_as_its_interval() -> None:
    """Between two updates the timeout alone would be too short."""
    second = asyncio.Event()

    class Slow(Script):
        async def stream_metrics(self, message: wire.StreamMetricsRequest):  # type: ignore[no-untyped-def]
            yield update(0.1)
            asyncio.get_running_loop().call_later(0.1, second.set)
            await second.wait()
            yield update(0.2)

    async with client_of(Slow(), timeout_seconds=0.05, retries=0) as client:
        assert [number(each) async for each in client.metrics(interval_seconds=60)] == [0.1, 0.2]
