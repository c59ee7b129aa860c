"""What happens to a router, as rows that can be written down and told to another one.

The router is a fold over its events. An event says what came of it, not what was asked:
a decision is told as it fell, since `adaptive` would roll other dice the second time and
a changed profile would weigh differently; an outcome is told as it was reported, since
what it teaches follows from the state that the earlier events have left. So a replay
gives the same sums, to the last digit.

A row is a tuple of plain values, which JSON can carry; its first field names its kind.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from routing.core.model import Decision, Location, Operation, Outcome, Query
from routing.core.router import Router

Row = tuple[Any, ...]


def discovered(names: Iterable[str]) -> Row:
    """Names that clients used and the configuration does not have."""
    return ("discovered", tuple(names))


def decided(decision: Decision) -> Row:
    """A decision, with as much of its query as is remembered."""
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


def reported(outcome: Outcome, *, now: float) -> Row:
    """An outcome that was recorded; its error's words teach nothing and are left out."""
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
    )


def replay(router: Router, row: Iterable[Any], *, latest: float) -> None:
    """Tells a router what happened, at the latest at the time `latest`: what seems to have
    happened later was told by a clock that has been set right since.

    What concerns a backend that the router does not know is left out: an operator has
    taken it out of the configuration, and must not find it discovered.
    """
    kind, *values = row
    _REPLAYS[kind](router, latest, *values)


def _discovered(router: Router, _latest: float, names: Iterable[str]) -> None:
    router.note_discovered(names)


def _decided(
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
    router.note_decided(query, backend_id, expected_ms, probe=probe, passed_over=passed_over, now=now)


def _reported(
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
    )
    router.record(outcome, now=min(at, latest))


_REPLAYS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {"discovered": _discovered, "decided": _decided, "reported": _reported}
)
