"""StreamMetrics: when updates come, what they hold, and how the backends do."""

from datetime import UTC, datetime
from typing import Any

import pytest

from routing import wire
from routing.core.model import Backend
from support.contract_world import NOON, World, world
from support.grpc_calls import status_of

DEFAULT = {"factor_weights", "backend_scores", "success_rates", "latency_stats", "system"}
SECTIONS = [*DEFAULT, "content_distribution", "usage_stats"]


async def test_one_update_comes_at_once_and_then_one_every_interval() -> None:
    """Sends one update at once, then one every `update_interval_seconds` (0 means 1 …"""
    for asked, seconds in [(0, 1), (1, 1), (7, 7), (3600, 3600)]:
        async with world(Backend(id="a")) as server:
            stream = server.updates(update_interval_seconds=asked)
            await anext(stream)
            for _ in range(3):
                await server.ticks.asleep(1)
                server.wait(seconds)
                server.ticks.advance(seconds)
                update = await anext(stream)
                assert update.timestamp == datetime.fromtimestamp(server.now, UTC)


@pytest.mark.parametrize("seconds", [-1, 3601, -(2**31), 2**31 - 1])
async def test_an_interval_out_of_range_is_refused(seconds: int) -> None:
    """negative, or more than 3,600, is INVALID_ARGUMENT"""
    async with world(Backend(id="a")) as server:
        status, message = await status_of(server.update(update_interval_seconds=seconds))
    assert status == "INVALID_ARGUMENT"
    assert message == f"update_interval_seconds: {seconds} is not valid; expected 0 to 3,600"


async def test_it_ends_when_the_client_cancels() -> None:
    """until the client cancels …"""
    async with world(Backend(id="a")) as server:
        await server.update()
        await server.calls.wait_idle()
        assert (await server.metrics())["system"]["active_streams"] == 1


async def test_it_ends_when_the_server_drains() -> None:
    """… or the server drains"""
    async with world(Backend(id="a")) as server:
        stream = server.updates()
        await anext(stream)
        await server.calls.drain()
        assert (await status_of(anext(stream)))[0] == "UNAVAILABLE"


@pytest.mark.parametrize("name", sorted(SECTIONS))
async def test_each_metrics_type_is_a_key_of_metrics(name: str) -> None:
    """`metrics_types` picks from `factor_weights`, … Each is a key of `metrics`."""
    async with world(Backend(id="a")) as server:
        assert (await server.metrics(metrics_types=[name])).keys() == {name}


async def test_no_metrics_types_are_the_default_ones() -> None:
    """empty means all but `content_distribution` and `usage_stats`"""
    async with world(Backend(id="a")) as server:
        assert (await server.metrics()).keys() == DEFAULT
        assert (await server.metrics(metrics_types=SECTIONS)).keys() == set(SECTIONS)


async def test_what_came_after_the_contract_is_sent_only_to_those_who_name_it() -> None:
    """Additions are allowed: a client of before them sees what it saw."""
    async with world(Backend(id="a")) as server:
        for default in ({}, {"include_backends": True, "include_content_types": True}):
            assert "learned" not in await server.metrics(**default)
        assert (await server.metrics(metrics_types=["learned"])).keys() == {"learned"}
        status, message = await status_of(server.update(metrics_types=["learnt"]))
    assert status == "INVALID_ARGUMENT"
    assert message.endswith("usage_stats, system, learned")


async def test_an_unknown_metrics_type_is_refused_with_the_valid_ones() -> None:
    """an unknown name is INVALID_ARGUMENT, and the message lists the valid ones"""
    async with world(Backend(id="a")) as server:
        status, message = await status_of(server.update(metrics_types=["system", "cpu"]))
    assert status == "INVALID_ARGUMENT"
    assert message.startswith("metrics_types: 'cpu' is not valid")
    assert all(name in message for name in SECTIONS)


async def test_sections_say_what_insights_say() -> None:
    async with world(Backend(id="a"), Backend(id="b")) as server:
        for n in range(4):
            await server.select(content_type="image/png", content_size=10, request_id=f"r{n}")
            await server.record("a", success=n > 0, duration_ms=30, request_id=f"r{n}")
        update = await server.metrics(metrics_types=SECTIONS)
        insights = await server.insights()
    for section, field in [
        ("factor_weights", "factor_weights"),
        ("backend_scores", "backend_scores"),
        ("success_rates", "backend_success_rates"),
        ("latency_stats", "latency_stats"),
        ("content_distribution", "content_type_distribution"),
        ("usage_stats", "backend_usage_stats"),
    ]:
        assert update[section] == wire.read_struct(getattr(insights, field))
        assert update[section]


async def test_include_backends_adds_them() -> None:
    """`include_backends` adds `backends`: {backend: {score, success_rate, latency_ms, state,
    decisions, outcomes}}"""
    async with world(Backend(id="a"), Backend(id="off", enabled=False)) as server:
        for _ in range(2):
            await server.select()
        await server.record("a", duration_ms=100)
        update = await server.metrics(metrics_types=["system"], include_backends=True)
        insights = await server.insights()
    assert update.keys() == {"system", "backends"}
    a, off = update["backends"]["a"], update["backends"]["off"]
    assert a == {
        "score": wire.read_struct(insights.backend_scores)["a"],
        "success_rate": 1.0,
        "latency_ms": pytest.approx(100, rel=0.02),
        "state": "ok",
        "origin": "configured",
        "decisions": 2,
        "outcomes": 1,
    }
    assert off.keys() == a.keys()
    assert (off["state"], off["decisions"], off["outcomes"]) == ("disabled", 0, 0)
    assert off["success_rate"] is off["latency_ms"] is None


async def test_include_content_types_adds_their_distribution() -> None:
    """`include_content_types` adds `content_distribution`"""
    async with world(Backend(id="a")) as server:
        await server.select(content_type="image/png")
        update = await server.metrics(include_content_types=True)
    assert update.keys() == DEFAULT | {"content_distribution"}
    assert update["content_distribution"] == {"image/png": {"a": 1}}


async def test_system_tells_what_the_server_did() -> None:
    """`system`: {uptime_seconds, decisions_total, outcomes_total, decisions_per_second,
    active_streams, version}"""
    async with world(Backend(id="a")) as server:
        for _ in range(3):
            await server.select()
        await server.record("a")
        server.ticks.advance(20.0)
        other = server.updates()
        await anext(other)
        system = (await server.metrics())["system"]
    assert system.pop("decisions_per_second") > 0
    assert system == {
        "uptime_seconds": 20.0,
        "decisions_total": 3,
        "outcomes_total": 1,
        "active_streams": 2,
        "version": "1.2.3",
    }


async def test_a_server_that_rests_makes_no_decisions_per_second() -> None:
    async with world(Backend(id="a")) as server:
        await server.select()
        server.wait(3600)
        assert (await server.metrics())["system"]["decisions_per_second"] == 0


async def outcomes(server: World, backend: str, successes: int, failures: int, **fields: Any) -> None:
    for _ in range(successes):
        await server.record(backend, success=True, **fields)
    for _ in range(failures):
        await server.record(backend, success=False, **fields)


@pytest.mark.parametrize(
    ("per_backend", "status"),
    [
        ({}, "NORMAL"),
        ({"a": (10, 0)}, "NORMAL"),
        ({"a": (9, 1)}, "NORMAL"),
        ({"a": (89, 11)}, "WARNING"),
        ({"a": (7, 3)}, "WARNING"),
        ({"a": (69, 31)}, "CRITICAL"),
        ({"a": (0, 10)}, "CRITICAL"),
        ({"a": (0, 9)}, "NORMAL"),
        ({"a": (10, 0), "b": (8, 2)}, "WARNING"),
        ({"a": (8, 2), "b": (5, 5)}, "CRITICAL"),
    ],
)
async def test_the_status_is_the_worst_of_the_backends(
    per_backend: dict[str, tuple[int, int]], status: str
) -> None:
    """over the last 5 minutes of outcomes per backend (with at least 10): CRITICAL if any
    backend's success rate is below 0.7, else WARNING if any is below 0.9, else NORMAL"""
    async with world(Backend(id="a"), Backend(id="b")) as server:
        for backend, (successes, failures) in per_backend.items():
            await outcomes(server, backend, successes, failures)
        update = await server.update()
    assert update.status.name == status
    assert update.timestamp == datetime.fromtimestamp(NOON, UTC)


async def test_the_status_forgets_after_5_minutes() -> None:
    """over the last 5 minutes of outcomes"""
    async with world(Backend(id="a")) as server:
        await outcomes(server, "a", 0, 10)
        server.wait(270)
        assert (await server.update()).status.name == "CRITICAL"
        server.wait(60)
        assert (await server.update()).status.name == "NORMAL"
        await outcomes(server, "a", 0, 10, ago_s=400)
        assert (await server.update()).status.name == "NORMAL"
