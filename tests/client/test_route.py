"""route and attempt: outcomes that report themselves."""

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from routing import wire
from routing.client import Asked, InvalidRequest, NoBackend, RoutingClient
from routing.errors import InvalidArgument
from support.scripted_server import UNAVAILABLE, Script, chosen, client_of, recorded


class Ticking:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_what_can_be_asked_of_select_can_be_asked_of_route_and_attempt() -> None:
    asked = inspect.signature(RoutingClient.select).parameters
    assert set(Asked.__annotations__) == set(asked) - {"self"}
    assert {name: asked[name].annotation for name in Asked.__annotations__} == Asked.__annotations__


async def test_route_reports_a_block_that_ends_as_a_success() -> None:
    script, clock = Script(select=chosen("s3"), record=recorded()), Ticking()
    asked = {"content_hash": "h", "content_type": "image/png", "size_bytes": 9}
    async with client_of(script, clock=clock) as client, client.route(**asked) as decision:
        assert (decision.backend_id, decision.selection.score) == ("s3", 0.5)
        clock.now += 0.25
    assert script.asked["record"] == [
        wire.RecordOutcomeRequest(
            backend_id="s3",
            success=True,
            content_hash="h",
            content_type="image/png",
            content_size=9,
            duration_ms=250,
            request_id="r1",
        )
    ]


async def test_route_asks_what_select_would() -> None:
    script = Script(select=chosen(), record=recorded())
    wishes = {"content_type": "image/png", "strategy": "cost", "request_id": "mine", "explain": True}
    async with client_of(script) as client:
        await client.select(**wishes)
        async with client.route(**wishes):
            pass
    first, second = script.asked["select"]
    assert first == second


async def test_route_reports_a_block_that_raises_as_a_failure_and_lets_it_raise() -> None:
    script = Script(select=chosen(), record=recorded())
    async with client_of(script) as client:
        with pytest.raises(OSError, match="disk full"):
            async with client.route():
                raise OSError("disk full")
    (report,) = script.asked["record"]
    assert (report.success, report.error) == (False, "OSError: disk full")


async def test_route_reports_what_the_block_says() -> None:
    script = Script(select=chosen(), record=recorded())
    async with client_of(script) as client, client.route(size_bytes=1) as decision:
        decision.size_bytes, decision.duration_ms = 5, 6
        decision.fail("checksum differs")
    (report,) = script.asked["record"]
    assert (report.success, report.error) == (False, "checksum differs")
    assert (report.content_size, report.duration_ms) == (5, 6)


async def test_route_reports_nothing_of_a_block_that_is_cancelled() -> None:
    script = Script(select=chosen(), record=recorded())
    async with client_of(script) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as deadline, client.route():
                deadline.reschedule(0.0)
                await asyncio.Event().wait()
        assert client.unrecorded == 0
    assert "record" not in script.asked


async def test_route_reports_a_timeout_inside_the_block_as_a_failure() -> None:
    script = Script(select=chosen(), record=recorded())
    async with client_of(script) as client:
        with pytest.raises(TimeoutError):
            async with client.route(), asyncio.timeout(0.0):
                await asyncio.Event().wait()
    (report,) = script.asked["record"]
    assert (report.success, report.error) == (False, "TimeoutError")


async def test_route_reports_nothing_of_a_generator_that_is_left() -> None:
    script = Script(select=chosen(), record=recorded())
    async with client_of(script) as client:

        async def chunks() -> AsyncGenerator[int, None]:
            async with client.route():
                yield 1
                yield 2

        generator = chunks()
        assert await anext(generator) == 1
        await generator.aclose()
    assert "record" not in script.asked


@pytest.mark.parametrize(
    "trouble",
    [
        UNAVAILABLE,
        GRPCError(Status.INTERNAL, "broken"),
        GRPCError(Status.RESOURCE_EXHAUSTED, "full"),
        "refused",
    ],
)
async def test_what_cannot_be_reported_changes_nothing_for_the_block(
    trouble: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answer = recorded(False, "too old") if trouble == "refused" else trouble
    async with client_of(Script(select=chosen("s3"), record=answer)) as client:
        with caplog.at_level(logging.WARNING, "routing.client"):
            async with client.route() as decision:
                assert decision.backend_id == "s3"
            with pytest.raises(KeyError, match="mine"):
                async with client.route():
                    raise KeyError("mine")
        assert client.unrecorded == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert caplog.messages[0].startswith("outcome not recorded backend=s3 reason=")


async def test_an_outcome_whose_report_is_cancelled_is_counted() -> None:
    reporting = asyncio.Event()

    async def hang() -> None:
        reporting.set()
        await asyncio.Event().wait()

    async with client_of(Script(select=chosen(), record=hang)) as client:

        async def work() -> None:
            async with client.route():
                pass

        working = asyncio.create_task(work())
        await reporting.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert client.unrecorded == 1


async def test_route_does_not_begin_without_a_choice() -> None:
    script = Script(select=GRPCError(Status.FAILED_PRECONDITION, "none"))
    async with client_of(script) as client:
        with pytest.raises(NoBackend):
            async with client.route():
                raise AssertionError("there is nothing to do it on")


class Failing:
    """An operation that fails on the backends given, each time after half a second."""

    def __init__(self, clock: Ticking, *broken: str) -> None:
        self._clock = clock
        self._broken = broken
        self.tried: list[str] = []

    async def __call__(self, backend_id: str) -> str:
        self.tried.append(backend_id)
        self._clock.now += 0.5
        if backend_id in self._broken:
            raise OSError(f"{backend_id} is down")
        return f"stored on {backend_id}"


async def test_attempt_returns_what_the_operation_returns_on_the_choice() -> None:
    script, clock = Script(select=chosen("a", "b"), record=recorded()), Ticking()
    store = Failing(clock)
    async with client_of(script, clock=clock) as client:
        assert await client.attempt(store, content_type="image/png") == "stored on a"
    assert store.tried == ["a"]
    (report,) = script.asked["record"]
    assert (report.backend_id, report.success, report.duration_ms) == ("a", True, 500)


async def test_attempt_goes_on_with_the_alternatives_best_first_and_reports_each() -> None:
    script, clock = Script(select=chosen("a", "b", "c"), record=recorded()), Ticking()
    async with client_of(script, clock=clock) as client:
        assert await client.attempt(Failing(clock, "a", "b")) == "stored on c"
    assert [
        (each.backend_id, each.success, each.error, each.duration_ms, each.request_id)
        for each in script.asked["record"]
    ] == [
        ("a", False, "OSError: a is down", 500, "r1"),
        ("b", False, "OSError: b is down", 500, "r1"),
        ("c", True, "", 500, "r1"),
    ]


async def test_attempt_raises_the_last_error_with_a_note_for_each_before() -> None:
    script, clock = Script(select=chosen("a", "b"), record=recorded()), Ticking()
    async with client_of(script, clock=clock) as client:
        with pytest.raises(OSError, match="b is down") as caught:
            await client.attempt(Failing(clock, "a", "b"))
    assert caught.value.__notes__ == ["tried before: OSError: a is down"]


async def test_attempt_stops_after_as_many_as_were_allowed() -> None:
    script, clock = Script(select=chosen("a", "b", "c"), record=recorded()), Ticking()
    store = Failing(clock, "a", "b", "c")
    async with client_of(script, clock=clock) as client:
        with pytest.raises(OSError, match="b is down"):
            await client.attempt(store, attempts=2)
    assert store.tried == ["a", "b"]


async def test_attempt_wants_at_least_one_attempt() -> None:
    script = Script(select=chosen())
    async with client_of(script) as client:
        with pytest.raises(InvalidArgument, match="attempts: 0 is not valid; expected 1 or more"):
            await client.attempt(Failing(Ticking()), attempts=0)
    assert not script.asked


async def test_attempt_reports_nothing_of_an_operation_that_is_cancelled_and_tries_no_other() -> None:
    script, tried = Script(select=chosen("a", "b"), record=recorded()), []

    async def hang(backend_id: str) -> None:
        tried.append(backend_id)
        deadline.reschedule(0.0)
        await asyncio.Event().wait()

    async with client_of(script) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as deadline:
                await client.attempt(hang)
    assert tried == ["a"]
    assert "record" not in script.asked


async def test_attempt_goes_on_where_an_outcome_cannot_be_reported() -> None:
    script, clock = Script(select=chosen("a", "b"), record=GRPCError(Status.INTERNAL, "no")), Ticking()
    async with client_of(script, clock=clock) as client:
        assert await client.attempt(Failing(clock, "a")) == "stored on b"
        assert client.unrecorded == 2


async def test_what_the_wire_cannot_carry_is_refused_before_anything_is_sent() -> None:
    script = Script(select=chosen(), record=recorded())
    async with client_of(script) as client:
        for wrong in (
            {"size_bytes": 1 << 63},
            {"available_backends": "s3"},
        ):
            with pytest.raises(InvalidRequest):
                await client.select(**wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest):
            await client.record("s3", True, duration_ms=1 << 31)
        with pytest.raises(InvalidRequest):
            await client.insights(hours=1 << 31)
        with pytest.raises(TypeError, match="a Struct cannot hold a bytes"):
            await client.select(metadata={"require_tags": b"eu"})
    assert not script.asked
