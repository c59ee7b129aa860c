"""What GetInsights and StreamMetrics say, against what was done."""

import json
from typing import Any

import pytest

from routing.core.beliefs import learned
from routing.core.model import Backend, SystemStatus
from routing.core.report import SECTIONS, Metrics, SystemFacts, insights, metrics, prepare, status
from support.makers import NOON, Clock, router

FACTS = SystemFacts(uptime_seconds=1000.0, active_streams=3, version="1.2.3")


def day() -> Clock:
    """Three requests, four outcomes, one of them without a duration and one without a decision."""
    clock = Clock(router(["a", "b", Backend("off", enabled=False)]))
    only_a, only_b = ("a",), ("b",)
    clock.select(available_backends=only_a, content_type="image/png", size_bytes=1000, request_id="r1")
    clock.select(available_backends=only_a, content_type="text/plain", size_bytes=3000, request_id="r2")
    clock.select(available_backends=only_b, content_type="image/png", request_id="r3")
    clock.succeed("a", request_id="r1", duration_ms=100)
    clock.fail("a", request_id="r2")
    clock.succeed("b", request_id="r3", duration_ms=900)
    clock.succeed("b", content_type="image/png", duration_ms=300)
    return clock


def asked(clock: Clock, *names: str, backends: bool = False, types: bool = False) -> Metrics:
    return metrics(
        clock.router,
        sections=names,
        include_backends=backends,
        include_content_types=types,
        system=FACTS,
        now=clock.now,
    )


# --- GetInsights ---


@pytest.mark.parametrize("hours", [0, 3, 168])
@pytest.mark.parametrize("content_type", ["", "image/png"])
def test_what_is_gathered_in_steps_is_what_is_answered_at_once(hours: int, content_type: str) -> None:
    asked = {"hours": hours, "content_type": content_type, "now": NOON + 7200.0}
    at_once, in_steps = day().router, day().router
    for _ in prepare(in_steps, **asked):
        pass
    said = insights(in_steps, **asked)
    assert said == insights(at_once, **asked)
    assert said.backend_usage_stats["b"]["request_count"] == 1


def test_insights_say_what_happened() -> None:
    said = insights(day().router, now=NOON)
    assert said.backend_success_rates == {"a": 0.5, "b": 1.0}
    assert said.content_type_distribution == {"image/png": {"a": 1, "b": 1}, "text/plain": {"a": 1}}
    assert said.backend_usage_stats == {
        "a": {
            "request_count": 2,
            "total_size": 4000,
            "avg_content_size": 2000.0,
            "outcome_count": 2,
            "success_count": 1,
            "failure_count": 1,
        },
        "b": {
            "request_count": 1,
            "total_size": 0,
            "avg_content_size": 0.0,
            "outcome_count": 2,
            "success_count": 2,
            "failure_count": 0,
        },
    }
    assert list(said.latency_stats) == ["a", "b"]
    assert said.latency_stats["a"] == dict.fromkeys(
        ("min_ms", "max_ms", "avg_ms", "p50_ms", "p90_ms", "p99_ms"), 100.0
    ) | {"count": 1}
    assert said.latency_stats["b"] == {
        "count": 2,
        "min_ms": 300,
        "max_ms": 900,
        "avg_ms": 600.0,
        "p50_ms": pytest.approx(600.0, rel=0.02),
        "p90_ms": pytest.approx(840.0, rel=0.02),
        "p99_ms": pytest.approx(894.0, rel=0.02),
    }


def test_the_weights_and_scores_are_those_that_decide() -> None:
    clock = day()
    said = insights(clock.router, now=NOON)
    assert sum(said.factor_weights.values()) == pytest.approx(1.0, abs=1e-12)
    assert set(said.backend_scores) == {"a", "b"}
    decision = clock.select()
    ranked = (decision.chosen, *decision.others)
    assert said.backend_scores == {one.backend_id: one.score for one in ranked}


def test_a_backend_narrows_every_field_that_is_about_backends() -> None:
    said = insights(day().router, backend_id="a", now=NOON)
    assert set(said.backend_scores) == set(said.backend_success_rates) == {"a"}
    assert set(said.backend_usage_stats) == set(said.latency_stats) == {"a"}
    assert said.content_type_distribution == {"image/png": {"a": 1}, "text/plain": {"a": 1}}
    assert len(said.factor_weights) == 6


def test_a_content_type_narrows_what_was_counted_by_type() -> None:
    said = insights(day().router, content_type="image/png", now=NOON)
    assert said.content_type_distribution == {"image/png": {"a": 1, "b": 1}}
    assert said.backend_success_rates == {"a": 1.0, "b": 1.0}
    assert said.backend_usage_stats["a"]["request_count"] == 1
    assert said.latency_stats["b"]["count"] == 2
    assert set(said.backend_scores) == {"a", "b"}


def test_a_content_type_is_what_the_scores_are_for() -> None:
    clock = Clock(router([Backend("a", content_affinity={"image/*": 1.0, "*/*": 0.0})]))
    scores = [
        insights(clock.router, content_type=name, now=NOON).backend_scores["a"] for name in ("", "image/x")
    ]
    assert scores[1] - scores[0] == pytest.approx(0.1)


@pytest.mark.parametrize("question", [{"backend_id": "nobody"}, {"content_type": "no/thing"}])
def test_what_nobody_asked_for_yet_has_no_counts(question: dict[str, str]) -> None:
    said = insights(day().router, **question, now=NOON)
    assert said.backend_success_rates == said.content_type_distribution == {}
    assert said.backend_usage_stats == said.latency_stats == {}


def test_before_anything_happened_there_are_only_weights_and_scores() -> None:
    said = insights(router(["a"]), now=NOON)
    assert said.backend_success_rates == said.content_type_distribution == {}
    assert said.backend_usage_stats == said.latency_stats == {}
    assert said.backend_scores == {
        "a": pytest.approx(0.3 / 2 + 0.2 / 2 + 0.25 * 0.95 + 0.05 + 0.05 + 0.05, abs=1e-3)
    }


@pytest.mark.parametrize(("hours", "counted"), [(0, 2), (1, 1), (24, 2), (48, 3), (168, 4), (999, 4)])
def test_no_window_means_24_hours_and_more_than_the_retention_means_that(hours: int, counted: int) -> None:
    clock = Clock(router(["a"]), now=NOON - 165 * 3600.0)
    for at in (clock.now, NOON - 47 * 3600.0, NOON - 23 * 3600.0, NOON):
        clock.now = at
        clock.succeed("a")
    said = insights(clock.router, hours=hours, now=NOON)
    assert said.backend_usage_stats["a"]["outcome_count"] == counted


def test_a_clock_that_jumps_back_moves_no_window() -> None:
    clock = day()
    assert insights(clock.router, now=0.0) == insights(clock.router, now=NOON)
    assert asked(clock, "usage_stats").values["usage_stats"]["a"]["outcome_count"] == 2
    clock.fail("a", 20)
    assert status(clock.router, now=0.0) is SystemStatus.CRITICAL


def test_an_outcome_without_a_duration_spoils_no_insight() -> None:
    clock = Clock(router(["a"]))
    clock.succeed("a", duration_ms=None)
    said = insights(clock.router, now=NOON)
    assert said.latency_stats == {}
    assert said.backend_success_rates == {"a": 1.0}
    clock.succeed("a", duration_ms=10)
    assert insights(clock.router, now=NOON).latency_stats["a"]["count"] == 1


def test_insights_are_plain_values() -> None:
    said = insights(day().router, now=NOON)
    for field in type(said).__slots__:
        assert json.loads(json.dumps(getattr(said, field))) == getattr(said, field)


# --- StreamMetrics ---


def test_the_sections_are_the_contracts_and_those_left_out_by_default_too() -> None:
    assert {name: section.default for name, section in SECTIONS.items()} == {
        "factor_weights": True,
        "backend_scores": True,
        "success_rates": True,
        "latency_stats": True,
        "content_distribution": False,
        "usage_stats": False,
        "system": True,
        "learned": False,
    }
    assert all(section.help for section in SECTIONS.values())


def test_no_names_mean_the_default_sections() -> None:
    assert set(asked(day()).values) == {name for name, section in SECTIONS.items() if section.default}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_named_section_comes_alone(name: str) -> None:
    assert set(asked(day(), name).values) == {name}


def test_sections_say_the_same_as_the_insights() -> None:
    clock = day()
    said, values = insights(clock.router, now=NOON), asked(clock, *SECTIONS).values
    assert values["factor_weights"] == said.factor_weights
    assert values["backend_scores"] == said.backend_scores
    assert values["success_rates"] == said.backend_success_rates
    assert values["latency_stats"] == said.latency_stats
    assert values["content_distribution"] == said.content_type_distribution
    assert values["usage_stats"] == said.backend_usage_stats
    assert values["learned"] == learned(clock.router, now=NOON)


def test_include_content_types_adds_the_distribution_once() -> None:
    assert "content_distribution" in asked(day(), types=True).values
    assert set(asked(day(), "system", types=True).values) == {"system", "content_distribution"}
    assert set(asked(day(), "content_distribution", types=True).values) == {"content_distribution"}


def test_include_backends_adds_every_backend_with_what_is_known_of_it() -> None:
    clock = day()
    clock.fail("b", 5)
    backends = asked(clock, "system", backends=True).values["backends"]
    assert list(backends) == ["a", "b", "off"]
    assert backends["a"] == {
        "score": pytest.approx(clock.router.scores(now=NOON)["a"]),
        "success_rate": 0.5,
        "latency_ms": 100.0,
        "state": "ok",
        "origin": "configured",
        "decisions": 2,
        "outcomes": 2,
    }
    assert backends["b"]["state"] == "suspended"
    assert backends["b"]["success_rate"] == 2 / 7
    # What is not known is None, and never 0.
    assert backends["off"] == {
        "score": None,
        "success_rate": None,
        "latency_ms": None,
        "state": "disabled",
        "origin": "configured",
        "decisions": 0,
        "outcomes": 0,
    }


def test_system_tells_what_the_edge_knows_and_the_totals() -> None:
    assert asked(day(), "system").values["system"] == {
        "uptime_seconds": 1000.0,
        "decisions_total": 3,
        "outcomes_total": 4,
        "decisions_per_second": pytest.approx(3 / 50, rel=0.2),
        "active_streams": 3,
        "version": "1.2.3",
    }


# --- status ---


@pytest.mark.parametrize(
    ("successes", "failures", "expected"),
    [
        (0, 0, SystemStatus.NORMAL),
        (0, 9, SystemStatus.NORMAL),
        (10, 0, SystemStatus.NORMAL),
        (9, 1, SystemStatus.NORMAL),
        (89, 11, SystemStatus.WARNING),
        (8, 2, SystemStatus.WARNING),
        (7, 3, SystemStatus.WARNING),
        (6, 4, SystemStatus.CRITICAL),
        (69, 31, SystemStatus.CRITICAL),
        (0, 10, SystemStatus.CRITICAL),
    ],
)
def test_the_status_follows_the_success_rate_of_the_last_five_minutes(
    successes: int, failures: int, expected: SystemStatus
) -> None:
    clock = Clock(router(["a", "b"]))
    clock.succeed("b", 100)
    clock.succeed("a", successes)
    clock.fail("a", failures)
    assert status(clock.router, now=clock.now) is expected
    assert asked(clock).status is expected


def test_the_worst_backend_decides_the_status() -> None:
    clock = Clock(router(["a", "b", "c"]))
    clock.fail("a", 2)
    clock.succeed("a", 8)
    assert status(clock.router, now=NOON) is SystemStatus.WARNING
    clock.fail("b", 10)
    assert status(clock.router, now=NOON) is SystemStatus.CRITICAL


def test_the_status_forgets_after_five_minutes_and_ignores_what_was_longer_ago() -> None:
    clock = Clock(router(["a"]))
    clock.fail("a", 20, happened_at=NOON - 400.0)
    assert status(clock.router, now=NOON) is SystemStatus.NORMAL
    clock.fail("a", 20)
    assert status(clock.router, now=NOON + 299.0) is SystemStatus.CRITICAL
    assert status(clock.router, now=NOON + 316.0) is SystemStatus.NORMAL


def test_metrics_are_plain_values() -> None:
    values: dict[str, Any] = asked(day(), *SECTIONS, backends=True).values
    assert json.loads(json.dumps(values)) == values
