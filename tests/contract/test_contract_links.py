"""Which decision an outcome belongs to, who holds what, and limits of what is in flight."""

from typing import Any

import pytest

from routing import wire
from routing.core.model import Backend
from support.contract_world import World, world
from support.grpc_calls import status_of

RETRIEVE = {"operation": "retrieve"}
LINKED = "recorded for its decision"


async def candidates(server: World, **fields: Any) -> list[str]:
    response = await server.select(content_hash="h", metadata=RETRIEVE, **fields)
    return [response.backend_id, *(one.backend_id for one in response.alternatives)]


async def retrieve(server: World, *, has: str, fault: str = "", **fields: Any) -> str:
    server.wait(1)
    asked = await server.select(content_hash="h", metadata=RETRIEVE, request_id=f"r{server.now}", **fields)
    name = asked.backend_id
    await server.record(name, success=name in has, request_id=asked.request_id, fault=fault, duration_ms=100)
    return name


async def outcomes(server: World) -> int:
    return int((await server.metrics())["system"]["outcomes_total"])


async def test_a_holder_that_lost_an_object_is_left_from_its_third_retrieval_on() -> None:
    """A holder whose last two retrievals of this hash failed comes after all others, and no longer
    holds it once it has succeeded with anything since; … a successful retrieval makes it a holder
    again."""
    async with world(Backend(id="a"), Backend(id="b"), Backend(id="c")) as server:
        for name in "ab":
            await server.record(name, content_hash="h", duration_ms=100)
        for _ in range(20):
            await server.record("a", duration_ms=1)
        assert [await retrieve(server, has="b") for _ in range(5)] == ["a", "a", "b", "b", "b"]
        assert await candidates(server) == ["b", "a"]
        await server.record("a", duration_ms=100)
        assert await candidates(server) == ["b"]
        assert await server.state("a") == "ok"
        assert await retrieve(server, has="a", available_backends=["a"]) == "a"
        assert sorted(await candidates(server)) == ["a", "b"]


async def test_fault_content_ends_a_holding_at_once() -> None:
    """fault `content` does so at once"""
    async with world(Backend(id="a"), Backend(id="b")) as server:
        for name in "ab":
            await server.record(name, content_hash="h", duration_ms=100)
        assert await retrieve(server, has="b", fault="content") == "a"
        assert await candidates(server) == ["b"]


async def test_with_available_backends_known_holders_come_first() -> None:
    """where `available_backends` is given, known holders among it come first, and the others stay
    eligible"""
    async with world(Backend(id="a"), Backend(id="b"), Backend(id="c")) as server:
        await server.record("c", content_hash="h")
        assert await candidates(server, available_backends=["a", "b", "c"]) == ["c", "a", "b"]
        assert await candidates(server, available_backends=["a", "b"]) == ["a", "b"]


async def test_one_request_and_backend_count_once_within_an_hour() -> None:
    """Within an hour one `request_id` and backend count once, whether or not the decision is
    remembered …, unless the same `request_id` was decided anew"""
    async with world(Backend(id="a"), Backend(id="b")) as server:
        for _ in range(5):
            assert (await server.record("a", success=False, request_id="unknown")).success
        assert await outcomes(server) == 1
        assert await server.state("a") == "ok"
        for number in range(2, 4):
            await server.select(request_id="r")
            for _ in range(3):
                await server.record("a", request_id="r")
            assert await outcomes(server) == number
        server.wait(3601)
        await server.record("a", request_id="unknown")
        assert await outcomes(server) == 4


async def test_a_success_after_a_failure_is_not_counted_and_makes_a_holder() -> None:
    """a success after a failure is not counted again, but makes the backend a holder"""
    async with world(Backend(id="a"), Backend(id="b")) as server:
        await server.select(request_id="r", content_hash="h", available_backends=["b"])
        await server.record("b", success=False, request_id="r")
        assert (await server.record("b", success=True, request_id="r")).success
        assert await outcomes(server) == 1
        assert await candidates(server) == ["b"]


@pytest.mark.parametrize(("max_pending", "said"), [(3, "recorded"), (4, LINKED)])
async def test_a_decision_is_linked_if_it_is_among_the_last_max_pending(max_pending: int, said: str) -> None:
    """(and is among the last `max_pending`, 500,000 by default)"""
    async with world(Backend(id="a"), max_pending=max_pending) as server:
        for number in range(4):
            await server.select(request_id=f"r{number}")
        assert (await server.record("a", request_id="r0")).message == said


async def test_a_full_backend_comes_after_those_with_room() -> None:
    """A backend with `max_inflight` operations in flight comes after those with room, unless none
    of its decisions was reported in the last 10 minutes."""
    good, plain = Backend(id="good", max_inflight=20), Backend(id="plain", success_rate=0.5, latency_ms=900)
    async with world(good, plain) as server:
        chosen = [(await server.select()).backend_id for _ in range(300)]
        assert (chosen.count("good"), chosen.count("plain")) == (20, 280)
        assert (await server.select()).alternatives[0].backend_id == "good"
        for _ in range(620):
            server.wait(1)
            last = (await server.select()).backend_id
        assert last == "good"


async def test_a_name_that_is_no_longer_configured_holds_nothing() -> None:
    """A name that is no longer configured holds nothing."""
    async with world(Backend(id="old"), Backend(id="kept")) as server:
        await server.record("old", content_hash="h", duration_ms=1)
        snapshot = server.router.snapshot(now=server.now)
    async with world(Backend(id="new"), Backend(id="kept")) as server:
        server.router.merge(snapshot, now=server.now)
        assert sorted(await candidates(server)) == ["kept", "new"]
        await server.record("old", request_id="straggler")
        assert {(await server.select()).backend_id for _ in range(10)} <= {"kept", "new"}
        status, _ = await status_of(server.select(metadata={"exclude_backends": ["kept", "new"]}))
        assert status == "FAILED_PRECONDITION"
        response = await server.select(available_backends=["old"], explain=True)
        explained = wire.read_struct(response.explanation)["candidates"]
        assert explained["old"]["origin"] == "discovered"
