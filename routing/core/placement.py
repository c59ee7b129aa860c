"""Decisions that await their outcomes: which one an outcome belongs to, and what is in flight."""

import heapq
from array import array
from collections.abc import Mapping
from math import inf
from typing import Any

from routing.core.model import Location, Operation, Outcome, Query
from routing.core.pending import PendingDecision, PendingTable
from routing.core.repeats import Repeats

MAX_PENDING = 500_000
"""Pending decisions, some 120 MB at most: at 139 decisions a second those of an hour. With
fewer, a busy server forgets decisions before slow transfers are reported."""

PENDING_TTL_S = 3600.0
"""The contract's hour: a later outcome is recorded without its decision."""

MIN_INFLIGHT_S = 30.0
INFLIGHT_EXPECTED_FACTOR = 3.0
"""How long a decision without an outcome counts as in flight: three times the expected
duration, and at least 30 seconds. Shorter drops slow transfers while they still run;
longer lets clients that never report make a backend look full."""

SILENT_S = 600.0
"""The contract's 10 minutes without a report, after which what is in flight is a guess."""


class Expiries:
    """Slots by when their operations are presumed over; four bytes each, until the second
    in which that is."""

    def __init__(self) -> None:
        self._by_second: dict[int, array[int]] = {}
        self._seconds: list[int] = []  # a heap
        self._due: list[tuple[float, int]] = []  # a heap of (when, slot) within a second that has begun
        self.count = 0

    def add(self, until: float, slot: int) -> None:
        """Adds a slot."""
        second = int(until)
        slots = self._by_second.get(second)
        if slots is None:
            slots = self._by_second[second] = array("I")
            heapq.heappush(self._seconds, second)
        slots.append(slot)
        self.count += 1

    @property
    def next_at(self) -> float:
        """Nothing is due before."""
        second = self._seconds[0] if self._seconds else inf
        return min(self._due[0][0], second) if self._due else second

    def pop(self, now: float, table: PendingTable) -> int | None:
        """A slot whose operation is presumed over by now, or None if there is none."""
        while self._seconds and self._seconds[0] <= now:
            slots = self._by_second.pop(heapq.heappop(self._seconds))
            self.count -= len(slots)
            for slot in slots:
                until = table.inflight_until(slot)
                if until:
                    heapq.heappush(self._due, (until, slot))
        while self._due and self._due[0][0] <= now:
            until, slot = heapq.heappop(self._due)
            # The slot may have been reported on since, or belong to a later decision.
            if table.inflight_until(slot) == until:
                return slot
        return None


class Placement:
    """Pending decisions, what is in flight, and what was reported; bounded, the oldest out first."""

    def __init__(self, *, max_pending: int = MAX_PENDING) -> None:
        self._max_pending = max_pending
        self._repeats = Repeats()
        self._pending = PendingTable(max_pending)
        self._expiries = Expiries()
        # Bounded by backends, as all below.
        self._inflight: dict[str, int] = {}
        # {backend: since when its decisions have waited without a single report}.
        self._silent_since: dict[str, float] = {}
        # Before this time `advance` has nothing to do.
        self._next_at = -inf

    def __repr__(self) -> str:
        return f"Placement(pending={len(self._pending)}, reported={len(self._repeats)})"

    def inflight(self, backend_id: str) -> int:
        """Operations in flight on this backend: decided, not yet reported, not yet presumed over."""
        return self._inflight.get(backend_id, 0)

    def silent(self, backend_id: str, now: float) -> bool:
        """Whether decisions for this backend have been waiting for 10 minutes, and none of them
        was reported: then its clients do not report, and what is in flight is not known."""
        return self._silent_since.get(backend_id, now) <= now - SILENT_S

    def advance(self, now: float) -> None:
        """Removes pending decisions that are too old, and ends overdue transfers."""
        if now >= self._next_at:
            self._advance(now)

    def _advance(self, now: float) -> None:
        slot = self._expiries.pop(now, self._pending)
        while slot is not None:
            self._end_inflight(slot)
            slot = self._expiries.pop(now, self._pending)
        if self._expiries.count > 2 * len(self._pending) + 1000:
            self._sweep_expiries()
        slot = self._pending.oldest()
        while slot is not None and self._pending.decided_at(slot) <= now - PENDING_TTL_S:
            self._remove(slot)
            slot = self._pending.oldest()
        self._repeats.expire(now)
        oldest_at = now if slot is None else self._pending.decided_at(slot)
        self._next_at = min(oldest_at + PENDING_TTL_S, self._expiries.next_at, self._repeats.next_at)

    def note_decision(self, query: Query, backend_id: str, expected_ms: float, *, now: float) -> None:
        """Adds a pending decision. A repeated request_id replaces the earlier decision."""
        request_id = query.request_id
        if request_id:
            slot = self._pending.find(request_id)
            if slot is not None:
                self._remove(slot)
            self._repeats.note_decided(request_id)
        inflight_s = INFLIGHT_EXPECTED_FACTOR * expected_ms / 1e3
        if inflight_s < MIN_INFLIGHT_S:
            inflight_s = MIN_INFLIGHT_S
        elif inflight_s > PENDING_TTL_S:
            inflight_s = PENDING_TTL_S
        self._add(query, backend_id, now, now + inflight_s, self._inflight.get(backend_id, 0))
        if backend_id not in self._silent_since:
            self._silent_since[backend_id] = now

    def cancel(self, request_id: str) -> None:
        """Removes the pending decision of this request, if there is one, and ends its flight."""
        slot = self._pending.find(request_id) if request_id else None
        if slot is not None:
            self._remove(slot)

    def find_pending(self, outcome: Outcome) -> PendingDecision | None:
        """The pending decision of this outcome: by request_id, or else by hash and backend."""
        slot = None
        if outcome.request_id:
            slot = self._pending.find(outcome.request_id)
        elif outcome.content_hash:
            slot = self._pending.head(outcome.content_hash, outcome.backend_id)
        return None if slot is None else self._pending.decision(slot)

    def is_repeat(self, outcome: Outcome) -> bool:
        """Whether an outcome of this request and backend was recorded within the last hour, and
        the request was not decided anew since."""
        return bool(outcome.request_id) and self._repeats.known(outcome.request_id, outcome.backend_id)

    def note_outcome(self, outcome: Outcome, pending: PendingDecision | None, *, now: float) -> None:
        """Ends the operation's flight. An outcome without request_id and without a `pending`
        decision ends the backend's oldest one that has neither request_id nor hash."""
        if outcome.request_id:
            self._repeats.note(outcome.request_id, outcome.backend_id, now=now)
        if pending is not None:
            slot, backend_id = pending.slot, pending.backend_id
            self._end_inflight(slot)
            if pending.request_id:
                # It stays pending: outcomes of alternatives belong to it, too. But the next
                # outcome that has only a hash belongs to another operation.
                self._pending.dequeue(pending)
            else:
                self._remove(slot)
        else:
            backend_id = outcome.backend_id
            oldest = None if outcome.request_id else self._pending.head("", backend_id)
            if oldest is None:
                return
            self._remove(oldest)
        if backend_id in self._inflight:
            self._silent_since[backend_id] = now
        else:
            self._silent_since.pop(backend_id, None)

    def snapshot(self) -> dict[str, Any]:
        """The pending decisions and what was reported, as JSON-able values."""
        return {
            "pending": [_as_row(pending) for pending in self._pending],
            "reported": self._repeats.snapshot(),
            "silent_since": dict(self._silent_since),
        }

    def merge(self, snapshot: Mapping[str, Any], *, now: float) -> None:
        """Adds the pending decisions and the reports of a snapshot.

        A decision that is pending on both sides is kept once.
        """
        mine = {_identity(pending): pending for pending in self._pending}
        theirs = [
            pending for pending in map(_from_row, snapshot["pending"]) if _identity(pending) not in mine
        ]
        if theirs:
            self._pending = PendingTable(self._max_pending)
            self._expiries = Expiries()
            self._inflight.clear()
            for pending in sorted([*mine.values(), *theirs], key=lambda one: one.decided_at):
                slot = self._pending.find(pending.request_id) if pending.request_id else None
                if slot is not None:
                    self._remove(slot)
                self._add(
                    Query(
                        content_hash=pending.content_hash,
                        content_type=pending.content_type,
                        size_bytes=pending.size_bytes,
                        operation=pending.operation,
                        location=pending.location,
                        request_id=pending.request_id,
                    ),
                    pending.backend_id,
                    pending.decided_at,
                    pending.inflight_until,
                    pending.inflight_before,
                    awaited=pending.awaited,
                )
        self._repeats.merge(snapshot["reported"])
        for backend_id, since in snapshot["silent_since"].items():
            self._silent_since[backend_id] = max(since, self._silent_since.get(backend_id, since))
        self._advance(now)

    def _add(
        self,
        query: Query,
        backend_id: str,
        at: float,
        until: float | None,
        before: int,
        *,
        awaited: bool = True,
    ) -> None:
        table = self._pending
        slot = table.oldest_in_the_way()
        if slot is not None:
            self._remove(slot)
        slot = table.add(
            query, backend_id, decided_at=at, inflight_until=until, inflight_before=before, awaited=awaited
        )
        if until is not None:
            self._inflight[backend_id] = self._inflight.get(backend_id, 0) + 1
            self._expiries.add(until, slot)
            if until < self._next_at:
                self._next_at = until
            if self._expiries.count > 2 * len(table) + 1000:
                self._sweep_expiries()

    def _end_inflight(self, slot: int) -> None:
        backend_id = self._pending.end_flight(slot)
        if backend_id is None:
            return
        left = self._inflight[backend_id] - 1
        if left:
            self._inflight[backend_id] = left
        else:
            del self._inflight[backend_id]

    def _remove(self, slot: int) -> None:
        self._end_inflight(slot)
        self._pending.remove(slot)

    def _sweep_expiries(self) -> None:
        """A removed decision leaves its slot among the expiries until its second comes."""
        self._expiries = Expiries()
        for pending in self._pending:
            if pending.inflight_until is not None:
                self._expiries.add(pending.inflight_until, pending.slot)


def _identity(pending: PendingDecision) -> tuple[str, str, str, float]:
    return pending.backend_id, pending.request_id, pending.content_hash, pending.decided_at


def _as_row(pending: PendingDecision) -> list[Any]:
    place = pending.location
    return [
        pending.backend_id,
        pending.request_id,
        pending.content_hash,
        pending.content_type,
        pending.size_bytes,
        pending.operation.value,
        None if place is None else [place.latitude, place.longitude, place.region],
        pending.decided_at,
        pending.inflight_until,
        pending.awaited,
        pending.inflight_before,
    ]


def _from_row(row: list[Any]) -> PendingDecision:
    backend_id, request_id, content_hash, content_type, size_bytes, operation, place, *rest = row
    return PendingDecision(
        backend_id,
        request_id,
        content_hash,
        content_type,
        size_bytes,
        Operation(operation),
        None if place is None else Location(*place),
        *rest,
    )
