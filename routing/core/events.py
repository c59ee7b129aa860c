"""The events that change a router, as rows that can be stored and applied to another router.

The router is a fold over its events. The event of a decision holds its result and is
not decided again, since `adaptive` would draw other random numbers and a changed
profile would score differently. The event of an outcome holds the report, since what is
learned from it follows from the state that earlier events produced. So applying the
events in order gives the same sums, to the last digit.

A row is a tuple of plain JSON-able values; its first field names the kind of event.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from routing.core.model import Decision, Location, Operation, Outcome, Query
from routing.core.router import Router

EventRow = tuple[Any, ...]


def discovery_event(names: Iterable[str]) -> EventRow:
    """Names that clients used and the configuration does not have."""
    return ("discovered", tuple(names))


def decision_event(decision: Decision) -> EventRow:
    """A decision, with those fields of its query that the router keeps."""
    query, location = decision.query, decision.query.location
    return (
        "decided",
        decision.decided_at,
        decision.chosen.backend_id,
        decision.chosen.estimate.expected_ms,
        query.request_id,
        query.content_hash,
        query.content_type,
        query.size_bytes,
        query.operation.value,
        None if location is None else (location.latitude, location.longitude, location.region),
        decision.probe,
        decision.passed_over,
    )


def outcome_event(outcome: Outcome, *, now: float) -> EventRow:
    """A recorded outcome, without its error text, from which nothing is learned."""
    return (
        "reported",
        now,
        outcome.backend_id,
        outcome.success,
        outcome.request_id,
        outcome.content_hash,
        outcome.content_type,
        outcome.size_bytes,
        outcome.duration_ms,
        outcome.happened_at,
        outcome.fault,
        outcome.caller,
    )


def apply_event(router: Router, row: Iterable[Any], *, latest: float) -> None:
    """Applies a stored event to a router. A time after `latest` is replaced by `latest`: it
    was read from a clock that has been corrected since.

    Events of a backend that the router does not know are skipped: an operator removed it
    from the configuration, and it must not come back as a discovered one.
    """
    kind, *values = row
    _APPLY[kind](router, latest, *values)


def _apply_discovery(router: Router, _latest: float, names: Iterable[str]) -> None:
    router.note_discovered(names)


def _apply_decision(
    router: Router,
    latest: float,
    at: float,
    backend_id: str,
    expected_ms: float,
    request_id: str,
    content_hash: str,
    content_type: str,
    size_bytes: int,
    operation: str,
    location: Iterable[Any] | None,
    probe: bool,
    passed_over: Iterable[str],
) -> None:
    if not router.knows(backend_id):
        return
    query = Query(
        content_hash=content_hash,
        content_type=content_type,
        size_bytes=size_bytes,
        operation=Operation(operation),
        location=None if location is None else Location(*location),
        request_id=request_id,
    )
    now = min(at, latest)
    router.replay_decision(query, backend_id, expected_ms, probe=probe, passed_over=passed_over, now=now)


def _apply_outcome(
    router: Router,
    latest: float,
    at: float,
    backend_id: str,
    success: bool,
    request_id: str,
    content_hash: str,
    content_type: str,
    size_bytes: int,
    duration_ms: int | None,
    happened_at: float | None,
    fault: str,
    caller: str,
) -> None:
    if not router.knows(backend_id):
        return
    outcome = Outcome(
        backend_id,
        success,
        content_hash=content_hash,
        content_type=content_type,
        size_bytes=size_bytes,
        duration_ms=duration_ms,
        happened_at=None if happened_at is None else min(happened_at, latest),
        request_id=request_id,
        fault=fault,
        caller=caller,
    )
    router.record(outcome, now=min(at, latest))


_APPLY: Mapping[str, Callable[..., None]] = MappingProxyType(
    {"discovered": _apply_discovery, "decided": _apply_decision, "reported": _apply_outcome}
)
