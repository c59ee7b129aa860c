"""The in-process mode: a whole server, without a socket."""

from pathlib import Path

import pytest

from routing.client import NoBackend, sync
from routing.client.testing import in_process
from routing.core.model import Backend
from routing.errors import ConfigError

NOW = 1_772_366_400.0

FAST = Backend(id="fast", latency_ms=10.0, tags=frozenset({"hot"}))
SLOW = Backend(id="slow", latency_ms=9_000.0)


async def test_the_real_router_decides_among_the_backends_given() -> None:
    async with in_process([FAST, SLOW]) as client:
        selection = await client.select(explain=True)
        assert selection.backend_ids == ("fast", "slow")
        assert selection.explanation is not None
        weights = (await client.insights()).factor_weights
        dot = sum(weights[factor] * score for factor, score in selection.factor_scores.items())
        assert selection.score == pytest.approx(dot, abs=1e-6)


async def test_without_backends_it_knows_the_default_profiles() -> None:
    async with in_process() as client:
        assert sorted((await client.select()).backend_ids) == ["filecoin", "ipfs", "s3"]


async def test_a_config_file_is_read_but_not_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTING_DISCOVER", "maybe")
    config = tmp_path / "routing.toml"
    config.write_text("[[backends]]\nid = 'mine'\n")
    async with in_process(config=str(config)) as client:
        assert (await client.select()).backend_ids == ("mine",)
    with pytest.raises(ConfigError):
        async with in_process(config=str(tmp_path / "absent.toml")):
            pass


async def test_outcomes_are_learned_from() -> None:
    async with in_process([FAST, SLOW]) as client:

        async def store(backend_id: str) -> str:
            if backend_id == "fast":
                raise OSError("on fire")
            return backend_id

        for _ in range(6):
            assert await client.attempt(store, content_type="image/png") == "slow"
        insights = await client.insights()
        assert insights.backend_success_rates["slow"] == 1.0
        assert insights.backend_success_rates["fast"] == 0.0
        assert (await client.select()).backend_id == "slow"
        assert client.unrecorded == 0


async def test_the_clock_is_the_tests() -> None:
    async with in_process([FAST], clock=lambda: NOW) as client:
        assert (await client.select()).at.timestamp() == NOW


async def test_the_same_seed_gives_the_same_answers() -> None:
    async def explored(seed: int) -> list[str]:
        async with in_process([FAST, SLOW, Backend(id="odd")], clock=lambda: NOW, seed=seed) as client:
            return [(await client.select(strategy="adaptive")).backend_id for _ in range(30)]

    assert await explored(1) == await explored(1) != await explored(2)


async def test_what_it_refuses_the_real_one_refuses() -> None:
    async with in_process([FAST, SLOW]) as client:
        with pytest.raises(NoBackend, match="slow: "):
            await client.select(metadata={"require_tags": ["cold"]})


async def test_a_retried_report_counts_once() -> None:
    async with in_process([FAST]) as client:
        selection = await client.select()
        for _ in range(3):
            await client.record("fast", True, request_id=selection.request_id)
        insights = await client.insights()
        assert insights.backend_usage_stats["fast"].outcome_count == 1


def test_the_synchronous_twin_lives_there_too() -> None:
    with sync.RoutingClient.of(in_process([FAST, SLOW])) as client:
        assert client.attempt(str.upper, content_type="image/png") == "FAST"
        assert client.insights().backend_success_rates == {"fast": 1.0}
