"""What surrounds a call, seen from the other end of the wire."""

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpclib.client import Channel
from grpclib.exceptions import GRPCError

from routing import wire
from routing.errors import (
    BadMessage,
    ConfigError,
    Draining,
    InvalidArgument,
    LimitReached,
    MessageTooLarge,
    NoEligibleBackend,
    NotServed,
    Unsupported,
)
from routing.rpc.calls import MAX_KEPT_UPDATES, Calls, snake_case
from routing.rpc.exchange import Exchange
from support.grpc_calls import ROUTING, BareCall, framed, in_memory, on_a_socket, status_of, until

SELECT = f"{ROUTING}/SelectBackend"
STREAM = f"{ROUTING}/StreamMetrics"

NO_MESSAGE = "no message came; this method takes exactly one"
MANY_MESSAGES = "more than one message came; this method takes exactly one"
CUT_SHORT = "the message ends before the length that its prefix announces"


class Service(wire.RoutingServiceBase):
    """Does what the test says, and tells when a stream has ended."""

    def __init__(self, select: Callable[[Any], Awaitable[Any]] | None = None, update: Any = None) -> None:
        self.select = select
        self.update = update
        self.asked: list[str] = []
        self.streams = 0
        self.go_on = asyncio.Event()

    async def select_backend(self, message: wire.SelectBackendRequest) -> wire.SelectBackendResponse:
        self.asked.append(message.request_id)
        if self.select is not None:
            await self.select(message)
        return wire.SelectBackendResponse(backend_id="s3", request_id=message.request_id)

    async def stream_metrics(self, message: wire.StreamMetricsRequest) -> AsyncIterator[wire.MetricsUpdate]:
        self.streams += 1
        try:
            while True:
                yield self.update or wire.MetricsUpdate()
                if self.update is None:
                    await self.go_on.wait()
                    self.go_on.clear()
        finally:
            self.streams -= 1


def failing(error: BaseException) -> Service:
    async def fail(_: Any) -> None:
        raise error

    return Service(fail)


@pytest.fixture
def calls() -> Calls:
    return Calls(wire.Codec())


def select(channel: Channel, request_id: str = "r") -> Awaitable[wire.SelectBackendResponse]:
    return wire.RoutingServiceStub(channel).select_backend(wire.SelectBackendRequest(request_id=request_id))


def updates(channel: Channel) -> AsyncGenerator[wire.MetricsUpdate, None]:
    return wire.RoutingServiceStub(channel).stream_metrics(wire.StreamMetricsRequest())


# --- One message, bounded ---


async def test_a_unary_call_is_answered(calls: Calls) -> None:
    async with in_memory(calls, Service()) as channel:
        assert (await select(channel, "r-1")).request_id == "r-1"


@pytest.mark.parametrize(
    ("path", "data", "words"),
    [
        (SELECT, b"", NO_MESSAGE),
        (STREAM, b"", NO_MESSAGE),
        (SELECT, framed(b"") + framed(b""), MANY_MESSAGES),
        (STREAM, framed(b"") + framed(b""), MANY_MESSAGES),
        (SELECT, framed(b"") + b"\0", MANY_MESSAGES),
        (SELECT, b"\0\0", CUT_SHORT),
        (SELECT, framed(b"", length=7), CUT_SHORT),
        (SELECT, framed(b"abc", length=7), CUT_SHORT),
        (SELECT, framed(b"\x0a\x01\xff"), "SelectBackendRequest"),
    ],
)
async def test_bytes_that_are_not_one_message_are_an_invalid_argument(
    calls: Calls, path: str, data: bytes, words: str
) -> None:
    service = Service()
    async with in_memory(calls, service) as channel:
        call = await BareCall(channel).start(path)
        await (call.send(data, end=True) if data else call.end())
        code, message = await call.status()
        assert (code, words in message) == (3, True)
    assert service.asked == []


async def test_a_call_is_answered_when_the_client_has_said_all(calls: Calls) -> None:
    service = Service()
    async with in_memory(calls, service) as channel:
        call = await (await BareCall(channel).start(SELECT)).send(framed(b""))
        assert (await select(channel, "another")).request_id == "another"
        assert service.asked == ["another"]
        await call.end()
        assert await call.status() == (0, "")


async def test_a_message_of_the_limit_is_read_and_one_byte_more_is_refused_on_its_prefix() -> None:
    calls = Calls(wire.Codec(), max_message_bytes=100)
    fitting = bytes(wire.SelectBackendRequest(request_id="r" * 98))
    assert len(fitting) == 100
    async with in_memory(calls, Service()) as channel:
        call = await (await BareCall(channel).start(SELECT)).send(framed(fitting), end=True)
        assert await call.status() == (0, "")
        # Nothing but the prefix is sent, and the client's side stays open.
        call = await (await BareCall(channel).start(SELECT)).send(framed(b"", length=101))
        assert await call.status() == (8, "the message has 101 bytes; at most 100 are taken")


async def test_the_limit_is_4_mib(calls: Calls) -> None:
    async with in_memory(calls, Service()) as channel:
        call = await (await BareCall(channel).start(SELECT)).send(framed(b"", length=4 * 2**20 + 1))
        assert (await call.status())[0] == 8
        biggest = wire.SelectBackendRequest(request_id="r" * (4 * 2**20 - 5))
        assert len(bytes(biggest)) == 4 * 2**20
        assert (await wire.RoutingServiceStub(channel).select_backend(biggest)).backend_id == "s3"


async def test_refusing_a_large_message_leaves_the_connection_and_its_calls_alone(calls: Calls) -> None:
    service = Service()
    async with in_memory(calls, service) as channel:
        others = updates(channel)
        await anext(others)
        for _ in range(3):
            # More than one connection window in all: what is refused must be given back.
            call = await (await BareCall(channel).start(SELECT)).send(framed(b"", length=2**32 - 1))
            assert (await call.status())[0] == 8
            with pytest.raises(GRPCError, match="RESOURCE_EXHAUSTED"):
                await select(channel, "r" * (4 * 2**20))
        assert (await select(channel)).backend_id == "s3"
        service.go_on.set()
        await anext(others)


async def test_a_client_that_is_refused_need_not_send_the_rest(calls: Calls) -> None:
    """A stream that only one side has ended would count against the limit of open ones."""
    async with in_memory(calls, Service()) as channel:
        call = await (await BareCall(channel).start(SELECT)).send(framed(b"", length=2**32 - 1))
        assert not call.reset
        await call.status()
        await until(lambda: call.reset)


async def test_a_compressed_message_is_refused_naming_identity(calls: Calls) -> None:
    async with in_memory(calls, Service()) as channel:
        call = await BareCall(channel).start(SELECT, ("grpc-encoding", "gzip"))
        await call.send(framed(b"\x1f\x8b", compressed=1), end=True)
        assert (await call.headers())["grpc-accept-encoding"] == "identity"
        code, message = await call.status()
        assert code == 12
        assert "identity" in message


async def test_a_message_that_is_not_compressed_is_read_whatever_the_encoding_of_others(calls: Calls) -> None:
    async with in_memory(calls, Service()) as channel:
        call = await BareCall(channel).start(SELECT, ("grpc-encoding", "gzip"))
        await call.send(framed(b""), end=True)
        assert await call.status() == (0, "")


# --- Errors as statuses ---

ERRORS = [
    (InvalidArgument("size", -1, "0 or more"), "INVALID_ARGUMENT"),
    (BadMessage("bytes"), "INVALID_ARGUMENT"),
    (NoEligibleBackend({"s3": "disabled"}), "FAILED_PRECONDITION"),
    (LimitReached("1,024 backends"), "RESOURCE_EXHAUSTED"),
    (MessageTooLarge("long"), "RESOURCE_EXHAUSTED"),
    (NotServed("x"), "NOT_FOUND"),
    (Unsupported("gzip"), "UNIMPLEMENTED"),
    (Draining("soon gone"), "UNAVAILABLE"),
]


@pytest.mark.parametrize(("error", "status"), ERRORS)
async def test_an_error_of_the_callers_is_one_status_with_its_message(
    calls: Calls, error: Any, status: str
) -> None:
    async with in_memory(calls, failing(error)) as channel:
        assert await status_of(select(channel)) == (status, error.message)
    assert calls.counts == {(SELECT, status): 1}


@pytest.mark.parametrize("error", [KeyError("secret"), ConfigError("secret", "", ""), TimeoutError("secret")])
async def test_an_unexpected_error_is_internal_with_a_traceback_in_the_log_only(
    calls: Calls, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async with in_memory(calls, failing(error)) as channel:
        assert await status_of(select(channel)) == ("INTERNAL", "internal error")
    (record,) = caplog.records
    assert record.getMessage() == f"call failed method={SELECT}"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_a_method_that_is_not_written_yet_is_unimplemented(calls: Calls) -> None:
    async with in_memory(calls, Service()) as channel:
        stub = wire.RoutingServiceStub(channel)
        assert (await status_of(stub.get_insights(wire.GetInsightsRequest())))[0] == "UNIMPLEMENTED"


async def test_a_method_that_is_not_known_is_unimplemented(calls: Calls) -> None:
    async with in_memory(calls, Service()) as channel:
        call = await (await BareCall(channel).start(f"{ROUTING}/Guess")).send(framed(b""), end=True)
        assert (await call.status())[0] == 12


async def test_an_error_in_the_middle_of_a_stream_is_its_status(calls: Calls) -> None:
    service = Service(update=wire.MetricsUpdate())

    class Breaking(wire.RoutingServiceBase):
        async def stream_metrics(self, message: Any) -> AsyncIterator[wire.MetricsUpdate]:
            yield wire.MetricsUpdate()
            raise LimitReached("enough")

    async with in_memory(calls, Breaking()) as channel:
        stream = updates(channel)
        await anext(stream)
        assert await status_of(anext(stream)) == ("RESOURCE_EXHAUSTED", "enough")
    assert service.streams == 0


async def test_a_thousand_reasons_still_arrive_at_a_client_with_8_kib_of_headers(calls: Calls) -> None:
    reasons = {f"backend-{n:04}": "takes objects of at most 5,497,558,138,880 bytes" for n in range(1024)}
    service = failing(NoEligibleBackend(reasons))
    async with on_a_socket(calls, service) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(SELECT)(b"")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "backend-0000: takes objects" in caught.value.details()
    assert " more)" in caught.value.details()


# --- Deadlines and leaving ---


async def test_a_call_past_its_deadline_ends_with_deadline_exceeded(calls: Calls) -> None:
    service = Service(lambda _: asyncio.Event().wait())
    async with in_memory(calls, service) as channel:
        call = await BareCall(channel).start(SELECT, ("grpc-timeout", "1m"))
        await call.send(framed(b""), end=True)
        assert (await call.status())[0] == 4
    assert calls.counts == {(SELECT, "DEADLINE_EXCEEDED"): 1}


async def test_a_stream_past_its_deadline_ends_with_deadline_exceeded(calls: Calls) -> None:
    service = Service()
    async with in_memory(calls, service) as channel:
        call = await BareCall(channel).start(STREAM, ("grpc-timeout", "50m"))
        await call.send(framed(b""), end=True)
        assert (await call.status())[0] == 4
    assert calls.counts == {(STREAM, "DEADLINE_EXCEEDED"): 1}
    assert service.streams == 0


async def test_a_client_that_leaves_ends_its_unary_call(calls: Calls) -> None:
    service = Service(lambda _: asyncio.Event().wait())
    async with in_memory(calls, service) as channel:
        call = await (await BareCall(channel).start(SELECT)).send(framed(b""), end=True)
        await until(lambda: service.asked == [""])
        await call.leave()
        await calls.wait_idle()
    assert calls.counts == {(SELECT, "CANCELLED"): 1}


async def test_a_client_that_leaves_closes_the_generator_of_its_stream(calls: Calls) -> None:
    service = Service()
    async with in_memory(calls, service) as channel:
        call = await (await BareCall(channel).start(STREAM)).send(framed(b""), end=True)
        await call.message(wire.MetricsUpdate)
        assert service.streams == 1
        await call.leave()
        await calls.wait_idle()
        assert service.streams == 0
    assert calls.counts == {(STREAM, "CANCELLED"): 1}


async def test_a_generator_is_closed_even_if_its_client_does_not_read(calls: Calls) -> None:
    """Here it is left suspended in the midst of a response that the window has no room for."""
    service = Service(update=wire.MetricsUpdate(metrics=wire.write_struct({"filler": "x" * 10**6})))
    async with in_memory(calls, service) as channel:
        call = await (await BareCall(channel).start(STREAM)).send(framed(b""), end=True)
        await call.headers()
        assert service.streams == 1
        await call.leave()
        await calls.wait_idle()
        assert service.streams == 0


# --- The drain ---


async def test_a_draining_server_takes_no_new_calls(calls: Calls) -> None:
    async with in_memory(calls, Service()) as channel:
        await calls.drain()
        assert await status_of(select(channel)) == ("UNAVAILABLE", "the server is draining; call another one")
        assert (await status_of(anext(updates(channel))))[0] == "UNAVAILABLE"


async def test_a_drain_lets_unary_calls_finish(calls: Calls) -> None:
    finish = asyncio.Event()
    service = Service(lambda _: finish.wait())
    async with in_memory(calls, service) as channel:
        call = asyncio.ensure_future(select(channel))
        await until(lambda: service.asked == ["r"])
        await calls.drain()
        assert calls.open == 1
        finish.set()
        assert (await call).backend_id == "s3"
        await calls.wait_idle()
        assert calls.open == 0


async def test_a_client_that_leaves_during_a_drain_has_left(calls: Calls) -> None:
    service = Service(lambda _: asyncio.Event().wait())
    async with in_memory(calls, service) as channel:
        call = await (await BareCall(channel).start(SELECT)).send(framed(b""), end=True)
        await until(lambda: service.asked == [""])
        await calls.drain()
        await call.leave()
        await calls.wait_idle()
    assert calls.counts == {(SELECT, "CANCELLED"): 1}


async def test_a_call_that_the_drain_cancels_receives_the_reason(calls: Calls) -> None:
    """When the grace period is over, the server cancels what still runs."""
    service = Service(lambda _: asyncio.Event().wait())
    tasks = asyncio.all_tasks()
    async with in_memory(calls, service) as channel:
        call = await (await BareCall(channel).start(SELECT)).send(framed(b""), end=True)
        await until(lambda: service.asked == [""])
        await calls.drain()
        (task,) = asyncio.all_tasks() - tasks
        task.cancel()
        assert (await call.status())[0] == 14


async def test_a_drain_ends_streams_with_unavailable(calls: Calls) -> None:
    service = Service()
    async with in_memory(calls, service) as channel:
        stream, waiting = updates(channel), await BareCall(channel).start(STREAM)
        await anext(stream)
        await until(lambda: calls.open == 2)  # the other one has not even sent its message
        await calls.drain()
        said = "UNAVAILABLE", "the server is draining; call another one"
        assert await status_of(anext(stream)) == said
        assert await waiting.status() == (14, said[1])
        await calls.wait_idle()
    assert service.streams == 0


async def test_a_stream_that_is_stuck_in_sending_does_not_hold_up_the_drain(calls: Calls) -> None:
    service = Service(update=wire.MetricsUpdate(metrics=wire.write_struct({"filler": "x" * 10**6})))
    async with in_memory(calls, service) as channel:
        call = await (await BareCall(channel).start(STREAM)).send(framed(b""), end=True)
        await call.headers()
        await calls.drain()
        await calls.wait_idle()
    assert service.streams == 0


async def test_health_may_be_asked_to_the_end(calls: Calls) -> None:
    from grpclib.testing import ChannelFor

    servable = calls.wrap(Service(), even_draining=True)
    async with ChannelFor([servable], codec=wire.Codec()) as channel:
        await calls.drain()
        assert (await select(channel)).backend_id == "s3"
        # A stream that began now would have nobody to end it.
        assert (await status_of(anext(updates(channel))))[0] == "UNAVAILABLE"


# --- What is known of calls ---


async def test_calls_are_counted_by_method_and_status(calls: Calls) -> None:
    async with in_memory(calls, Service()) as channel:
        for _ in range(3):
            await select(channel)
        await status_of(wire.RoutingServiceStub(channel).get_insights(wire.GetInsightsRequest()))
        stream = updates(channel)
        await anext(stream)
        assert repr(calls) == "<Calls open=1 streams=1 draining=False>"
    assert calls.counts == {
        (SELECT, "OK"): 3,
        (f"{ROUTING}/GetInsights", "UNIMPLEMENTED"): 1,
        (STREAM, "CANCELLED"): 1,
    }
    assert repr(calls) == "<Calls open=0 streams=0 draining=False>"


async def test_every_call_is_one_line_at_debug(calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="routing.rpc.calls")
    async with on_a_socket(calls, Service()) as address, grpc.aio.insecure_channel(address) as channel:
        await channel.unary_unary(SELECT)(b"")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "routing.rpc.calls"]
    phrase, method, status, ms, peer = line.rsplit(" ", 4)
    assert (phrase, method, status) == ("call ended", f"method={SELECT}", "status=OK")
    assert ms.startswith("ms=")
    assert peer.startswith("peer=127.0.0.1:")


async def test_nothing_is_logged_of_a_call_above_debug(
    calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with in_memory(calls, Service()) as channel:
            await select(channel)
    assert caplog.records == []


async def test_nothing_is_left_of_calls_that_have_ended(calls: Calls) -> None:
    service = Service()
    async with in_memory(calls, service) as channel:
        await select(channel)
        tasks = len(asyncio.all_tasks())
        for n in range(100):
            await select(channel)
            await status_of(wire.RoutingServiceStub(channel).get_insights(wire.GetInsightsRequest()))
            stream = updates(channel)
            await anext(stream)
            await stream.aclose()
            await calls.wait_idle()
            call = await (await BareCall(channel).start(SELECT)).send(framed(b"", length=n + 1))
            await until(lambda: calls.open == 1)
            await call.leave()
            await calls.wait_idle()
        await until(lambda: len(asyncio.all_tasks()) == tasks)
        gc.collect()
        # grpclib drops cancelled tasks, and what they hold, every ten calls.
        assert len([each for each in gc.get_objects() if isinstance(each, Exchange)]) <= 11
    assert sum(calls.counts.values()) == 401


class CountingCodec(wire.Codec):
    encoded = 0

    def encode(self, message: Any, message_type: Any) -> bytes:
        self.encoded += isinstance(message, wire.MetricsUpdate)
        return super().encode(message, message_type)


async def test_one_update_for_many_listeners_is_encoded_once() -> None:
    codec = CountingCodec()
    calls = Calls(codec)
    first, second = wire.MetricsUpdate(), wire.MetricsUpdate(status=wire.MetricsUpdateSystemStatus.CRITICAL)
    next_one = asyncio.Event()

    class Sharing(wire.RoutingServiceBase):
        async def stream_metrics(self, message: Any) -> AsyncIterator[wire.MetricsUpdate]:
            yield first
            await next_one.wait()
            yield second

    async with in_memory(calls, Sharing()) as channel:
        streams = [updates(channel) for _ in range(5)]
        for stream in streams:
            assert (await anext(stream)).status.name == "NORMAL"
        assert codec.encoded == 1
        next_one.set()
        for stream in streams:
            assert (await anext(stream)).status.name == "CRITICAL"
        assert codec.encoded == 2


async def test_updates_that_take_turns_are_encoded_once_each_and_few_are_kept() -> None:
    """Listeners of different option sets wake at the same tick, in any order."""
    codec = CountingCodec()
    calls = Calls(codec)
    messages = [wire.MetricsUpdate(timestamp=wire.write_time(second)) for second in range(3)]

    class Alternating(wire.RoutingServiceBase):
        async def stream_metrics(self, message: Any) -> AsyncIterator[wire.MetricsUpdate]:
            for _ in range(5):
                for each in messages:
                    yield each
            for second in range(50):
                yield wire.MetricsUpdate(timestamp=wire.write_time(100 + second))

    async with in_memory(calls, Alternating()) as channel:
        stream = updates(channel)
        seen = [(await anext(stream)).timestamp.second for _ in range(15)]
        assert seen == [0, 1, 2] * 5
        assert [update.timestamp.timestamp() async for update in stream] == [100.0 + n for n in range(50)]
    assert codec.encoded == 53
    assert len(calls._sent) == MAX_KEPT_UPDATES


@pytest.mark.parametrize(
    ("name", "python_name"),
    [
        ("Check", "check"),
        ("SelectBackend", "select_backend"),
        ("ServerReflectionInfo", "server_reflection_info"),
    ],
)
def test_a_method_is_found_by_its_name_in_python(name: str, python_name: str) -> None:
    assert snake_case(name) == python_name
