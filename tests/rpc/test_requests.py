"""What a message may hold, field by field, and what the nouns look like on the wire."""

from collections.abc import Callable
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routing_pb.google.protobuf import Value

from routing import wire
from routing.core.factors import FACTORS
from routing.core.model import (
    Decision,
    Estimate,
    Evidence,
    Fault,
    Location,
    Operation,
    Outcome,
    Query,
    Ranked,
    Recorded,
    SystemStatus,
)
from routing.core.report import SECTIONS, Insights, Metrics
from routing.errors import InvalidArgument
from routing.rpc.requests import read_insights_request, read_metrics_request, read_outcome, read_query
from routing.rpc.responses import write_decision, write_recorded
from support.oracles import write_insights, write_metrics

NAN, INFINITY = float("nan"), float("inf")

select = wire.SelectBackendRequest
outcome = wire.RecordOutcomeRequest
insights = wire.GetInsightsRequest
metrics = wire.StreamMetricsRequest
place = wire.SelectBackendRequestGeoLocation

READERS: dict[type, Callable[[Any], Any]] = {
    select: read_query,
    outcome: read_outcome,
    insights: read_insights_request,
    metrics: read_metrics_request,
}


def read(message: Any) -> Any:
    return READERS[type(message)](message)


def asking(key: str, value: Any) -> wire.SelectBackendRequest:
    return select(metadata=wire.write_struct({key: value}))


# --- What is refused, each with the words that a caller needs ---

REFUSED = [
    (select(content_size=-1), "content_size", "content_size: -1 is not valid; expected 0 or more"),
    (select(content_hash="h" * 1025), "content_hash", "at most 1,024 bytes, not 1,025"),
    (select(content_type="t" * 256), "content_type", "at most 255 bytes, not 256"),
    (select(request_id="r" * 257), "request_id", "at most 256 bytes, not 257"),
    (select(request_id="é" * 129), "request_id", "at most 256 bytes, not 258"),
    (select(strategy="fastest"), "strategy", "'fastest' is not valid; expected one of hybrid, performance,"),
    (select(priority="urgent"), "priority", "'urgent' is not valid; expected one of balanced, performance,"),
    (select(available_backends=["s3", ""]), "available_backends", "'' is not valid; expected names that"),
    (select(available_backends=["b" * 257]), "available_backends", "at most 256 bytes, not 257"),
    (select(available_backends=["s3"] * 1025), "available_backends", "1025 is not valid; expected at most"),
    (select(client_location=place(latitude=90.1)), "client_location.latitude", "90.1 is not valid; expected"),
    (select(client_location=place(latitude=-91)), "client_location.latitude", "degrees from -90 to 90"),
    (select(client_location=place(latitude=NAN)), "client_location.latitude", "nan is not valid"),
    (select(client_location=place(longitude=180.5)), "client_location.longitude", "degrees from -180 to 180"),
    (select(client_location=place(longitude=-181)), "client_location.longitude", "-181 is not valid"),
    (select(client_location=place(longitude=-INFINITY)), "client_location.longitude", "-inf is not valid"),
    (select(client_location=place(region="r" * 257)), "client_location.region", "at most 256 bytes, not 257"),
    (outcome(), "backend_id", "backend_id: '' is not valid; expected the name of a backend"),
    (outcome(backend_id="b" * 257), "backend_id", "at most 256 bytes, not 257"),
    (outcome(backend_id="b", content_hash="h" * 1025), "content_hash", "at most 1,024 bytes, not 1,025"),
    (outcome(backend_id="b", content_type="t" * 256), "content_type", "at most 255 bytes, not 256"),
    (outcome(backend_id="b", content_size=-5), "content_size", "-5 is not valid; expected 0 or more"),
    (outcome(backend_id="b", duration_ms=-5), "duration_ms", "-5 is not valid; expected 0 or more"),
    (outcome(backend_id="b", request_id="r" * 257), "request_id", "at most 256 bytes, not 257"),
    (insights(backend_id="b" * 257), "backend_id", "at most 256 bytes, not 257"),
    (insights(content_type="t" * 256), "content_type", "at most 255 bytes, not 256"),
    (insights(time_window_hours=-1), "time_window_hours", "-1 is not valid; expected 0 or more"),
    (metrics(update_interval_seconds=-1), "update_interval_seconds", "-1 is not valid; expected 0 to 3,600"),
    (metrics(update_interval_seconds=3601), "update_interval_seconds", "3601 is not valid; expected 0 to"),
    (metrics(metrics_types=["system", "cpu"]), "metrics_types", "'cpu' is not valid; expected any of fact"),
    (metrics(metrics_types=[""]), "metrics_types", "'' is not valid; expected any of"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "field", "words"), REFUSED)
def test_a_field_that_does_not_hold_is_named_with_its_value_and_what_is_valid(
    message: Any, field: str, words: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(message)
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")
    assert words in caught.value.message


AMOUNTS = ("retention_months", "expected_reads", "max_cost_usd", "max_ms", "min_success")
NAMES = ("require_tags", "exclude_backends")

REFUSED_METADATA: list[tuple[str, Any, str]] = [
    *(("operation", value, "one of store, retrieve") for value in ("STORE", "", 1, None, True, ["store"])),
    *((key, value, "a finite number, 0 or more") for key in AMOUNTS for value in (-1, "1", True, None, [1])),
    ("min_success", 1.001, "a number from 0 to 1"),
    *((key, value, "a list of strings") for key in NAMES for value in ("us", 1, None, False, {"us": True})),
    *((key, value, "only strings in the list") for key in NAMES for value in (["us", 1], [None], [["us"]])),
    *((key, ["t" * 257], "at most 256 bytes, not 257") for key in NAMES),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "words"), REFUSED_METADATA)
def test_a_known_metadata_key_with_a_wrong_value_is_refused(key: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(asking(key, value))
    assert caught.value.field == f"metadata.{key}"
    assert words in caught.value.message


@pytest.mark.parametrize("key", ["operation", *AMOUNTS, *NAMES])
def test_a_value_without_a_kind_under_a_known_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(select(metadata=wire.Struct(fields={key: Value()})))
    assert "a Value without a kind" in caught.value.message


@pytest.mark.parametrize("key", AMOUNTS)
@pytest.mark.parametrize("number", [NAN, INFINITY, -INFINITY])
def test_a_number_that_is_not_finite_is_refused(key: str, number: float) -> None:
    with pytest.raises(InvalidArgument):
        read(select(metadata=wire.Struct(fields={key: Value(number_value=number)})))


@pytest.mark.parametrize("value", [Value(), Value(number_value=NAN), Value(string_value="x" * 10_000)])
def test_an_unknown_metadata_key_may_hold_anything(value: Value) -> None:
    assert read(select(metadata=wire.Struct(fields={"colour": value, "": value}))) == Query()


@given(st.text(max_size=300), st.sampled_from(["strategy", "priority"]))
def test_a_message_that_names_a_value_is_one_line(text: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(select(**{field: f"!{text}"}))
    assert caught.value.message.isprintable()


# --- What is taken, up to the limit itself ---

TAKEN = [
    (select(content_hash="h" * 1024), Query(content_hash="h" * 1024)),
    (select(content_type="t" * 255), Query(content_type="t" * 255)),
    (select(content_type="Image/PNG"), Query(content_type="image/png")),
    (select(content_type=" multipart/mixed ; boundary=7"), Query(content_type="multipart/mixed")),
    (select(request_id="é" * 128), Query(request_id="é" * 128)),
    (select(request_id="two\nlines\0"), Query(request_id="two\nlines\0")),
    (select(content_size=2**63 - 1), Query(size_bytes=2**63 - 1)),
    (select(available_backends=["b" * 256]), Query(available_backends=("b" * 256,))),
    (select(available_backends=["b", "a", "b"]), Query(available_backends=("b", "a"))),
    (select(strategy="optimal"), Query(strategy="hybrid")),
    (select(strategy="adaptive", priority="cost"), Query(strategy="adaptive", priority="cost")),
    (select(metadata=wire.Struct()), Query()),
    (select(client_location=place()), Query(location=None)),
    (select(client_location=place(region="eu")), Query(location=Location(region="eu"))),
    (select(client_location=place(-90, 180, "eu")), Query(location=Location(-90, 180, "eu"))),
    (select(client_location=place(0, 0.1, "eu")), Query(location=Location(0, 0.1, "eu"))),
    (asking("operation", "retrieve"), Query(operation=Operation.RETRIEVE)),
    (asking("operation", "store"), Query()),
    (asking("retention_months", 0), Query(retention_months=0.0)),
    (asking("expected_reads", 1e308), Query(expected_reads=1e308)),
    (asking("require_tags", []), Query()),
    (asking("require_tags", ["us", "hot", "us"]), Query(require_tags=frozenset({"us", "hot"}))),
    (asking("exclude_backends", ["s3"]), Query(exclude_backends=frozenset({"s3"}))),
    (outcome(backend_id="b"), Outcome("b", success=False)),
    (outcome(backend_id="b", success=True, duration_ms=7), Outcome("b", success=True, duration_ms=7)),
    (outcome(backend_id="b", duration_ms=0), Outcome("b", success=False, duration_ms=None)),
    (
        outcome("b", True, "h", "t", 5, 6, "e", datetime(1970, 1, 1, 0, 1, tzinfo=UTC), "r"),
        Outcome("b", True, "h", "t", 5, 6, "e", 60.0, "r"),
    ),
    *[(outcome(backend_id="b", fault=word), Outcome("b", False, fault=word)) for word in Fault],
]  # fmt: skip


@pytest.mark.parametrize(("message", "noun"), [(select(), Query()), *TAKEN])
def test_what_is_valid_is_read_as_it_was_meant(message: Any, noun: Any) -> None:
    assert read(message) == noun


def test_as_many_available_backends_as_the_limit_are_taken() -> None:
    names = [f"b{n}" for n in range(1024)]
    assert read(select(available_backends=names)).available_backends == tuple(names)


@given(st.text())
def test_an_error_is_cut_to_its_first_1024_bytes_between_two_characters(text: str) -> None:
    kept = read(outcome(backend_id="b", error=text * 40)).error
    assert (text * 40).startswith(kept)
    assert len(kept.encode()) <= 1024
    rest = (text * 40)[len(kept) :]
    assert not rest or len(kept.encode()) + len(rest[0].encode()) > 1024


def test_an_insights_request_without_hours_leaves_the_window_to_the_report() -> None:
    asked = read(insights(backend_id="b", content_type="t"))
    assert (asked.backend_id, asked.content_type, asked.hours) == ("b", "t", 0)


def test_an_update_interval_of_zero_is_one_second() -> None:
    assert read(metrics()).interval_s == 1
    assert read(metrics(update_interval_seconds=3600)).interval_s == 3600


def test_sections_come_in_one_order_and_once() -> None:
    backwards = [*reversed(SECTIONS), *SECTIONS]
    assert read(metrics(metrics_types=backwards)).sections == tuple(SECTIONS)
    assert read(metrics()).sections == ()


def test_requests_for_the_same_updates_are_equal() -> None:
    one = read(metrics(metrics_types=["system", "success_rates"]))
    other = read(metrics(update_interval_seconds=1, metrics_types=["success_rates", "system", "system"]))
    assert one == other
    assert hash(one) == hash(other)
    assert one != read(metrics(metrics_types=["system", "success_rates"], include_backends=True))


# --- Nouns to messages ---

SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
ESTIMATE = Estimate(200.0, 0.9, 150.0, 0.95, Evidence(0.25, 0.5))


def decided(**changes: Any) -> Decision:
    values: dict[str, Any] = {
        "query": Query(request_id="r-1"),
        "chosen": Ranked("s3", 0.8, SCORES, ESTIMATE),
        "others": (Ranked("ipfs", 0.7, SCORES, ESTIMATE), Ranked("filecoin", 0.6, SCORES, ESTIMATE)),
        "weights": (0.3, 0.2, 0.25, 0.1, 0.1, 0.05),
        "decided_at": 1.0,
        "ineligible": MappingProxyType({"tape": "disabled"}),
    }
    return Decision(**(values | changes))


def test_a_decision_names_every_factor_and_the_alternatives_best_first() -> None:
    message = write_decision(decided(), explain=False, now=60.5)
    assert (message.backend_id, message.score, message.request_id) == ("s3", 0.8, "r-1")
    assert wire.read_struct(message.factor_scores) == dict(zip(FACTORS, SCORES, strict=True))
    assert [(other.backend_id, other.score) for other in message.alternatives] == [
        ("ipfs", 0.7),
        ("filecoin", 0.6),
    ]
    assert message.timestamp == datetime(1970, 1, 1, 0, 1, 0, 500_000, tzinfo=UTC)


def test_an_explanation_is_given_only_where_asked_for() -> None:
    assert write_decision(decided(), explain=False, now=1.0).explanation is None
    assert write_decision(decided(), explain=True, now=1.0).explanation is not None


def test_an_explanation_has_the_shape_that_the_schema_promises() -> None:
    explanation = wire.read_struct(write_decision(decided(probe=True), explain=True, now=1.0).explanation)
    assert list(explanation) == ["weights", "probe", "limits_gave_way", "candidates", "ineligible"]
    assert explanation["weights"] == dict(zip(FACTORS, decided().weights, strict=True))
    assert explanation["probe"] is True
    assert explanation["ineligible"] == {"tape": "disabled"}
    assert list(explanation["candidates"]) == ["s3", "ipfs", "filecoin"]
    assert explanation["candidates"]["ipfs"] == {
        "score": 0.7,
        "origin": "configured",
        "factor_scores": dict(zip(FACTORS, SCORES, strict=True)),
        "expected_ms": 200.0,
        "success_probability": 0.9,
        "prior_ms": 150.0,
        "prior_success": 0.95,
        "speed_evidence": 0.25,
        "success_evidence": 0.5,
    }


def test_a_recorded_outcome_says_whether_and_how() -> None:
    message = write_recorded(Recorded(recorded=False, message="too old"), now=0.0)
    assert (message.success, message.message) == (False, "too old")
    assert message.timestamp == datetime(1970, 1, 1, tzinfo=UTC)


def test_every_field_of_the_insights_arrives() -> None:
    shown = Insights(
        {"cost": 1.0}, {"a": 0.5}, {"a": 0.9}, {"t": {"a": 2}}, {"a": {"n": 1}}, {"a": {"p50_ms": 3}}
    )
    message = write_insights(shown, now=0.0)
    for name in ("factor_weights", "backend_scores", "backend_success_rates",
                 "content_type_distribution", "backend_usage_stats", "latency_stats"):  # fmt: skip
        assert wire.read_struct(getattr(message, name)) == getattr(shown, name)
    assert message.timestamp == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("status", SystemStatus)
def test_an_update_carries_its_sections_and_status(status: SystemStatus) -> None:
    message = write_metrics(
        Metrics({"system": {"version": "1"}, "backends": {"a": {"score": None}}}, status), now=0.0
    )
    assert wire.read_struct(message.metrics) == {
        "system": {"version": "1"},
        "backends": {"a": {"score": None}},
    }
    assert message.status.name == status.name
    assert message.timestamp == datetime(1970, 1, 1, tzinfo=UTC)
