"""An outcome together with its decision: when it happened, and the facts that it omits."""

from typing import NamedTuple

from routing.core.model import Fault, Location, Operation, Outcome
from routing.core.pending import PendingDecision
from routing.errors import InvalidArgument

MAX_CLOCK_AHEAD_S = 300.0
"""How far a client's clock may be ahead of the server's: the contract's 5 minutes."""


class LinkedOutcome(NamedTuple):
    """An outcome, with what it omits taken from its decision, where one is pending.

    `at` is when it happened. `operation` and `request_id` None mean unknown: no decision is
    pending. Then the operation began at `decided_at`, at the latest.
    `inflight_before` is 0 unless the backend is the one that was decided on.
    """

    outcome: Outcome
    at: float
    content_hash: str
    content_type: str
    size_bytes: int
    operation: Operation | None
    location: Location | None
    inflight_before: int
    decided_at: float
    request_id: str | None

    @property
    def judges_backend(self) -> bool:
        """Whether it says how well the backend works: all but others' faults."""
        return self.outcome.success or self.outcome.fault == Fault.BACKEND

    @property
    def teaches(self) -> bool:
        """Whether it says what to expect of operations like this one. A fault of the content
        does where the backend was to store it; where it does not have it, only its hash matters."""
        if self.outcome.fault == Fault.CONTENT:
            return self.outcome.success or self.operation is not Operation.RETRIEVE
        return self.judges_backend


def reported_time(outcome: Outcome, *, now: float) -> float:
    """When the outcome happened by its own account, at the latest now. Raises InvalidArgument
    for a time too far ahead."""
    at = now if outcome.happened_at is None else outcome.happened_at
    if at > now + MAX_CLOCK_AHEAD_S:
        ahead = f"{at - now:,.0f} seconds ahead of the server's clock"
        raise InvalidArgument("timestamp", ahead, f"at most {MAX_CLOCK_AHEAD_S:g} seconds ahead")
    return min(at, now)


def linked(outcome: Outcome, pending: PendingDecision | None, *, at: float) -> LinkedOutcome:
    """The outcome, reported to have happened at `at`, with its decision.

    It happened at its decision at the earliest: a client's clock may be hours slow.
    """
    fields = outcome.content_hash, outcome.content_type, outcome.size_bytes
    if pending is None:
        return LinkedOutcome(outcome, at, *fields, None, None, 0, at - (outcome.duration_ms or 0) / 1e3, None)
    return LinkedOutcome(
        outcome,
        max(at, pending.decided_at),
        outcome.content_hash or pending.content_hash,
        outcome.content_type or pending.content_type,
        outcome.size_bytes or pending.size_bytes,
        pending.operation,
        pending.location,
        pending.inflight_before if pending.backend_id == outcome.backend_id else 0,
        pending.decided_at,
        pending.request_id,
    )
