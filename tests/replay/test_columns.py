"""Validation of fields, and conversion of rows."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.model import Location, Operation, Outcome, Query
from routing.replay.columns import COLUMNS, BadField, read_row
from support.replay_makers import NOON, ROW, logged

FULL = {
    "timestamp": "2026-03-04T12:00:00Z",
    "request_id": "r",
    "content_hash": "bafy",
    "content_type": "image/PNG",
    "content_size": "1500",
    "latitude": "48.9",
    "longitude": "2.4",
    "region": "eu",
    "operation": "retrieve",
    "retention_months": "12",
    "expected_reads": "0.5",
    "require_tags": "hot|eu",
    "exclude_backends": "c",
    "max_cost_usd": "0.25",
    "max_ms": "1500",
    "min_success": "0.9",
    "available_backends": "a|b|c",
    "strategy": "cost",
    "priority": "reliability",
    "backend_id": "a",
    "success": "false",
    "duration_ms": "1500.4",
    "error": "timed out",
    "propensity": "0.25",
}


def test_every_column_reaches_its_place() -> None:
    assert set(FULL) == set(COLUMNS)
    row = read_row(7, FULL, {})
    assert row.query == Query(
        content_hash="bafy",
        content_type="image/png",
        size_bytes=1500,
        operation=Operation.RETRIEVE,
        retention_months=12.0,
        expected_reads=0.5,
        require_tags=frozenset({"hot", "eu"}),
        exclude_backends=frozenset({"c"}),
        strategy="cost",
        priority="reliability",
        available_backends=("a", "b", "c"),
        location=Location(48.9, 2.4, "eu"),
        request_id="r:7",
        max_cost_usd=0.25,
        max_ms=1500.0,
        min_success=0.9,
    )
    assert row.outcome == Outcome(
        "a",
        success=False,
        content_hash="bafy",
        content_type="image/png",
        size_bytes=1500,
        duration_ms=1500,
        error="timed out",
        happened_at=NOON + 1.5,
        request_id="r:7",
    )
    assert (row.line, row.at, row.backend_id, row.propensity) == (7, NOON, "a", 0.25)


def test_two_columns_are_enough() -> None:
    row = read_row(3, {"timestamp": str(NOON), "backend_id": "a"}, {})
    assert row.query == Query(request_id="line:3")
    assert row.outcome is row.propensity is None
    assert row.outcome_known_at == row.at == NOON


def test_json_says_the_same_as_csv() -> None:
    typed: dict[str, Any] = FULL | {
        "timestamp": NOON,
        "content_size": 1500.0,
        "latitude": 48.9,
        "longitude": 2.4,
        "retention_months": 12,
        "expected_reads": 0.5,
        "max_cost_usd": 0.25,
        "max_ms": 1500,
        "min_success": 0.9,
        "require_tags": ["hot", "eu"],
        "exclude_backends": ["c"],
        "available_backends": ["a", "b", "c"],
        "success": False,
        "duration_ms": 1500.4,
        "propensity": 0.25,
    }
    assert read_row(7, typed, {}) == read_row(7, FULL, {})


@pytest.mark.parametrize("name", sorted(set(COLUMNS) - {"timestamp", "backend_id", "success"}))
@pytest.mark.parametrize("nothing", ["", None])
def test_an_empty_field_is_a_missing_one(name: str, nothing: str | None) -> None:
    if name in ("latitude", "longitude"):
        fields = FULL | {"latitude": nothing, "longitude": nothing}
        without = {key: value for key, value in FULL.items() if key not in ("latitude", "longitude")}
    else:
        fields = FULL | {name: nothing}
        without = {key: value for key, value in FULL.items() if key != name}
    assert read_row(7, fields, {}) == read_row(7, without, {})


def test_a_region_alone_has_no_coordinates() -> None:
    assert logged(region="eu").query.location == Location(region="eu")
    assert logged(latitude=0, longitude=0).query.location is None


@pytest.mark.parametrize(
    ("given", "kept"), [(0, None), (0.2, 1), (1.6, 2), (2**31 - 1, 2**31 - 1), (None, None)]
)
def test_a_duration_is_whole_milliseconds_as_on_the_wire(given: float | None, kept: int | None) -> None:
    outcome = logged(duration_ms=given).outcome
    assert outcome is not None
    assert outcome.duration_ms == kept


def test_the_outcome_is_known_when_the_operation_is_over() -> None:
    assert logged(duration_ms=2500).outcome_known_at == NOON + 2.5
    assert logged(duration_ms=None).outcome_known_at == NOON


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"timestamp": "yesterday"}, "timestamp: expected a time: ISO 8601, or Unix seconds"),
        ({"timestamp": None}, "timestamp: expected a time: ISO 8601, or Unix seconds (UTC where it names"),
        ({"timestamp": NOON * 1000}, "timestamp: expected a time"),
        ({"timestamp": -1}, "timestamp: expected a time"),
        ({"timestamp": True}, "timestamp: expected a time"),
        ({"timestamp": [1]}, "timestamp: expected a time"),
        ({"timestamp": "3/4/2026"}, "timestamp: expected a time"),
        ({"backend_id": ""}, "backend_id: expected at most 256 bytes of UTF-8 text, got nothing"),
        ({"backend_id": "é" * 129}, "backend_id: expected at most 256 bytes"),
        ({"backend_id": 3}, "backend_id: expected at most 256 bytes of UTF-8 text, got 3"),
        ({"backend_id": "\udce9"}, "backend_id: expected at most 256 bytes of UTF-8 text, got '\\udce9'"),
        ({"success": "maybe"}, "success: expected true or false, got 'maybe'"),
        ({"success": 1}, "success: expected true or false, got 1"),
        ({"success": None}, "success: expected true or false, because duration_ms is given"),
        (
            {"success": None, "duration_ms": None, "error": "x"},
            "success: expected true or false, because error",
        ),
        ({"duration_ms": -1}, "duration_ms: expected a number from 0 to 2,147,483,647, got -1"),
        ({"duration_ms": "fast"}, "duration_ms: expected a number from 0"),
        ({"duration_ms": float("nan")}, "duration_ms: expected a number from 0"),
        ({"content_size": 1.5}, "content_size: expected a whole number from 0"),
        ({"content_size": True}, "content_size: expected a whole number from 0"),
        ({"content_size": "1e400"}, "content_size: expected a whole number from 0"),
        (
            {"content_size": 2**63},
            "content_size: expected a whole number from 0 to 9,223,372,036,854,775,807",
        ),
        ({"latitude": 91, "longitude": 0}, "latitude: expected a number from -90 to 90, got 91"),
        ({"latitude": 1}, "longitude: expected a number, because latitude is given"),
        ({"longitude": 1}, "latitude: expected a number, because longitude is given"),
        ({"operation": "delete"}, "operation: expected one of store, retrieve, got 'delete'"),
        ({"retention_months": -1}, "retention_months: expected a number from 0"),
        ({"propensity": 0}, "propensity: expected a probability, more than 0 and at most 1, got 0"),
        ({"propensity": 1.1}, "propensity: expected a probability"),
        ({"propensity": "x"}, "propensity: expected a probability"),
        ({"propensity": True}, "propensity: expected a probability"),
        ({"available_backends": ["b", "c"]}, "backend_id: expected one of available_backends, got 'a'"),
        ({"available_backends": "a||b"}, "available_backends: expected at most 1,024 names"),
        ({"available_backends": [1]}, "available_backends: expected at most 1,024 names"),
        ({"available_backends": ["a"] * 1025}, "available_backends: expected at most 1,024 names"),
        ({"strategy": "luck"}, "strategy: 'luck' is not valid; expected one of hybrid"),
        ({"priority": "luck"}, "priority: 'luck' is not valid; expected one of balanced"),
    ],
)
def test_an_invalid_field_is_named_with_the_expectation(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadField) as caught:
        logged(**fields)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_flag_goes_before_the_trace_s_own_strategy_and_backends_stand_in_for_none() -> None:
    asked = {"strategy": "cost", "priority": "", "available_backends": ["a", "z"]}
    row = read_row(1, {**ROW, "strategy": "hybrid", "priority": "reliability"}, asked)
    assert (row.query.strategy, row.query.priority) == ("cost", "reliability")
    assert row.query.available_backends == ("a", "z")
    row = read_row(1, {**ROW, "available_backends": "a|b"}, asked)
    assert row.query.available_backends == ("a", "b")


anything = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=3)
)


@given(st.dictionaries(st.sampled_from(sorted(COLUMNS)), anything))
def test_any_row_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        row = logged(**fields)
    except BadField:
        return
    assert 0 <= row.at <= row.outcome_known_at
