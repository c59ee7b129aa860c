"""The handlers on a real router: which clock they go by, and who shares an update."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from grpclib import protocol

from routing import wire
from routing.clock import RequestClock
from routing.core.model import Backend
from routing.core.router import Router
from routing.rpc.caller import Caller, Peer
from routing.rpc.calls import Calls
from routing.rpc.service import RoutingService
from routing.rpc.streaming import FairQueue
from routing.store import NullStore
from support.grpc_calls import ManualTime, in_memory, status_of, until

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW = START.timestamp()


class CountingClock:
    """Counts how often it was read: each update reads it once."""

    def __init__(self) -> None:
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        return NOW


@pytest.fixture
def time() -> ManualTime:
    return ManualTime()


def service_on(clock: Any, time: ManualTime | None = None, **options: Any) -> RoutingService:
    time = time or ManualTime()
    router = Router([Backend(id="ipfs"), Backend(id="s3")], random=Random(0), **options)
    return RoutingService(
        router, NullStore(), clock=clock, version="1.2.3", monotonic=time.monotonic, sleep=time.sleep
    )


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


# --- The clock of the requests ---


def test_a_request_clock_stands_at_0_until_it_is_told_and_never_runs_backwards() -> None:
    clock = RequestClock()
    readings = [clock()]
    for told in (None, 100.0, 40.0, None, 101.5):
        clock.advance(told)
        readings.append(clock())
    assert readings == [0.0, 0.0, 100.0, 100.0, 100.0, 101.5]
    assert repr(clock) == "<RequestClock now=101.5>"


def insights_in(data: Any) -> wire.GetInsightsResponse:
    decoded = wire.Codec().decode(data, wire.GetInsightsResponse)
    assert isinstance(decoded, wire.GetInsightsResponse)
    return decoded


async def insights_of(service: RoutingService, request: wire.GetInsightsRequest) -> wire.GetInsightsResponse:
    return insights_in(await service.get_insights(request))


async def selected_by(service: RoutingService, request: wire.SelectBackendRequest) -> Any:
    return wire.Codec().decode(await service.select_backend(request), wire.SelectBackendResponse)


async def test_selecting_and_recording_move_a_request_clock() -> None:
    service = service_on(RequestClock())
    first = await insights_of(service, wire.GetInsightsRequest())
    selected = await selected_by(service, wire.SelectBackendRequest(timestamp=at(0)))
    without = await selected_by(service, wire.SelectBackendRequest())
    recorded = await service.record_outcome(wire.RecordOutcomeRequest(backend_id="s3", timestamp=at(60)))
    earlier = await selected_by(service, wire.SelectBackendRequest(timestamp=at(30)))
    last = await insights_of(service, wire.GetInsightsRequest())
    assert first.timestamp == datetime(1970, 1, 1, tzinfo=UTC)
    assert [selected.timestamp, without.timestamp] == [at(0), at(0)]
    assert [recorded.timestamp, earlier.timestamp, last.timestamp] == [at(60)] * 3


async def test_a_message_that_is_refused_does_not_move_the_clock() -> None:
    clock = RequestClock()
    service = service_on(clock)
    async with in_memory(Calls(wire.Codec()), service) as channel:
        stub = wire.RoutingServiceStub(channel)
        broken = wire.SelectBackendRequest(content_size=-1, timestamp=at(0))
        assert (await status_of(stub.select_backend(broken)))[0] == "INVALID_ARGUMENT"
    assert clock() == 0.0


async def test_the_system_clock_goes_by_nobodys_timestamp() -> None:
    service = service_on(lambda: NOW)
    selected = await selected_by(service, wire.SelectBackendRequest(timestamp=at(86_400)))
    recorded = await service.record_outcome(wire.RecordOutcomeRequest(backend_id="s3", timestamp=at(-60)))
    assert selected.timestamp == recorded.timestamp == START


async def test_an_outcome_older_than_the_retention_is_not_recorded_and_says_so() -> None:
    service = service_on(lambda: NOW, retention_hours=24)
    old = wire.RecordOutcomeRequest(backend_id="s3", success=True, timestamp=at(-25 * 3600))
    response = await service.record_outcome(old)
    assert response.success is False
    assert "24 hours" in response.message
    insights = await insights_of(service, wire.GetInsightsRequest())
    assert wire.read_struct(insights.backend_success_rates) == {}


async def test_adding_up_for_insights_lets_others_have_their_turn() -> None:
    """Nobody asked for 100 hours before, in each of which something happened."""
    clock = RequestClock()
    service = service_on(clock)
    for hour in range(100):
        await service.record_outcome(wire.RecordOutcomeRequest(backend_id="s3", timestamp=at(hour * 3600)))
    asking = asyncio.ensure_future(service.get_insights(wire.GetInsightsRequest(time_window_hours=99)))
    turns = 0
    while not asking.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 90
    usage = wire.read_struct(insights_in(await asking).backend_usage_stats)
    assert usage["s3"]["outcome_count"] == 100
    again = service.get_insights(wire.GetInsightsRequest(time_window_hours=99))
    with pytest.raises(StopIteration):
        again.send(None)  # it is at hand now: not even one turn


# --- Updates ---


def listen(service: RoutingService, **options: Any) -> Any:
    return aclosing(decoded(service.stream_metrics(wire.StreamMetricsRequest(**options))))


async def decoded(stream: Any) -> AsyncIterator[wire.MetricsUpdate]:
    async with aclosing(stream) as updates:
        async for update in updates:
            yield wire.Codec().decode(update, wire.MetricsUpdate)


async def test_the_first_update_comes_at_once_and_the_next_after_the_interval(time: ManualTime) -> None:
    clock = CountingClock()
    async with in_memory(Calls(wire.Codec()), service_on(clock, time)) as channel:
        stream = wire.RoutingServiceStub(channel).stream_metrics(
            wire.StreamMetricsRequest(update_interval_seconds=5)
        )
        await anext(stream)
        for ticks in range(1, 4):
            await time.asleep(1)
            time.advance(4.9)
            assert clock.readings == ticks
            time.advance(0.1)
            await anext(stream)
            assert clock.readings == ticks + 1


async def test_one_update_is_computed_for_all_who_listen_alike(time: ManualTime) -> None:
    clock = CountingClock()
    service = service_on(clock, time)
    async with in_memory(Calls(wire.Codec()), service) as channel:
        stub = wire.RoutingServiceStub(channel)
        options = [["system", "success_rates"], ["success_rates", "system", "system"]] * 10
        streams = [stub.stream_metrics(wire.StreamMetricsRequest(metrics_types=each)) for each in options]
        for stream in streams:
            await anext(stream)
        assert clock.readings == len(streams)  # each one's own first update is fresh
        assert repr(service) == "<RoutingService <FanOut streams=20 requests=1>>"
        for tick in range(1, 4):
            await time.asleep(len(streams))
            time.advance(1.0)
            updates = [await anext(stream) for stream in streams]
            assert clock.readings == len(streams) + tick
            assert len({bytes(update) for update in updates}) == 1


async def test_those_who_listen_to_something_else_get_their_own(time: ManualTime) -> None:
    clock = CountingClock()
    service = service_on(clock, time)
    different: list[dict[str, Any]] = [
        {},
        {"update_interval_seconds": 2},
        {"metrics_types": ["system"]},
        {"include_backends": True},
        {"include_content_types": True},
    ]
    async with in_memory(Calls(wire.Codec()), service) as channel:
        stub = wire.RoutingServiceStub(channel)
        streams = [stub.stream_metrics(wire.StreamMetricsRequest(**options)) for options in different]
        for stream in streams:
            await anext(stream)
        await time.asleep(len(streams))
        time.advance(2.0)
        updates = [await anext(stream) for stream in streams]
    assert clock.readings == 2 * len(different)
    assert len({frozenset(wire.read_struct(update.metrics)) for update in updates}) == 4


async def test_one_who_joins_later_gets_a_fresh_update_and_then_the_common_ticks(time: ManualTime) -> None:
    service = service_on(lambda: NOW, time)

    def decisions(update: wire.MetricsUpdate) -> float:
        return float(wire.read_struct(update.metrics)["system"]["decisions_total"])

    async with in_memory(Calls(wire.Codec()), service) as channel:
        stub = wire.RoutingServiceStub(channel)
        request = wire.StreamMetricsRequest(update_interval_seconds=10)
        early = stub.stream_metrics(request)
        assert decisions(await anext(early)) == 0
        await time.asleep(1)
        time.advance(4.0)
        await stub.select_backend(wire.SelectBackendRequest())
        late = stub.stream_metrics(request)
        assert decisions(await anext(late)) == 1
        await stub.select_backend(wire.SelectBackendRequest())
        await time.asleep(2)
        time.advance(6.0)
        assert [decisions(await anext(early)), decisions(await anext(late))] == [2, 2]


async def test_a_slow_listener_misses_updates_and_gets_the_latest(time: ManualTime) -> None:
    clock = CountingClock()
    service = service_on(clock, time)
    asked = wire.StreamMetricsRequest()
    async with (
        aclosing(service.stream_metrics(asked)) as slow,
        aclosing(service.stream_metrics(asked)) as quick,
    ):
        await anext(slow)
        await anext(quick)
        for _ in range(3):
            next_one = _started(quick)
            await time.asleep(1)
            time.advance(1.0)
            await next_one
        assert clock.readings == 2 + 3
        # The fourth tick is the next one for both.
        both = [_started(quick), _started(slow)]
        await time.asleep(2)
        time.advance(1.0)
        assert await both[0] is await both[1]
        assert clock.readings == 2 + 4


async def test_no_more_than_a_few_send_in_one_turn_of_the_loop() -> None:
    turns, sent, per_turn = FairQueue(3), 0, []

    async def send() -> None:
        nonlocal sent
        await turns.wait()
        sent += 1

    tasks = [asyncio.ensure_future(send()) for _ in range(20)]
    await asyncio.sleep(0)
    assert sent == 3
    assert repr(turns) == "<FairQueue waiting=17>"
    tasks[10].cancel()  # one who leaves takes nobody's turn
    while not all(task.done() for task in tasks):
        before = sent
        await asyncio.sleep(0)
        per_turn.append(sent - before)
    assert max(per_turn) == 3
    assert sent == 19
    await send()  # and afterwards nobody need wait
    assert sent == 20


async def test_those_who_came_first_have_their_turn_first() -> None:
    turns, order = FairQueue(2), []

    async def send(number: int) -> None:
        await turns.wait()
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(9):
            group.create_task(send(number))
    assert order == list(range(9))


async def test_a_timer_that_fires_early_does_not_repeat_a_tick(time: ManualTime) -> None:
    service = service_on(lambda: NOW, time)
    async with listen(service) as stream:
        await anext(stream)
        next_one = _started(stream)
        await time.asleep(1)
        time.advance(1.0 - 1e-10)
        first = await next_one
        next_one = _started(stream)
        await time.asleep(1)
        time.advance(0.5)
        assert not next_one.done()
        time.advance(0.5 + 1e-9)
        assert await next_one is not first


async def test_the_wait_between_updates_is_real_time_whatever_the_requests_say(time: ManualTime) -> None:
    clock = RequestClock()
    service = service_on(clock, time)
    async with listen(service) as stream:
        assert (await anext(stream)).timestamp == datetime(1970, 1, 1, tzinfo=UTC)
        next_one = _started(stream)
        await time.asleep(1)
        await service.select_backend(wire.SelectBackendRequest(timestamp=at(0)))
        assert not next_one.done()
        time.advance(1.0)
        assert (await next_one).timestamp == at(0)


async def test_what_was_kept_for_listeners_goes_with_the_last_of_them(time: ManualTime) -> None:
    calls = Calls(wire.Codec())
    service = service_on(lambda: NOW, time)
    async with in_memory(calls, service) as channel:
        stub = wire.RoutingServiceStub(channel)
        one, other = (stub.stream_metrics(wire.StreamMetricsRequest()) for _ in range(2))
        await anext(one)
        await anext(other)
        assert repr(service) == "<RoutingService <FanOut streams=2 requests=1>>"
        await one.aclose()
        await until(lambda: service.active_streams == 1)
        assert repr(service) == "<RoutingService <FanOut streams=1 requests=1>>"
        await calls.drain()
        assert (await status_of(anext(other)))[0] == "UNAVAILABLE"
        await calls.wait_idle()
    assert repr(service) == "<RoutingService <FanOut streams=0 requests=0>>"
    assert time.sleeping == 0


async def test_the_system_section_tells_uptime_listeners_and_version(time: ManualTime) -> None:
    service = service_on(lambda: NOW, time)
    time.advance(90.0)
    async with listen(service) as stream, listen(service, metrics_types=["system"]) as other:
        await anext(stream)
        system = wire.read_struct((await anext(other)).metrics)["system"]
    assert (system["uptime_seconds"], system["active_streams"], system["version"]) == (90.0, 2.0, "1.2.3")


def _started(stream: AsyncIterator[wire.MetricsUpdate]) -> Any:
    return asyncio.ensure_future(anext(stream))


# --- The caller ---


async def test_an_outcome_knows_its_caller_by_a_digest_on_either_path() -> None:
    path = "/ipfs_kit_py.routing.RoutingService/RecordOutcome"
    service = service_on(lambda: NOW)
    calls = Calls(wire.Codec(), admit=lambda _path, caller, _again: caller.identify("name a"))
    wrapped = calls.wrap(service, on_fast_path=("RecordOutcome",))
    request = wire.RecordOutcomeRequest(backend_id="s3", success=True)
    data = wire.Codec().encode(request, wire.RecordOutcomeRequest)
    caller = Caller([], Peer(protocol.Peer(asyncio.BaseTransport())))
    wrapped.fast_path_handlers[path](data, caller)
    async with in_memory(calls, service) as channel:
        await wire.RoutingServiceStub(channel).record_outcome(request)
    assert list(service._router.suspension("s3").failures.callers) == [caller.digest(b"")]
    await service.record_outcome(request)
    assert list(service._router.suspension("s3").failures.callers) == [caller.digest(b""), ""]
