"""RecordOutcome: what is taken in, what is refused, and what it is linked with."""

from datetime import UTC, datetime
from typing import Any

import pytest

from routing import wire
from routing.core.model import Backend
from support.contract_world import NOON, World, world
from support.grpc_calls import status_of

HOUR_S = 3600


async def success_rates(server: World, **fields: Any) -> dict[str, float]:
    rates: dict[str, float] = wire.read_struct((await server.insights(**fields)).backend_success_rates)
    return rates


async def test_the_next_decision_already_reflects_an_outcome() -> None:
    """Tells the router how an operation went. The next decision already reflects it."""
    async with world(Backend(id="a"), Backend(id="b")) as server:
        assert (await server.select()).backend_id == "a"
        await server.record("a", success=False)
        response = await server.select()
    assert response.backend_id == "b"
    assert response.alternatives[0].score < response.score


async def test_a_backend_is_required() -> None:
    """`backend_id` is required"""
    async with world(Backend(id="a")) as server:
        status, message = await status_of(server.record(""))
    assert status == "INVALID_ARGUMENT"
    assert message.startswith("backend_id: '' is not valid")


async def test_a_backend_that_the_server_does_not_know_is_admitted() -> None:
    """one that the server does not know is admitted … as in SelectBackend"""
    async with world(Backend(id="a")) as server:
        assert (await server.record("new")).success
        backends = (await server.metrics(include_backends=True))["backends"]
    assert backends["new"]["outcomes"] == 1


async def test_a_duration_of_0_was_not_measured() -> None:
    """`duration_ms` 0 means not measured"""
    async with world(Backend(id="a")) as server:
        before = await server.factors()
        for _ in range(5):
            await server.record("a", duration_ms=0)
        insights = await server.insights()
        assert (await server.factors())["performance"] == pytest.approx(before["performance"])
        assert wire.read_struct(insights.latency_stats) == {}
        assert wire.read_struct(insights.backend_success_rates) == {"a": 1.0}
        assert (await server.metrics(include_backends=True))["backends"]["a"]["latency_ms"] is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"duration_ms": -1}, "duration_ms"),
        ({"content_size": -1}, "content_size"),
        ({"content_type": "t" * 256}, "content_type"),
        ({"content_hash": "h" * 1025}, "content_hash"),
        ({"request_id": "r" * 257}, "request_id"),
        ({"ago_s": -301}, "timestamp"),
        ({"fault": "nobody"}, "fault"),
        ({"fault": "Backend"}, "fault"),
    ],
)
async def test_what_the_contract_calls_invalid_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    """negative is INVALID_ARGUMENT, as is a negative `content_size` … More than 5 minutes in
    the future is INVALID_ARGUMENT"""
    async with world(Backend(id="a")) as server:
        status, message = await status_of(server.record("a", **fields))
        assert (status, message.split(": ")[0]) == ("INVALID_ARGUMENT", named)
        assert await success_rates(server) == {}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"success": False},
        {"error": "e" * 100_000},
        {"error": "€" * 10_000},
        {"content_size": 2**63 - 1, "duration_ms": 2**31 - 1},
        {"content_hash": "h" * 1024, "content_type": "t" * 255, "request_id": "r" * 256},
        {"ago_s": -300},
        {"ago_s": 167 * HOUR_S},
    ],
)
async def test_everything_else_is_recorded(fields: dict[str, Any]) -> None:
    """`error` is kept to its first 1,024 bytes. … An outcome without a decision is recorded
    all the same, from its own fields."""
    async with world(Backend(id="a")) as server:
        response = await server.record("a", **fields)
        assert response.success
        assert response.timestamp == datetime.fromtimestamp(NOON, UTC)
        assert await success_rates(server, time_window_hours=168) == {"a": float(fields.get("success", True))}


@pytest.mark.parametrize("success", [True, False])
async def test_success_in_the_response_is_about_the_recording(success: bool) -> None:
    """`success` in the response says whether the outcome was recorded, never whether the
    operation had succeeded."""
    async with world(Backend(id="a")) as server:
        assert (await server.record("a", success=success)).success is True
        assert (await server.record("a", success=success, ago_s=169 * HOUR_S)).success is False


async def test_an_outcome_older_than_the_retention_is_not_recorded_and_says_so() -> None:
    """Older than the server's retention: `success` false and a message that says so, with
    status OK and nothing recorded."""
    async with world(Backend(id="a"), retention_hours=24) as server:
        for ago_s in (24 * HOUR_S + 1, 10**9):
            response = await server.record("new", ago_s=ago_s)
            assert response.success is False
            assert "24 hours" in response.message
        update = await server.metrics(include_backends=True)
        assert sorted(update["backends"]) == ["a"]
        assert update["system"]["outcomes_total"] == 0
        assert (await server.record("a", ago_s=24 * HOUR_S - 300)).success


async def test_an_outcome_counts_when_it_happened() -> None:
    """`timestamp`, if set, is when it happened."""
    async with world(Backend(id="a")) as server:
        await server.record("a", ago_s=3 * HOUR_S)
        assert await success_rates(server, time_window_hours=2) == {}
        assert await success_rates(server, time_window_hours=4) == {"a": 1.0}


LINKS = [
    ({"request_id": "r-1"}, {"request_id": "r-1"}),
    ({"content_hash": "h"}, {"content_hash": "h"}),
    ({"content_hash": "h", "request_id": "r-1"}, {"content_hash": "h"}),
]


@pytest.mark.parametrize(("asked", "told"), LINKS)
async def test_an_outcome_is_linked_to_its_decision(asked: dict[str, str], told: dict[str, str]) -> None:
    """The outcome is linked to its decision by `request_id`, or where that is empty by
    `content_hash` and `backend_id` … then it also teaches about that request's client
    location, type and size."""
    async with world(Backend(id="a", max_inflight=10)) as server:
        await server.select(content_type="video/mp4", content_size=1000, **asked)
        assert (await server.factors())["load"] == 0.9
        await server.record("a", **told)
        assert (await server.factors())["load"] == 0.9  # one reported, one decided since
        assert await success_rates(server, content_type="video/mp4") == {"a": 1.0}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"request_id": "r-1"}, {"request_id": "r-2"}),
        ({"content_hash": "h"}, {"content_hash": "g"}),
        ({"content_hash": "h", "request_id": "r-1"}, {"content_hash": "h", "request_id": "r-2"}),
        ({}, {}),
    ],
)
async def test_an_outcome_of_something_else_is_not_linked(
    asked: dict[str, str], told: dict[str, str]
) -> None:
    async with world(Backend(id="a")) as server:
        await server.select(content_type="video/mp4", **asked)
        assert (await server.record("a", **told)).success
        assert await success_rates(server, content_type="video/mp4") == {}
        assert await success_rates(server) == {"a": 1.0}


@pytest.mark.parametrize(("asked", "told"), LINKS)
async def test_a_decision_is_remembered_for_an_hour(asked: dict[str, str], told: dict[str, str]) -> None:
    """if such a decision was made in the last hour"""
    for waited_s, rates in [(3599, {"a": 1.0}), (3601, {})]:
        async with world(Backend(id="a")) as server:
            await server.select(content_type="video/mp4", **asked)
            server.wait(waited_s)
            assert (await server.record("a", **told)).success
            assert await success_rates(server, content_type="video/mp4") == rates


@pytest.mark.parametrize(("asked", "told"), LINKS)
@pytest.mark.parametrize("slow_s", [60, 2 * HOUR_S, 400 * HOUR_S])
async def test_a_linked_outcome_happened_at_its_decision_at_the_earliest(
    asked: dict[str, str], told: dict[str, str], slow_s: float
) -> None:
    """a linked outcome happened at its decision at the earliest, whatever the client's clock
    says (the link is found before retention is judged)"""
    async with world(Backend(id="a")) as server:
        await server.record("a", success=True)
        server.wait(1)
        for _ in range(5):
            await server.select(**asked)
            server.wait(1)
            assert (await server.record("a", success=False, ago_s=slow_s, **told)).success
        assert await server.state("a") == "suspended"
        assert await success_rates(server, time_window_hours=1) == {"a": pytest.approx(1 / 6)}


async def test_a_fault_of_the_callers_is_counted_and_teaches_nothing() -> None:
    """`caller` (the caller's own code, credentials or network: counted, teaches nothing,
    suspends nobody)"""
    async with world(Backend(id="a"), Backend(id="b")) as server:
        before = await server.factors()
        for n in range(20):
            await server.select(request_id=f"r{n}")
            await server.record("a", success=False, request_id=f"r{n}", fault="caller")
        assert await server.state("a") == "ok"
        assert (await server.factors()) == before
        assert await success_rates(server) == {"a": 0.0}
        assert (await server.update()).status == wire.MetricsUpdateSystemStatus.NORMAL


async def test_a_fault_of_the_content_teaches_of_a_store_and_suspends_nobody() -> None:
    """`content` (… of a store it teaches about its operation, type and size …; it ends no run of
    failures and lengthens none)"""
    async with world(Backend(id="a")) as server:
        before = await server.factors()
        for n in range(20):
            await server.record("a", success=False, fault="content", request_id=f"r{n}")
        assert await server.state("a") == "ok"
        assert (await server.factors())["reliability"] < before["reliability"]
        assert (await server.update()).status == wire.MetricsUpdateSystemStatus.NORMAL


async def test_a_fault_of_the_content_neither_ends_nor_lengthens_a_run_of_failures() -> None:
    async with world(Backend(id="a")) as server:
        await server.record("a", success=True, duration_ms=1)
        for n in range(4):
            await server.record("a", success=False)
            await server.record("a", success=False, fault="content", request_id=f"r{n}")
        assert await server.state("a") == "ok"
        await server.record("a", success=False)
        assert await server.state("a") == "suspended"


async def test_a_fault_of_the_content_of_a_retrieval_is_about_its_hash_alone() -> None:
    """of a retrieval about this hash alone"""
    async with world(Backend(id="a")) as server:
        before = await server.factors()
        for n in range(20):
            await server.select(request_id=f"r{n}", content_hash=f"h{n}", metadata={"operation": "retrieve"})
            await server.record("a", success=False, fault="content", request_id=f"r{n}")
        assert await server.state("a") == "ok"
        assert await server.factors() == before


@pytest.mark.parametrize("fault", ["backend", "caller", "content", ""])
async def test_beside_success_a_fault_is_ignored(fault: str) -> None:
    """Beside success it is ignored."""
    factors = []
    for told in (fault, ""):
        async with world(Backend(id="a")) as server:
            for _ in range(3):
                await server.record("a", success=True, fault=told, duration_ms=20)
            factors.append(await server.factors())
    assert factors[0] == factors[1]


async def test_an_outcome_teaches_about_the_place_and_type_of_its_request() -> None:
    """then it also teaches about that request's client location, type and size"""
    place = (48.9, 2.4, "")
    async with world(Backend(id="a"), Backend(id="b")) as server:
        for n in range(12):
            await server.select(
                request_id=f"r-{n}", content_type="video/mp4", at=place, available_backends=["a"]
            )
            await server.record("a", duration_ms=2000, request_id=f"r-{n}")
            await server.record("a", duration_ms=100)
        here = await server.factors(content_type="video/mp4", at=place, available_backends=["a"])
        elsewhere = await server.factors(
            content_type="text/html", at=(-33.9, 151.2, ""), available_backends=["a"]
        )
    assert here["performance"] < elsewhere["performance"] - 0.05


async def test_an_outcomes_own_fields_come_before_the_decisions() -> None:
    async with world(Backend(id="a")) as server:
        await server.select(request_id="r", content_type="video/mp4")
        await server.record("a", request_id="r", content_type="text/html")
        assert await success_rates(server, content_type="text/html") == {"a": 1.0}
        assert await success_rates(server, content_type="video/mp4") == {}
