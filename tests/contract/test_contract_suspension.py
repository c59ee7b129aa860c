"""SelectBackend: a backend that keeps failing is suspended, probed, and comes back."""

import pytest
from contract_world import World, world

from routing.core.model import Backend, Query

GOOD, BAD = Backend(id="good", latency_ms=200), Backend(id="bad", latency_ms=20)
"""`bad` is the better one until it fails."""


async def eligible(server: World, **fields: object) -> list[str]:
    response = await server.select(**fields)  # type: ignore[arg-type]
    return sorted([response.backend_id, *(other.backend_id for other in response.alternatives)])


async def outcomes(server: World, pattern: str, backend: str = "bad") -> None:
    """One outcome a letter: S for success, F for failure."""
    for letter in pattern:
        await server.record(backend, success=letter == "S")


async def choices(server: World, count: int, strategy: str = "hybrid") -> list[str]:
    """Many decisions, for which the wire would be slow: all but the last are made in the core."""
    query = Query(strategy=strategy)
    chosen = [server.router.select(query, now=server.now).chosen.backend_id for _ in range(count - 1)]
    return [*chosen, (await server.select(strategy=strategy)).backend_id]


@pytest.mark.parametrize(
    ("pattern", "state"),
    [
        ("FFFF", "ok"),
        ("FFFFF", "suspended"),
        ("FFFFSFFFF", "ok"),
        ("FFFFSFFFFS", "suspended"),
        ("FFFFSFFFFSFFFF", "suspended"),
        ("SSSSSSSSSSFFFF", "ok"),
        ("SSSSSSSSSSFFFFF", "suspended"),
        ("SFSFSFSFSFSFSFSSSSSS", "ok"),
    ],
)
async def test_a_backend_that_keeps_failing_is_suspended(pattern: str, state: str) -> None:
    """*suspended*: after 5 failures in a row, or when its learned probability of success is
    below 0.5 on at least 10 outcomes … `state` in StreamMetrics tells: `ok`, `suspended`"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, pattern)
        assert await server.state("bad") == state
        assert await eligible(server) == (["good"] if state == "suspended" else ["bad", "good"])


async def test_a_disabled_backend_is_told_as_disabled() -> None:
    """`state` in StreamMetrics tells: … `disabled`"""
    async with world(GOOD, Backend(id="off", enabled=False)) as server:
        assert [await server.state("good"), await server.state("off")] == ["ok", "disabled"]


@pytest.mark.parametrize(
    "strategy",
    ["hybrid", "performance", "cost", "reliability", "geographic", "content_type", "adaptive"],
)
async def test_a_suspended_backend_is_not_eligible_under_any_strategy(strategy: str) -> None:
    """A suspended backend is not eligible, under any strategy, while another eligible one is
    not suspended"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        for _ in range(5):
            assert await eligible(server, strategy=strategy) == ["good"]


async def test_where_all_are_suspended_all_stay_eligible() -> None:
    """if all are, all stay eligible"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        await outcomes(server, "FFFFF", "good")
        assert await eligible(server) == ["bad", "good"]
        assert await eligible(server, available_backends=["bad"]) == ["bad"]


async def test_a_suspended_backend_is_chosen_where_no_other_may_be() -> None:
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        assert await eligible(server, available_backends=["bad"]) == ["bad"]
        assert await eligible(server, metadata={"exclude_backends": ["good"]}) == ["bad"]


async def test_the_first_probe_comes_after_30_seconds() -> None:
    """A decision now and then goes to it as a probe (first after 30 seconds …"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        server.wait(29.9)
        assert await choices(server, 3) == ["good"] * 3
        server.wait(0.2)
        assert await choices(server, 3) == ["bad", "good", "good"]


async def test_the_first_probe_comes_after_200_decisions() -> None:
    """… or 200 decisions it would have been eligible for, whichever comes first"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        for _ in range(300):  # it would not have been eligible for these
            await server.select(available_backends=["good"])
        assert "bad" not in await choices(server, 199)
        assert (await choices(server, 2)).count("bad") == 1


async def test_waits_double_with_each_failed_probe_up_to_10_minutes() -> None:
    """doubling with each failed probe, up to 10 minutes …"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        for wait_s in (30, 60, 120, 240, 480, 600, 600):
            server.wait(wait_s - 0.1)
            assert await choices(server, 2) == ["good"] * 2
            server.wait(0.2)
            assert await choices(server, 1) == ["bad"]
            await outcomes(server, "F")


async def test_decisions_double_with_each_failed_probe_up_to_4000() -> None:
    """… or 4,000 decisions"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        for wait in (200, 400, 800, 1600, 3200, 4000, 4000):
            chosen = await choices(server, wait - 1)
            assert "bad" not in chosen
            assert (await choices(server, 2)).count("bad") == 1
            await outcomes(server, "F")


async def test_a_probe_says_that_it_is_one() -> None:
    """(the schema: whether the choice re-checks a suspended backend)"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        server.wait(31)
        probe, after = await server.select(explain=True), await server.select(explain=True)
    assert (probe.backend_id, after.backend_id) == ("bad", "good")
    assert probe.explanation.fields["probe"].bool_value is True
    assert after.explanation.fields["probe"].bool_value is False
    assert "suspended" in after.explanation.fields["ineligible"].struct_value.fields["bad"].string_value


async def test_successes_lift_the_suspension() -> None:
    """and successes lift the suspension"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        assert await server.state("bad") == "suspended"
        await outcomes(server, "SSSSS")
        assert await server.state("bad") == "ok"
        assert await eligible(server) == ["bad", "good"]


async def test_adaptive_rechecks_backends_that_failed() -> None:
    """`adaptive` (… and a share of traffic re-checks backends that failed)"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        for wait_s in (31, 61, 121, 241):
            server.wait(wait_s)
            assert await choices(server, 1) == ["bad"]
            await outcomes(server, "F")
        # Any other strategy now waits for 3,200 decisions.
        assert "bad" not in await choices(server, 300)
        adaptive = await choices(server, 300, "adaptive")
        assert 0 < adaptive.count("bad") < 10
