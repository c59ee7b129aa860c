"""The client's side of the wire: the four methods, values into requests, answers into values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from routing import wire
from routing.client.errors import InvalidRequest, ServerFault
from routing.client.values import (
    Acknowledgement,
    Activity,
    Alternative,
    BackendSummary,
    Insights,
    Latency,
    Learned,
    Metrics,
    Selection,
    Usage,
)
from routing.contract import METADATA_KEYS, ROUTING_SERVICE, method_path
from routing.core.model import Fault, Location, Outcome, Query, SystemStatus
from routing.errors import InvalidArgument, shown

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Section = TypeVar("Section", Usage, Latency, Activity, BackendSummary, Learned)


@dataclass(frozen=True, slots=True)
class RpcMethod(Generic[Request, Answer]):
    """One RPC: its name, what goes in and what comes out."""

    name: str
    request: type[Request]
    answer: type[Answer]

    @property
    def path(self) -> str:
        """Its full name on the wire."""
        return method_path(ROUTING_SERVICE, self.name)


SELECT = RpcMethod("SelectBackend", wire.SelectBackendRequest, wire.SelectBackendResponse)
RECORD = RpcMethod("RecordOutcome", wire.RecordOutcomeRequest, wire.RecordOutcomeResponse)
INSIGHTS = RpcMethod("GetInsights", wire.GetInsightsRequest, wire.GetInsightsResponse)
METRICS = RpcMethod("StreamMetrics", wire.StreamMetricsRequest, wire.MetricsUpdate)

# Values into requests. The server validates the fields; only values that the wire format cannot
# carry are refused here, because they would arrive as other values.


def _invalid(field: str, value: object, valid: str) -> InvalidRequest:
    return InvalidRequest(InvalidArgument(field, value, valid).message)


def whole(field: str, value: int, *, bits: int) -> int:
    """The number, if it fits the field's width; a larger one would arrive as another number."""
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise InvalidRequest(
            f"{field}: {shown(value)} is not valid; expected at most {(1 << bits - 1) - 1:,}"
        )
    return value


def moment(field: str, value: datetime | None) -> datetime | None:
    """The time, if it has a zone; otherwise it would be read as local time of this machine."""
    if value is not None and value.utcoffset() is None:
        raise _invalid(field, value, "a time with its zone")
    return value


def names(field: str, values: Sequence[str]) -> list[str]:
    """The list of names; a single string is refused, because it is a sequence of letters."""
    if isinstance(values, str):
        raise _invalid(field, values, "a list of names")
    return list(values)


def write_location(location: Location | None) -> wire.SelectBackendRequestGeoLocation | None:
    """None for an unknown location: coordinates of zero are a place off Africa."""
    if location is None or location == Location():
        return None
    if (location.latitude is None) != (location.longitude is None):
        raise InvalidRequest(
            f"location: {shown(location)} is not valid; expected both coordinates or neither"
        )
    return wire.SelectBackendRequestGeoLocation(
        latitude=location.latitude or 0.0, longitude=location.longitude or 0.0, region=location.region
    )


def metadata_of(query: Query) -> dict[str, Any]:
    """The query's fields that a request carries in `metadata`, as plain values."""
    values = {key: value for key in METADATA_KEYS if (value := getattr(query, key)) is not None}
    return {key: sorted(value) if isinstance(value, frozenset) else value for key, value in values.items()}


def write_outcome(outcome: Outcome) -> wire.RecordOutcomeRequest:
    """On the wire a duration of 0 means "not measured", so the shortest is 1 ms."""
    duration_ms = 0 if outcome.duration_ms is None else outcome.duration_ms or 1
    return wire.RecordOutcomeRequest(
        backend_id=outcome.backend_id,
        success=outcome.success,
        content_hash=outcome.content_hash,
        content_type=outcome.content_type,
        content_size=whole("size_bytes", outcome.size_bytes, bits=64),
        duration_ms=whole("duration_ms", duration_ms, bits=32),
        error=outcome.error,
        timestamp=None if outcome.happened_at is None else wire.write_time(outcome.happened_at),
        request_id=outcome.request_id,
        fault=outcome.fault if outcome.fault != Fault.BACKEND else "",
    )


# Answers into values


def read_selection(answer: wire.SelectBackendResponse) -> Selection:
    """The choice, its reasons and the other candidates."""
    return Selection(
        backend_id=answer.backend_id,
        score=answer.score,
        factor_scores=_numbers(wire.read_struct(answer.factor_scores)),
        alternatives=tuple(Alternative(other.backend_id, other.score) for other in answer.alternatives),
        request_id=answer.request_id,
        at=_at(answer.timestamp),
        explanation=None if answer.explanation is None else wire.read_struct(answer.explanation),
    )


def read_acknowledgement(answer: wire.RecordOutcomeResponse) -> Acknowledgement:
    """Whether the outcome was recorded."""
    return Acknowledgement(answer.success, answer.message, _at(answer.timestamp))


def read_insights(answer: wire.GetInsightsResponse) -> Insights:
    """The aggregates; a Struct has only floats, so counts are converted to int."""
    return Insights(
        factor_weights=_numbers(wire.read_struct(answer.factor_weights)),
        backend_scores=_numbers(wire.read_struct(answer.backend_scores)),
        backend_success_rates=_numbers(wire.read_struct(answer.backend_success_rates)),
        content_type_distribution=_distribution(wire.read_struct(answer.content_type_distribution)),
        backend_usage_stats=_sections_by_name(Usage)(wire.read_struct(answer.backend_usage_stats)),
        latency_stats=_sections_by_name(Latency)(wire.read_struct(answer.latency_stats)),
        at=_at(answer.timestamp),
    )


def read_metrics(update: wire.MetricsUpdate) -> Metrics:
    """One update; sections that _SECTIONS lacks stay plain values, in `other`."""
    sections = wire.read_struct(update.metrics)
    known = {name: read(sections.pop(name)) for name, read in _SECTIONS.items() if name in sections}
    return Metrics(_status(update.status), _at(update.timestamp), **known, other=sections)


def _at(timestamp: datetime | None) -> datetime:
    if timestamp is None:
        raise ServerFault("the answer lacks the server's time")
    return timestamp


def _status(number: int) -> SystemStatus:
    if number not in tuple(SystemStatus):
        raise ServerFault(f"the answer has the unknown status {int(number)}")
    return SystemStatus(number)


def _number(value: Any) -> float:
    if not isinstance(value, int | float):
        raise ServerFault(f"the answer has {shown(value)} where a number belongs")
    return float(value)


def _count(value: Any) -> int:
    return round(_number(value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ServerFault(f"the answer has {shown(value)} where text belongs")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ServerFault(f"the answer has {shown(value)} where names with values belong")
    return value


def _numbers(value: Any) -> Mapping[str, float]:
    return {name: _number(each) for name, each in _mapping(value).items()}


def _distribution(value: Any) -> Mapping[str, Mapping[str, int]]:
    return {
        content_type: {backend: _count(each) for backend, each in _mapping(counts).items()}
        for content_type, counts in _mapping(value).items()
    }


_READ: Mapping[object, Callable[[Any], Any]] = MappingProxyType(
    {
        int: _count,
        float: _number,
        str: _text,
        float | None: lambda value: None if value is None else _number(value),
        str | None: lambda value: None if value is None else _text(value),
    }
)
"""How a field of a section is read, by its declared type."""


def _section(kind: type[Section], value: Any) -> Section:
    """A section from its fields by name; fields of a newer server are ignored."""
    values = _mapping(value)
    return kind(**{field.name: _READ[field.type](values.get(field.name)) for field in fields(kind)})


def _sections_by_name(kind: type[Section]) -> Callable[[Any], Mapping[str, Section]]:
    return lambda value: {name: _section(kind, each) for name, each in _mapping(value).items()}


_SECTIONS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "factor_weights": _numbers,
        "backend_scores": _numbers,
        "success_rates": _numbers,
        "latency_stats": _sections_by_name(Latency),
        "content_distribution": _distribution,
        "usage_stats": _sections_by_name(Usage),
        "system": lambda value: _section(Activity, value),
        "backends": _sections_by_name(BackendSummary),
        "learned": _sections_by_name(Learned),
    }
)
"""The sections of an update, each a field of Metrics."""
