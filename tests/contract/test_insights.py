"""GetInsights: what each field holds, over which window, and how narrowing works."""

from datetime import UTC, datetime
from typing import Any

import pytest

from routing import wire
from routing.core.model import Backend
from support.contract_world import NOON, World, world
from support.grpc_calls import status_of

HOUR_S = 3600

FIELDS = (
    "factor_weights",
    "backend_scores",
    "backend_success_rates",
    "content_type_distribution",
    "backend_usage_stats",
    "latency_stats",
)


async def told(server: World, **fields: Any) -> dict[str, Any]:
    response = await server.insights(**fields)
    return {name: wire.read_struct(getattr(response, name)) for name in FIELDS}


async def some_traffic(server: World) -> None:
    """3 images of 100 bytes on a, all well; 2 texts of 50 bytes on b, one failed."""
    for n in range(3):
        await server.select(
            available_backends=["a"], content_type="image/png", content_size=100, request_id=f"a{n}"
        )
        await server.record("a", request_id=f"a{n}", duration_ms=10 * (n + 1))
    for n in range(2):
        await server.select(
            available_backends=["b"], content_type="text/html", content_size=50, request_id=f"b{n}"
        )
        await server.record("b", request_id=f"b{n}", success=n == 0)


async def test_an_idle_server_tells_weights_and_scores_only() -> None:
    """a backend without outcomes is absent"""
    async with world(Backend(id="a"), Backend(id="off", enabled=False)) as server:
        response = await server.insights()
        insights = await told(server)
    assert response.timestamp == datetime.fromtimestamp(NOON, UTC)
    assert sum(insights["factor_weights"].values()) == pytest.approx(1)
    assert insights["backend_scores"].keys() >= {"a"}
    for name in ("backend_success_rates", "content_type_distribution", "latency_stats"):
        assert insights[name] == {}


async def test_every_field_has_its_shape() -> None:
    async with world(Backend(id="a"), Backend(id="b"), Backend(id="c")) as server:
        await some_traffic(server)
        insights = await told(server)
    assert insights["backend_success_rates"] == {"a": 1.0, "b": 0.5}
    assert insights["content_type_distribution"] == {"image/png": {"a": 3}, "text/html": {"b": 2}}
    usage = insights["backend_usage_stats"]
    assert usage["a"] == {
        "request_count": 3,
        "total_size": 300,
        "avg_content_size": 100,
        "outcome_count": 3,
        "success_count": 3,
        "failure_count": 0,
    }
    assert (usage["b"]["outcome_count"], usage["b"]["success_count"], usage["b"]["failure_count"]) == (
        2,
        1,
        1,
    )
    assert insights["latency_stats"].keys() == {"a"}
    assert insights["latency_stats"]["a"].keys() == {
        "count", "min_ms", "max_ms", "avg_ms", "p50_ms", "p90_ms", "p99_ms",
    }  # fmt: skip


async def test_backend_scores_are_the_scores_under_the_default_strategy_now() -> None:
    """{backend: score under the default strategy now, for `content_type` if given}"""
    image = Backend(id="image", content_affinity={"image/*": 1.0, "*/*": 0.0})
    async with world(image, Backend(id="plain"), weights={"content_affinity": 2.0}) as server:
        for content_type in ("", "image/png", "text/html"):
            scores = (await told(server, content_type=content_type))["backend_scores"]
            response = await server.select(content_type=content_type)
            assert scores.pop(response.backend_id) == pytest.approx(response.score, abs=1e-9)
            assert scores == pytest.approx({other.backend_id: other.score for other in response.alternatives})


async def test_a_backend_narrows_every_field_that_it_can() -> None:
    """`backend_id` and `content_type` narrow every field they can apply to"""
    async with world(Backend(id="a"), Backend(id="b")) as server:
        await some_traffic(server)
        everything, narrowed = await told(server), await told(server, backend_id="a")
    assert narrowed["factor_weights"] == everything["factor_weights"]
    for name in ("backend_scores", "backend_success_rates", "backend_usage_stats", "latency_stats"):
        assert narrowed[name] == {"a": everything[name]["a"]}
    assert narrowed["content_type_distribution"] == {"image/png": {"a": 3}}


async def test_a_content_type_narrows_every_field_that_it_can() -> None:
    """`backend_id` and `content_type` narrow every field they can apply to"""
    async with world(Backend(id="a"), Backend(id="b")) as server:
        await some_traffic(server)
        await server.record("a", success=False, content_type="text/html", duration_ms=700)
        narrowed = await told(server, content_type="text/html")
        both = await told(server, content_type="text/html", backend_id="a")
    assert narrowed["backend_success_rates"] == {"a": 0.0, "b": 0.5}
    assert narrowed["content_type_distribution"] == {"text/html": {"b": 2}}
    assert narrowed["backend_usage_stats"]["b"]["request_count"] == 2
    assert narrowed["backend_usage_stats"]["a"]["outcome_count"] == 1
    assert narrowed["latency_stats"] == {}
    assert both["backend_success_rates"] == {"a": 0.0}
    assert both["content_type_distribution"] == {}


async def test_latency_is_of_successes_only() -> None:
    """`latency_stats` are over successful outcomes"""
    async with world(Backend(id="a"), Backend(id="b")) as server:
        await server.record("a", duration_ms=200)
        for _ in range(9):
            await server.record("a", success=False, duration_ms=1)
        await server.record("b", success=False, duration_ms=1)
        latency = (await told(server))["latency_stats"]
    assert latency.keys() == {"a"}
    assert (latency["a"]["count"], latency["a"]["min_ms"], latency["a"]["max_ms"]) == (1, 200, 200)


@pytest.mark.parametrize("fields", [{"backend_id": "nobody"}, {"content_type": "never/seen"}])
async def test_what_nobody_did_is_empty_and_no_error(fields: dict[str, str]) -> None:
    async with world(Backend(id="a"), Backend(id="b")) as server:
        await some_traffic(server)
        insights = await told(server, **fields)
    assert insights["backend_success_rates"] == insights["latency_stats"] == {}
    assert insights["content_type_distribution"] == {}


async def test_quantiles_are_within_2_percent() -> None:
    """over outcomes with a duration; quantiles within 2 %"""
    async with world(Backend(id="a")) as server:
        for duration_ms in range(1, 1001):
            await server.record("a", duration_ms=duration_ms)
        await server.record("a")
        stats = (await told(server))["latency_stats"]["a"]
    assert (stats["count"], stats["min_ms"], stats["max_ms"]) == (1000, 1, 1000)
    assert stats["avg_ms"] == pytest.approx(500.5)
    for name, exact in [("p50_ms", 500), ("p90_ms", 900), ("p99_ms", 990)]:
        assert stats[name] == pytest.approx(exact, rel=0.021)


async def test_no_hours_are_24() -> None:
    """Aggregates over the last `time_window_hours` (0 means 24 …"""
    async with world(Backend(id="a")) as server:
        await server.record("a", ago_s=23 * HOUR_S)
        await server.record("a", ago_s=25 * HOUR_S, success=False)
        assert (await told(server))["backend_success_rates"] == {"a": 1.0}
        assert await told(server) == await told(server, time_window_hours=24)


async def test_negative_hours_are_refused() -> None:
    """negative is INVALID_ARGUMENT"""
    async with world(Backend(id="a")) as server:
        status, message = await status_of(server.insights(time_window_hours=-1))
    assert status == "INVALID_ARGUMENT"
    assert message == "time_window_hours: -1 is not valid; expected 0 or more"


@pytest.mark.parametrize("hours", [169, 10_000, 2**31 - 1])
async def test_more_than_the_retention_is_answered_for_the_retention(hours: int) -> None:
    """more than the retention, 168 hours by default, is answered for the retention"""
    async with world(Backend(id="a")) as server:
        await server.record("a", ago_s=167 * HOUR_S)
        await server.record("a", ago_s=HOUR_S)
        assert (await told(server, time_window_hours=hours))["backend_usage_stats"]["a"]["outcome_count"] == 2
        assert await told(server, time_window_hours=hours) == await told(server, time_window_hours=168)


async def test_a_window_moves_on_with_time() -> None:
    """Counts are exact over the window's granularity (at most 5 minutes)"""
    async with world(Backend(id="a")) as server:

        async def outcomes_of_an_hour() -> int:
            usage = (await told(server, time_window_hours=1))["backend_usage_stats"]
            return int(usage.get("a", {"outcome_count": 0})["outcome_count"])

        await server.record("a")
        server.wait(HOUR_S - 300)
        assert await outcomes_of_an_hour() == 1
        server.wait(600)
        assert await outcomes_of_an_hour() == 0


async def test_content_types_past_the_limit_fold_into_other() -> None:
    """content types past `max_content_types` fold into `other`"""
    async with world(Backend(id="a"), max_content_types=2) as server:
        for n in range(6):
            await server.select(content_type=f"x/{n}")
        distribution = (await told(server))["content_type_distribution"]
    assert len(distribution) <= 3
    assert "other" in distribution
    assert sum(counts["a"] for counts in distribution.values()) == 6
