"""An unmodified official client against a real server: what is reported is what happened.

Once with today's schema, once with the one that the first clients were made from.
"""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from support import official_client
from support.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
SCHEMAS = {"today": ROOT / "proto", "the first": Path(__file__).parent / "first_schema"}
CLOUDS = ROOT / "examples" / "clouds.toml"


def generated_from(schema: Path, into: Path) -> Path:
    """The official client code of this schema."""
    tool = [sys.executable, "-m", "grpc_tools.protoc", f"-I{schema}"]
    outputs = [f"--python_out={into}", f"--grpc_python_out={into}"]
    subprocess.run([*tool, *outputs, str(schema / "routing.proto")], check=True)
    return into


@dataclass(frozen=True)
class Story:
    """What the client did and was told: rounds of a choice and its outcome, and stray outcomes."""

    rounds: list[Mapping[str, Any]]
    strays: list[Mapping[str, Any]]
    insights: Mapping[str, Any]
    of_one_type: Mapping[str, Any]
    updates: list[Mapping[str, Any]]
    learned: Mapping[str, Any]
    refused: Mapping[str, str]
    began: float
    ended: float

    @property
    def asked(self) -> Mapping[str, list[Mapping[str, Any]]]:
        """What was asked, under the backend that was chosen."""
        return grouped((each["choice"]["backend_id"], each["asked"]) for each in self.rounds)

    @property
    def outcomes(self) -> Mapping[str, list[Mapping[str, Any]]]:
        """What was reported, under its backend."""
        reported = (each["outcome"] for each in [*self.rounds, *self.strays])
        return grouped((outcome["backend_id"], outcome) for outcome in reported)


def grouped(pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> Mapping[str, list[Mapping[str, Any]]]:
    groups = defaultdict(list)
    for name, each in pairs:
        groups[name].append(each)
    return groups


@pytest.fixture(scope="module", params=SCHEMAS)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Told once for each schema: the tests only read it."""
    generated = generated_from(SCHEMAS[request.param], tmp_path_factory.mktemp("generated"))
    with ServerProcess("--config", str(CLOUDS)) as server:
        script = [sys.executable, official_client.__file__, str(generated), server.address]
        told = json.loads(subprocess.run(script, check=True, stdout=subprocess.PIPE, timeout=120).stdout)
        assert server.stop() == 0
        assert [line for line in server.lines if " ERROR " in line or " WARNING " in line] == []
    return Story(rounds=told.pop("work"), **told)


def test_every_choice_can_be_checked(story: Story) -> None:
    """The score is the weighted sum of the factor scores, under the weights that are reported."""
    weights = story.insights["factor_weights"]
    assert sum(weights.values()) == pytest.approx(1.0)
    for each in story.rounds:
        choice = each["choice"]
        assert set(choice["factor_scores"]) == set(weights)
        weighed = sum(weights[factor] * score for factor, score in choice["factor_scores"].items())
        assert choice["score"] == pytest.approx(weighed, abs=1e-6)


def test_alternatives_come_best_first_and_not_the_choice_again(story: Story) -> None:
    for each in story.rounds:
        choice, others = each["choice"], each["choice"]["alternatives"]
        assert len(others) == 32  # of some forty
        assert choice["backend_id"] not in {other["backend_id"] for other in others}
        scores = [choice["score"], *(other["score"] for other in others)]
        assert scores == sorted(scores, reverse=True)


def test_a_request_id_is_echoed(story: Story) -> None:
    for each in story.rounds:
        assert each["choice"]["request_id"] == each["asked"]["request_id"]


def test_every_answer_carries_the_servers_time(story: Story) -> None:
    answers = [each[name] for each in story.rounds for name in ("choice", "answer")]
    for answer in [*answers, story.insights, *story.updates]:
        at = datetime.fromisoformat(answer["timestamp"]).timestamp()
        assert story.began - 1 <= at <= story.ended + 1


def test_every_outcome_was_recorded_for_its_decision(story: Story) -> None:
    assert {(each["answer"]["success"], each["answer"]["message"]) for each in story.rounds} == {
        (True, "recorded for its decision")
    }
    assert all(each["answer"]["success"] for each in story.strays)
    assert "recorded for its decision" not in {each["answer"]["message"] for each in story.strays}


def test_usage_is_what_was_asked_and_reported(story: Story) -> None:
    used = story.insights["backend_usage_stats"]
    assert set(used) == {*story.asked, *story.outcomes}
    for backend, usage in used.items():
        asked, outcomes = story.asked[backend], story.outcomes[backend]
        assert usage == {
            "request_count": len(asked),
            "total_size": size(asked),
            "avg_content_size": pytest.approx(size(asked) / len(asked) if asked else 0.0),
            "outcome_count": len(outcomes),
            "success_count": sum(each["success"] for each in outcomes),
            "failure_count": sum(not each["success"] for each in outcomes),
        }


def size(asked: Iterable[Mapping[str, Any]]) -> int:
    return sum(int(each["content_size"]) for each in asked)  # JSON spells an int64 as text


def test_success_rates_are_successes_by_outcomes(story: Story) -> None:
    expected = {
        backend: sum(each["success"] for each in outcomes) / len(outcomes)
        for backend, outcomes in story.outcomes.items()
    }
    assert story.insights["backend_success_rates"] == pytest.approx(expected)


def test_latencies_are_those_that_were_measured(story: Story) -> None:
    measured = {
        backend: [each["duration_ms"] for each in outcomes if each["success"] and each["duration_ms"]]
        for backend, outcomes in story.outcomes.items()
    }
    expected = {backend: durations for backend, durations in measured.items() if durations}
    stats = story.insights["latency_stats"]
    assert set(stats) == set(expected)
    for backend, durations in expected.items():
        shown = stats[backend]
        assert shown["count"] == len(durations)
        assert (shown["min_ms"], shown["max_ms"]) == (min(durations), max(durations))
        assert shown["avg_ms"] == pytest.approx(sum(durations) / len(durations))
        assert min(durations) <= shown["p50_ms"] <= shown["p90_ms"] <= shown["p99_ms"] <= max(durations)


def test_content_types_are_counted_where_they_were_decided(story: Story) -> None:
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    for each in story.rounds:
        expected[each["asked"]["content_type"]][each["choice"]["backend_id"]] += 1
    assert story.insights["content_type_distribution"] == expected
    (only,) = story.of_one_type["content_type_distribution"].items()
    assert only == ("image/png", expected["image/png"])


def test_updates_say_the_same_as_insights(story: Story) -> None:
    first, second = (update["metrics"] for update in story.updates)
    for metrics in (first, second):
        assert metrics["system"]["decisions_total"] == len(story.rounds)
        assert metrics["system"]["outcomes_total"] == len(story.rounds) + len(story.strays)
        assert metrics["system"]["active_streams"] == 1
        assert metrics["factor_weights"] == story.insights["factor_weights"]
        assert metrics["success_rates"] == story.insights["backend_success_rates"]
        assert metrics["latency_stats"] == story.insights["latency_stats"]
        assert metrics["content_distribution"] == story.insights["content_type_distribution"]
        for backend, usage in story.insights["backend_usage_stats"].items():
            assert metrics["backends"][backend]["decisions"] == usage["request_count"]
            assert metrics["backends"][backend]["outcomes"] == usage["outcome_count"]
    assert second["system"]["uptime_seconds"] > first["system"]["uptime_seconds"]


def test_what_was_learned_is_told_to_those_who_ask(story: Story) -> None:
    assert {name for update in story.updates for name in update["metrics"]} & {"learned"} == set()
    (rows,) = story.learned.values()
    assert {name: row["outcomes"] for name, row in rows.items() if row["outcomes"]} == {
        backend: len(outcomes) for backend, outcomes in story.outcomes.items()
    }
    for backend, outcomes in story.outcomes.items():
        row = rows[backend]
        assert row["success_low"] <= row["success_probability"] <= row["success_high"]
        assert row["small_low_ms"] < row["small_ms"] < row["small_high_ms"]
        failed = any(not outcome["success"] for outcome in outcomes)
        assert (row["seconds_since_failure"] is not None) == failed


def test_the_status_is_that_of_the_worst_backend(story: Story) -> None:
    """Ten of twelve on one, at least that on the others with ten outcomes: more than 0.7, less than 0.9."""
    assert {update["status"] for update in story.updates} == {"WARNING"}


def test_a_refusal_lists_what_is_valid(story: Story) -> None:
    assert story.refused["status"] == "INVALID_ARGUMENT"
    assert "'luck'" in story.refused["message"]
    assert "hybrid, performance, cost" in story.refused["message"]
