"""Which backends hold a content hash, and which decisions await an outcome."""

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from routing.core.model import Location, Operation, Outcome, Query

MAX_HASHES = 100_000
"""Hashes whose holders are remembered, about 40 MB at most. With fewer, a retrieval of
something stored long ago is offered backends that do not have it; past it the hash
touched longest ago is forgotten."""

MAX_HOLDERS = 32
"""Backends remembered for one hash; more copies than this help no decision."""

MAX_PENDING = 100_000
"""Decisions kept for their outcome: at 1,000 decisions a second these are the last 100
seconds, more than most transfers take."""

MAX_REPORTED = 33
"""Backends whose outcome is remembered for one decision: the choice and the contract's 32
alternatives. More are nobody's honest attempts."""

PENDING_S = 3600.0
"""The contract's hour: an outcome that comes later stands for itself."""

INFLIGHT_FLOOR_S = 30.0
INFLIGHT_EXPECTED_TIMES = 3.0
"""How long a decision counts as in flight when no outcome comes: three times what the
transfer should take, and at least 30 seconds. Shorter forgets slow transfers while they
run; longer lets clients that never report fill a backend up."""


@dataclass(slots=True, eq=False)
class Pending:
    """A decision that may still get its outcome, with what the outcome will not say.

    `inflight_until` None means that the operation has ended, or must have. `reported`
    are the backends whose outcome has come: the choice, and what the client tried next.
    `beside` counts what was in flight on the backend already.
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
    reported: tuple[str, ...] = ()
    beside: int = 0


class Queues:
    """Serial numbers that wait under a key, the oldest first; any of them may leave.

    Most keys have one, which is then kept bare: a queue of its own takes 400 bytes.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, int | OrderedDict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def oldest(self, key: Hashable) -> int | None:
        """The one that has waited longest under this key, if any."""
        waiting = self._waiting.get(key)
        return next(iter(waiting)) if isinstance(waiting, OrderedDict) else waiting

    def add(self, key: Hashable, serial: int) -> None:
        """Lets a new one wait behind the others."""
        waiting = self._waiting.setdefault(key, serial)
        if isinstance(waiting, OrderedDict):
            waiting[serial] = None
        elif waiting != serial:
            self._waiting[key] = OrderedDict.fromkeys((waiting, serial))

    def discard(self, key: Hashable, serial: int) -> None:
        """Lets one leave, if it waits there."""
        waiting = self._waiting.get(key)
        if isinstance(waiting, OrderedDict):
            waiting.pop(serial, None)
        if waiting == serial or not waiting:
            self._waiting.pop(key, None)

    def clear(self) -> None:
        """Lets all leave."""
        self._waiting.clear()


class Placement:
    """Holders of hashes, and decisions awaiting outcomes; both bounded, the oldest out first."""

    def __init__(self, *, max_hashes: int = MAX_HASHES, max_pending: int = MAX_PENDING) -> None:
        self._max_hashes = max_hashes
        self._max_pending = max_pending
        # {hash: {backend: when it was last seen to have it}}, the hash touched last at the end.
        self._holders: OrderedDict[str, dict[str, float]] = OrderedDict()
        # Decisions in the order in which they were made; the two indices point into it.
        self._pending: OrderedDict[int, Pending] = OrderedDict()
        self._by_request: dict[str, int] = {}
        self._by_content = Queues()  # by hash and backend, until their outcome has come
        self._nameless = Queues()  # by backend, with neither request_id nor hash
        self._inflight: dict[str, int] = {}
        self._fading: list[tuple[float, int]] = []
        self._serial = 0

    def __repr__(self) -> str:
        return f"Placement(hashes={len(self._holders)}, pending={len(self._pending)})"

    def holders(self, content_hash: str) -> Mapping[str, float]:
        """The backends that are remembered to hold the content; empty where none is."""
        return self._holders.get(content_hash, {})

    def inflight(self, backend_id: str) -> int:
        """Operations decided lately on this backend and not yet reported."""
        return self._inflight.get(backend_id, 0)

    def advance(self, now: float) -> None:
        """Lets go of decisions whose hour is over, and of transfers that must have ended."""
        while self._fading and self._fading[0][0] <= now:
            pending = self._pending.get(heapq.heappop(self._fading)[1])
            if pending is not None:
                self._land(pending)
        if len(self._fading) > 2 * len(self._pending) + 1000:
            # Decisions that were forgotten leave their entry behind until its time; they
            # are swept once there are more of those than of the others.
            self._fading = [entry for entry in self._fading if entry[1] in self._pending]
            heapq.heapify(self._fading)
        while self._pending:
            serial, pending = next(iter(self._pending.items()))
            if pending.decided_at > now - PENDING_S and len(self._pending) <= self._max_pending:
                break
            self._forget(serial)

    def note_decision(self, query: Query, backend_id: str, expected_ms: float, *, now: float) -> None:
        """Remembers a decision. The same request asked again replaces the earlier one."""
        if query.request_id in self._by_request:
            self._forget(self._by_request[query.request_id])
        lasting_s = max(INFLIGHT_FLOOR_S, INFLIGHT_EXPECTED_TIMES * expected_ms / 1e3)
        self._add(
            Pending(
                backend_id,
                query.request_id,
                query.content_hash,
                query.content_type,
                query.size_bytes,
                query.operation,
                query.location,
                now,
                now + min(lasting_s, PENDING_S),
                beside=self.inflight(backend_id),
            )
        )
        self.advance(now)

    def withdraw(self, request_id: str) -> None:
        """Forgets the decision on this request, if it is still kept: nothing is in flight for it."""
        serial = self._by_request.get(request_id)
        if serial is not None:
            self._forget(serial)

    def link(self, outcome: Outcome) -> Pending | None:
        """The decision that this is the outcome of, by request_id, else by hash and backend."""
        if outcome.request_id:
            serial = self._by_request.get(outcome.request_id)
        else:
            serial = self._by_content.oldest((outcome.content_hash, outcome.backend_id))
        return None if serial is None else self._pending[serial]

    def note_outcome(self, outcome: Outcome, pending: Pending | None) -> None:
        """Takes the operation out of flight. An outcome that names no decision stands
        for the oldest nameless one on its backend."""
        if pending is None:
            serial = None if outcome.request_id else self._nameless.oldest(outcome.backend_id)
            if serial is not None:
                self._forget(serial)
            return
        pending.reported = (*pending.reported, outcome.backend_id)[-MAX_REPORTED:]
        self._land(pending)
        key = (pending.content_hash, pending.backend_id)
        if pending.request_id:
            # It stays, to recognise a repeat; but the next outcome that names only the
            # content is another operation's.
            self._by_content.discard(key, self._by_request[pending.request_id])
        else:
            serial = self._by_content.oldest(key)
            assert serial is not None, "link found it there"
            self._forget(serial)

    def note_holder(self, content_hash: str, backend_id: str, *, at: float) -> None:
        """Remembers that the backend has the content."""
        backends = self._holders.setdefault(content_hash, {})
        self._holders.move_to_end(content_hash)
        backends[backend_id] = max(at, backends.get(backend_id, at))
        if len(backends) > MAX_HOLDERS:
            del backends[min(backends, key=lambda name: (backends[name], name))]
        if len(self._holders) > self._max_hashes:
            self._holders.popitem(last=False)

    def snapshot(self) -> dict[str, Any]:
        """The holders and the decisions that still await an outcome."""
        return {
            "holders": {content_hash: dict(row) for content_hash, row in self._holders.items()},
            "pending": [_as_row(pending) for pending in self._pending.values()],
        }

    def merge(self, snapshot: Mapping[str, Any], *, now: float) -> None:
        """Adds the holders and the decisions of a snapshot; the last word counts.

        A decision that both know is kept once.
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
            for index in (self._pending, self._by_request, self._by_content, self._nameless, self._inflight):
                index.clear()
            self._fading.clear()
            for pending in ordered[-self._max_pending :]:
                if pending.request_id in self._by_request:
                    self._forget(self._by_request[pending.request_id])
                self._add(pending)
        self.advance(now)

    def _add(self, pending: Pending) -> None:
        self._serial += 1
        serial = self._serial
        self._pending[serial] = pending
        if pending.request_id:
            self._by_request[pending.request_id] = serial
        if pending.content_hash and not pending.reported:
            self._by_content.add((pending.content_hash, pending.backend_id), serial)
        if not pending.request_id and not pending.content_hash:
            self._nameless.add(pending.backend_id, serial)
        if pending.inflight_until is not None:
            self._inflight[pending.backend_id] = self._inflight.get(pending.backend_id, 0) + 1
            heapq.heappush(self._fading, (pending.inflight_until, serial))

    def _land(self, pending: Pending) -> None:
        if pending.inflight_until is None:
            return
        pending.inflight_until = None
        left = self._inflight[pending.backend_id] - 1
        if left:
            self._inflight[pending.backend_id] = left
        else:
            del self._inflight[pending.backend_id]

    def _forget(self, serial: int) -> None:
        pending = self._pending.pop(serial)
        self._land(pending)
        if self._by_request.get(pending.request_id) == serial:
            del self._by_request[pending.request_id]
        self._by_content.discard((pending.content_hash, pending.backend_id), serial)
        self._nameless.discard(pending.backend_id, serial)


def _identity(pending: Pending) -> tuple[str, str, str, float]:
    return pending.backend_id, pending.request_id, pending.content_hash, pending.decided_at


def _as_row(pending: Pending) -> list[Any]:
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
        [*pending.reported],
        pending.beside,
    ]


def _from_row(row: list[Any]) -> Pending:
    backend_id, request_id, content_hash, content_type, size_bytes, operation, place, *rest = row
    return Pending(
        backend_id,
        request_id,
        content_hash,
        content_type,
        size_bytes,
        Operation(operation),
        None if place is None else Location(*place),
        decided_at=rest[0],
        inflight_until=rest[1],
        reported=tuple(rest[2]),
        beside=rest[3],
    )
