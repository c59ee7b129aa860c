from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import wire
from routing.client import InvalidRequest, ServerFault, SystemStatus
from routing.client import messages as m
from routing.client.values import Activity, BackendSummary, Latency, Learned, Usage
from routing.core.model import Location, Outcome
from routing.core.report import SECTIONS
from support.scripted_server import AT, Script

USAGE = {
    "request_count": 3.0,
    "total_size": 3e9,
    "avg_content_size": 1e9,
    "outcome_count": 2.0,
    "success_count": 1.0,
    "failure_count": 1.0,
}


def test_the_methods_are_those_of_the_generated_service() -> None:
    served = {path: (each.request_type, each.reply_type) for path, each in Script().__mapping__().items()}
    ours = {each.path: (each.request, each.answer) for each in (m.SELECT, m.RECORD, m.INSIGHTS, m.METRICS)}
    assert ours == served


@pytest.mark.parametrize("bits", [32, 64])
def test_a_number_as_wide_as_its_field_is_sent_and_a_wider_one_refused(bits: int) -> None:
    highest = 2 ** (bits - 1) - 1
    assert m.whole("size_bytes", highest, bits=bits) == highest
    with pytest.raises(InvalidRequest, match=r"size_bytes: \d+ is not valid; expected at most"):
        m.whole("size_bytes", highest + 1, bits=bits)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"at: .* expected a time with its zone"):
        m.moment("at", datetime(2026, 3, 1))


def test_a_lone_name_is_not_taken_for_its_letters() -> None:
    with pytest.raises(InvalidRequest, match=r"available_backends: 's3' .* expected a list of names"):
        m.names("available_backends", "s3")


@pytest.mark.parametrize("location", [None, Location()])
def test_a_place_of_which_nothing_is_known_is_not_sent(location: Location | None) -> None:
    assert m.write_location(location) is None


@pytest.mark.parametrize(
    ("location", "sent"),
    [
        (Location(region="eu"), (0.0, 0.0, "eu")),
        (Location(0.0, 0.0), (0.0, 0.0, "")),
        (Location(52.5, 13.4, "eu"), (52.5, 13.4, "eu")),
    ],
)
def test_a_place_is_sent_as_it_is_known(location: Location, sent: tuple[float, float, str]) -> None:
    message = m.write_location(location)
    assert message is not None
    assert (message.latitude, message.longitude, message.region) == sent


@pytest.mark.parametrize("location", [Location(latitude=1.0), Location(longitude=1.0)])
def test_half_a_place_is_refused(location: Location) -> None:
    with pytest.raises(InvalidRequest, match="both coordinates or neither"):
        m.write_location(location)


@pytest.mark.parametrize(("duration_ms", "sent"), [(None, 0), (0, 1), (1, 1), (1500, 1500), (-1, -1)])
def test_a_measured_duration_never_arrives_as_one_that_was_not(duration_ms: int | None, sent: int) -> None:
    assert m.write_outcome(Outcome("s3", True, duration_ms=duration_ms)).duration_ms == sent


def test_every_field_of_an_outcome_is_sent() -> None:
    message = m.write_outcome(Outcome("s3", True, "h", "t", 7, 8, "e", AT.timestamp(), "r"))
    assert message == wire.RecordOutcomeRequest("s3", True, "h", "t", 7, 8, "e", AT, "r")


def test_an_answer_without_the_servers_time_is_the_servers_fault() -> None:
    with pytest.raises(ServerFault, match="lacks the server's time"):
        m.read_acknowledgement(wire.RecordOutcomeResponse(success=True))


def test_an_explanation_is_there_only_where_the_server_gave_one() -> None:
    assert m.read_selection(wire.SelectBackendResponse(timestamp=AT)).explanation is None
    explained = wire.SelectBackendResponse(timestamp=AT, explanation=wire.write_struct({"probe": True}))
    assert m.read_selection(explained).explanation == {"probe": True}


def test_counts_are_whole_numbers_again() -> None:
    answer = wire.GetInsightsResponse(
        content_type_distribution=wire.write_struct({"image/png": {"s3": 2.0}}),
        backend_usage_stats=wire.write_struct({"s3": USAGE}),
        timestamp=AT,
    )
    insights = m.read_insights(answer)
    usage = insights.backend_usage_stats["s3"]
    assert usage == Usage(3, 3_000_000_000, 1e9, 2, 1, 1)
    assert type(usage.total_size) is int
    assert type(insights.content_type_distribution["image/png"]["s3"]) is int


def test_what_a_newer_server_adds_to_a_row_is_left_out() -> None:
    answer = wire.GetInsightsResponse(
        backend_usage_stats=wire.write_struct({"s3": {**USAGE, "new": "thing"}}), timestamp=AT
    )
    assert m.read_insights(answer).backend_usage_stats["s3"].request_count == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"factor_weights": {"cost": "much"}},
        {"backend_scores": {"s3": None}},
        {"content_type_distribution": {"image/png": 3}},
        {"backend_usage_stats": {"s3": {}}},
        {"latency_stats": {"s3": [1]}},
    ],
)
def test_a_value_of_the_wrong_kind_is_the_servers_fault(fields: dict[str, Any]) -> None:
    structs: dict[str, Any] = {name: wire.write_struct(each) for name, each in fields.items()}
    with pytest.raises(ServerFault, match=r"the answer has .* belong"):
        m.read_insights(wire.GetInsightsResponse(**structs, timestamp=AT))


def updated(**sections: Any) -> wire.MetricsUpdate:
    return wire.MetricsUpdate(metrics=wire.write_struct(sections), timestamp=AT)


def test_every_section_of_the_server_has_a_field() -> None:
    assert {*SECTIONS, "backends"} == set(m._SECTIONS)


def test_a_section_that_did_not_come_is_none_and_an_unknown_one_is_kept() -> None:
    metrics = m.read_metrics(updated(weather={"rain": 1.0}))
    assert metrics.system is metrics.backends is metrics.factor_weights is None
    assert metrics.other == {"weather": {"rain": 1.0}}


def test_sections_come_typed() -> None:
    metrics = m.read_metrics(
        updated(
            system={
                "uptime_seconds": 1.5,
                "decisions_total": 2.0,
                "outcomes_total": 1.0,
                "decisions_per_second": 0.1,
                "active_streams": 1.0,
                "version": "9",
            },
            backends={
                "s3": {
                    "score": 0.5,
                    "success_rate": None,
                    "latency_ms": None,
                    "state": "ok",
                    "decisions": 2.0,
                    "outcomes": 0.0,
                }
            },
            latency_stats={
                "s3": dict.fromkeys(("min_ms", "max_ms", "avg_ms", "p50_ms", "p90_ms", "p99_ms"), 4.0)
                | {"count": 2.0}
            },
        )
    )
    assert metrics.system == Activity(1.5, 2, 1, 0.1, 1, "9")
    assert metrics.backends == {"s3": BackendSummary(0.5, None, None, "ok", 2, 0)}
    assert metrics.latency_stats == {"s3": Latency(2, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0)}


def test_what_was_learned_comes_typed() -> None:
    row: dict[str, Any] = {field.name: 0.5 for field in fields(Learned)}
    row |= {"state": "ok", "outcomes": 7.0, "seconds_since_failure": None}
    learned = m.read_metrics(updated(learned={"s3": row})).learned
    assert learned is not None
    assert learned == {"s3": Learned(**row)}
    assert type(learned["s3"].outcomes) is int


def test_a_text_that_is_none_is_the_servers_fault() -> None:
    with pytest.raises(ServerFault, match="where text belongs"):
        m.read_metrics(updated(backends={"s3": {"state": 1.0, "decisions": 0.0, "outcomes": 0.0}}))


@pytest.mark.parametrize("status", SystemStatus)
def test_the_status_is_named(status: SystemStatus) -> None:
    update = updated()
    update.status = wire.MetricsUpdateSystemStatus(int(status))
    assert m.read_metrics(update).status is status


def test_a_status_that_this_client_does_not_know_is_a_fault() -> None:
    update = updated()
    update.status = wire.MetricsUpdateSystemStatus(9)
    with pytest.raises(ServerFault, match="unknown status 9"):
        m.read_metrics(update)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_a_time_arrives_as_it_was_sent(at: datetime) -> None:
    sent = m.write_outcome(Outcome("s3", True, happened_at=wire.read_time(at))).timestamp
    assert sent is not None
    assert abs((sent - at).total_seconds()) < 1e-5
