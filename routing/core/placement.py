"""Which backends hold a content hash, and which decisions are pending: made, outcome unknown."""

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from routing.core.model import Location, Operation, Outcome, Query

MAX_HASHES = 100_000
"""Hashes whose holders are kept, about 40 MB at most. With fewer, a retrieval of an object
stored long ago is offered backends that do not have it. Beyond it, the least recently
used hash is evicted."""

MAX_HOLDERS = 32
"""Holders kept for one hash; more copies than this improve no decision."""

MAX_PENDING = 100_000
"""Pending decisions: at 1,000 decisions a second those of the last 100 seconds, longer than
most transfers take."""

MAX_REPORTED_BACKENDS = 33
"""Backends whose outcomes are kept for one decision: the chosen one and the contract's 32
alternatives. No well-behaved client tries more."""

PENDING_TTL_S = 3600.0
"""The contract's hour: a later outcome is recorded without its decision."""

MIN_INFLIGHT_S = 30.0
INFLIGHT_EXPECTED_FACTOR = 3.0
"""How long a decision without an outcome counts as in flight: three times the expected
duration, and at least 30 seconds. Shorter drops slow transfers while they still run;
longer lets clients that never report make a backend look full."""


@dataclass(slots=True, eq=False)
class PendingDecision:
    """A decision whose outcome may still be reported, with the facts of the query that an
    outcome may omit.

    `inflight_until` None means that the operation has ended or is presumed to have.
    `reported_backends` have reported an outcome: the chosen one, and alternatives that the
    client tried. `inflight_before` is how many operations were in flight on the backend
    when it was chosen.
    """

    backend_id: str
    request_id: str
    content_hash: str
    content_type: str
    size_bytes: int
    operation: Operation
    location: Location | None
    decided_at: float
    inflight_until: float | None
    reported_backends: tuple[str, ...] = ()
    inflight_before: int = 0


class SerialQueues:
    """A FIFO queue of serial numbers for each key, from which any can be removed.

    Most keys have a single serial, which is then stored as a plain int: an OrderedDict of
    one takes 400 bytes.
    """

    def __init__(self) -> None:
        self._serials: dict[Hashable, int | OrderedDict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._serials)

    def oldest(self, key: Hashable) -> int | None:
        """The first serial of the key's queue, or None."""
        queue = self._serials.get(key)
        return next(iter(queue)) if isinstance(queue, OrderedDict) else queue

    def add(self, key: Hashable, serial: int) -> None:
        """Appends a serial to the key's queue."""
        queue = self._serials.setdefault(key, serial)
        if isinstance(queue, OrderedDict):
            queue[serial] = None
        elif queue != serial:
            self._serials[key] = OrderedDict.fromkeys((queue, serial))

    def discard(self, key: Hashable, serial: int) -> None:
        """Removes a serial from the key's queue, if it is there."""
        queue = self._serials.get(key)
        if isinstance(queue, OrderedDict):
            queue.pop(serial, None)
        if queue == serial or not queue:
            self._serials.pop(key, None)

    def clear(self) -> None:
        """Removes all queues."""
        self._serials.clear()


class Placement:
    """Holders of hashes, and pending decisions; both bounded, the oldest are evicted first."""

    def __init__(self, *, max_hashes: int = MAX_HASHES, max_pending: int = MAX_PENDING) -> None:
        self._max_hashes = max_hashes
        self._max_pending = max_pending
        # {hash: {backend: when it was last known to hold it}}, most recently used hash last.
        self._holders: OrderedDict[str, dict[str, float]] = OrderedDict()
        # {serial: decision}, oldest first. The three indices below hold its serials.
        self._pending: OrderedDict[int, PendingDecision] = OrderedDict()
        self._by_request: dict[str, int] = {}
        self._by_hash_and_backend = SerialQueues()  # until an outcome is reported
        self._unidentified = SerialQueues()  # by backend; neither request_id nor hash
        self._inflight: dict[str, int] = {}
        self._inflight_expiries: list[tuple[float, int]] = []  # a heap of (until, serial)
        self._last_serial = 0

    def __repr__(self) -> str:
        return f"Placement(hashes={len(self._holders)}, pending={len(self._pending)})"

    def holders(self, content_hash: str) -> Mapping[str, float]:
        """{backend known to hold the content: when that was last known}."""
        return self._holders.get(content_hash, {})

    def inflight(self, backend_id: str) -> int:
        """Operations in flight on this backend: decided, not yet reported, not yet presumed over."""
        return self._inflight.get(backend_id, 0)

    def advance(self, now: float) -> None:
        """Removes pending decisions that are too old or too many, and ends overdue transfers."""
        while self._inflight_expiries and self._inflight_expiries[0][0] <= now:
            pending = self._pending.get(heapq.heappop(self._inflight_expiries)[1])
            if pending is not None:
                self._end_inflight(pending)
        if len(self._inflight_expiries) > 2 * len(self._pending) + 1000:
            # A removed decision leaves its entry in the heap until that expires; stale
            # entries are swept once they outnumber the others.
            self._inflight_expiries = [
                entry for entry in self._inflight_expiries if entry[1] in self._pending
            ]
            heapq.heapify(self._inflight_expiries)
        while self._pending:
            serial, pending = next(iter(self._pending.items()))
            if pending.decided_at > now - PENDING_TTL_S and len(self._pending) <= self._max_pending:
                break
            self._remove(serial)

    def note_decision(self, query: Query, backend_id: str, expected_ms: float, *, now: float) -> None:
        """Adds a pending decision. A repeated request_id replaces the earlier decision."""
        if query.request_id in self._by_request:
            self._remove(self._by_request[query.request_id])
        inflight_s = max(MIN_INFLIGHT_S, INFLIGHT_EXPECTED_FACTOR * expected_ms / 1e3)
        self._add(
            PendingDecision(
                backend_id,
                query.request_id,
                query.content_hash,
                query.content_type,
                query.size_bytes,
                query.operation,
                query.location,
                now,
                now + min(inflight_s, PENDING_TTL_S),
                inflight_before=self.inflight(backend_id),
            )
        )
        self.advance(now)

    def cancel(self, request_id: str) -> None:
        """Removes the pending decision of this request, if there is one, and ends its flight."""
        serial = self._by_request.get(request_id)
        if serial is not None:
            self._remove(serial)

    def find_pending(self, outcome: Outcome) -> PendingDecision | None:
        """The pending decision of this outcome: by request_id, or else by hash and backend."""
        if outcome.request_id:
            serial = self._by_request.get(outcome.request_id)
        else:
            serial = self._by_hash_and_backend.oldest((outcome.content_hash, outcome.backend_id))
        return None if serial is None else self._pending[serial]

    def note_outcome(self, outcome: Outcome, pending: PendingDecision | None) -> None:
        """Ends the operation's flight. An outcome without request_id and without a `pending`
        decision ends the backend's oldest unidentified one."""
        if pending is None:
            serial = None if outcome.request_id else self._unidentified.oldest(outcome.backend_id)
            if serial is not None:
                self._remove(serial)
            return
        pending.reported_backends = (*pending.reported_backends, outcome.backend_id)[-MAX_REPORTED_BACKENDS:]
        self._end_inflight(pending)
        key = (pending.content_hash, pending.backend_id)
        if pending.request_id:
            # It stays pending, so that a repeated report is recognised; but the next outcome
            # that has only a hash belongs to another operation.
            self._by_hash_and_backend.discard(key, self._by_request[pending.request_id])
        else:
            serial = self._by_hash_and_backend.oldest(key)
            assert serial is not None, "find_pending found it there"
            self._remove(serial)

    def note_holder(self, content_hash: str, backend_id: str, *, at: float) -> None:
        """Adds the backend to the holders of the content."""
        backends = self._holders.setdefault(content_hash, {})
        self._holders.move_to_end(content_hash)
        backends[backend_id] = max(at, backends.get(backend_id, at))
        if len(backends) > MAX_HOLDERS:
            del backends[min(backends, key=lambda name: (backends[name], name))]
        if len(self._holders) > self._max_hashes:
            self._holders.popitem(last=False)

    def snapshot(self) -> dict[str, Any]:
        """The holders and the pending decisions, as JSON-able values."""
        return {
            "holders": {content_hash: dict(backends) for content_hash, backends in self._holders.items()},
            "pending": [_as_row(pending) for pending in self._pending.values()],
        }

    def merge(self, snapshot: Mapping[str, Any], *, now: float) -> None:
        """Adds the holders and the pending decisions of a snapshot; the later time wins.

        A decision that is pending on both sides is kept once.
        """
        for content_hash, backends in snapshot["holders"].items():
            for backend_id, at in backends.items():
                self.note_holder(content_hash, backend_id, at=at)
        known = {_identity(pending) for pending in self._pending.values()}
        theirs = [
            pending for pending in map(_from_row, snapshot["pending"]) if _identity(pending) not in known
        ]
        if theirs:
            ordered = sorted([*self._pending.values(), *theirs], key=lambda one: one.decided_at)
            self._clear_pending()
            for pending in ordered[-self._max_pending :]:
                if pending.request_id in self._by_request:
                    self._remove(self._by_request[pending.request_id])
                self._add(pending)
        self.advance(now)

    def _clear_pending(self) -> None:
        self._pending.clear()
        self._by_request.clear()
        self._by_hash_and_backend.clear()
        self._unidentified.clear()
        self._inflight.clear()
        self._inflight_expiries.clear()

    def _add(self, pending: PendingDecision) -> None:
        self._last_serial += 1
        serial = self._last_serial
        self._pending[serial] = pending
        if pending.request_id:
            self._by_request[pending.request_id] = serial
        if pending.content_hash and not pending.reported_backends:
            self._by_hash_and_backend.add((pending.content_hash, pending.backend_id), serial)
        if not pending.request_id and not pending.content_hash:
            self._unidentified.add(pending.backend_id, serial)
        if pending.inflight_until is not None:
            self._inflight[pending.backend_id] = self._inflight.get(pending.backend_id, 0) + 1
            heapq.heappush(self._inflight_expiries, (pending.inflight_until, serial))

    def _end_inflight(self, pending: PendingDecision) -> None:
        if pending.inflight_until is None:
            return
        pending.inflight_until = None
        left = self._inflight[pending.backend_id] - 1
        if left:
            self._inflight[pending.backend_id] = left
        else:
            del self._inflight[pending.backend_id]

    def _remove(self, serial: int) -> None:
        pending = self._pending.pop(serial)
        self._end_inflight(pending)
        if self._by_request.get(pending.request_id) == serial:
            del self._by_request[pending.request_id]
        self._by_hash_and_backend.discard((pending.content_hash, pending.backend_id), serial)
        self._unidentified.discard(pending.backend_id, serial)


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
        [*pending.reported_backends],
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
        decided_at=rest[0],
        inflight_until=rest[1],
        reported_backends=tuple(rest[2]),
        inflight_before=rest[3],
    )
