"""Pending decisions: made, their outcomes not known yet. A bounded table, the oldest evicted first.

A busy server has half a million of them, so each is one `bytes` object and a place in columns of
numbers, and the indices hold numbers instead of strings: some 230 bytes in all at ids of 36 bytes
and hashes of 64, a third of what it takes as an object with three dicts that point at it.

A decision has a serial number, and its slot in the ring is that number modulo the size of the
ring. Decisions about one content on one backend form a queue, since an outcome without a
request_id belongs to the oldest of them. Only its head is in the index; each slot has the slot
after it. A decision that leaves its queue early is skipped when the head reaches it, which is
before its slot is used again: all that stand before it in the queue are older.
"""

from array import array
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from routing.core.model import Location, Operation, Query
from routing.core.slot_index import NO_SLOT, SlotIndex, pack_entry, pack_tag, unpack_slot

SLOTS_AT_ONCE = 64
"""By which the columns grow: one by one costs a microsecond for each decision."""

MAX_BEFORE = 0xFFFF
"""What is kept of `inflight_before`. It has two bytes; more load than this teaches nothing more."""

_LENGTHS = Struct("<HHH")
"""Of the request_id, the content hash and the content type, in front of them."""

_COORDINATES = Struct("<dd")
_pack_lengths = _LENGTHS.pack
_unpack_lengths = _LENGTHS.unpack_from

_IN_USE, _QUEUED, _RETRIEVE, _HAS_LOCATION, _HAS_COORDINATES = 1, 2, 4, 8, 16
_ENDED = 0.0


class PendingDecision(NamedTuple):
    """A decision whose outcome may still be reported, with the facts of the query that an
    outcome may omit.

    `inflight_until` None means that the operation has ended or is presumed to have.
    `awaited` means that no outcome of it was reported. `inflight_before` is how many operations
    were in flight on the backend when it was chosen. `slot` is its place in the table, or -1.
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
    awaited: bool = True
    inflight_before: int = 0
    slot: int = -1


class PendingTable:
    """The latest `capacity` decisions that were not removed, by request_id and by queue.

    The queue of (content hash, backend) has those decisions of which no outcome is known; the
    one with an empty hash has those that an outcome cannot name at all. Names of backends are
    numbered, for as long as the table lives.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        # By slot: the texts and the location of a decision, and its numbers in columns.
        self._texts: list[bytes] = []
        self._states = bytearray()
        self._decided_at = array("d")
        self._inflight_until = array("d")  # _ENDED where it is over
        self._size_bytes = array("q")
        self._backend = array("I")
        self._inflight_before = array("H")
        self._next = array("I")
        self._last = array("I")  # of a queue, at its head
        self._by_request = SlotIndex(capacity)
        self._heads = SlotIndex(capacity)
        # Serial numbers: all before `_oldest` are gone, `_end` is the next.
        self._oldest = 0
        self._end = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[PendingDecision]:
        """All decisions, the oldest first."""
        for serial in range(self._oldest, self._end):
            slot = serial % self._capacity
            if self._states[slot]:
                yield self.decision(slot)

    def oldest(self) -> int | None:
        """The slot of the oldest decision, or None if there is none."""
        while self._oldest < self._end:
            slot = self._oldest % self._capacity
            if self._states[slot]:
                return slot
            self._oldest += 1
        return None

    def oldest_in_the_way(self) -> int | None:
        """The slot of the oldest decision if the next one needs a slot, which is that one."""
        if self._end - self._oldest < self._capacity:
            return None
        slot = self.oldest()
        return slot if self._end - self._oldest >= self._capacity else None

    def decided_at(self, slot: int) -> float:
        """When the decision in this slot was made."""
        return self._decided_at[slot]

    def inflight_until(self, slot: int) -> float:
        """When the operation in this slot is presumed over; 0 if it has ended."""
        return self._inflight_until[slot]

    def end_flight(self, slot: int) -> str | None:
        """Notes that the operation has ended. Returns its backend, or None if it had ended before."""
        if self._inflight_until[slot] == _ENDED:
            return None
        self._inflight_until[slot] = _ENDED
        return self._names[self._backend[slot]]

    def find(self, request_id: str) -> int | None:
        """The slot of the decision on this request, or None."""
        key_hash, index = hash(request_id), self._by_request
        bucket, tag = index.buckets[key_hash % index.size], pack_tag(key_hash >> 24 & NO_SLOT)
        at = bucket.find(tag)
        while at >= 0:
            if not at & 7:
                slot: int = unpack_slot(bucket, at + 4)[0]
                texts, encoded = self._texts[slot], request_id.encode()
                if texts.startswith(encoded, _LENGTHS.size) and _unpack_lengths(texts)[0] == len(encoded):
                    return slot
            at = bucket.find(tag, at + 1)
        return None

    def head(self, content_hash: str, backend_id: str) -> int | None:
        """The slot of the oldest decision in this queue, or None."""
        slots = self._heads.slots(hash((content_hash, backend_id)))
        if slots:
            number = self._numbers.get(backend_id)
            encoded = content_hash.encode()
            for slot in slots:
                texts = self._texts[slot]
                start, size, _ = _unpack_lengths(texts)
                if (
                    self._backend[slot] == number
                    and size == len(encoded)
                    and texts.startswith(encoded, _LENGTHS.size + start)
                ):
                    return slot
        return None

    def decision(self, slot: int) -> PendingDecision:
        """The decision in this slot."""
        texts, state = self._texts[slot], self._states[slot]
        request_size, hash_size, type_size = _unpack_lengths(texts)
        hash_at = _LENGTHS.size + request_size
        type_at = hash_at + hash_size
        at = type_at + type_size
        location = None
        if state & _HAS_LOCATION:
            latitude = longitude = None
            if state & _HAS_COORDINATES:
                latitude, longitude = _COORDINATES.unpack_from(texts, at)
                at += _COORDINATES.size
            location = Location(latitude, longitude, texts[at:].decode())
        return PendingDecision(
            self._names[self._backend[slot]],
            texts[_LENGTHS.size : hash_at].decode(),
            texts[hash_at:type_at].decode(),
            texts[type_at : type_at + type_size].decode(),
            self._size_bytes[slot],
            Operation.RETRIEVE if state & _RETRIEVE else Operation.STORE,
            location,
            self._decided_at[slot],
            self._inflight_until[slot] or None,
            bool(state & _QUEUED),
            self._inflight_before[slot],
            slot,
        )

    def add(
        self,
        query: Query,
        backend_id: str,
        *,
        decided_at: float,
        inflight_until: float | None,
        inflight_before: int,
        awaited: bool = True,
    ) -> int:
        """Adds the decision for this backend, and returns its slot. No decision may be in the
        way, and none on the same request in the table."""
        slot = self._end % self._capacity
        if slot >= len(self._states):
            self._grow()
        self._end += 1
        self._count += 1
        number = self._numbers.get(backend_id)
        if number is None:
            number = self._numbers[backend_id] = len(self._names)
            self._names.append(backend_id)
        self._decided_at[slot] = decided_at
        self._inflight_until[slot] = inflight_until or _ENDED
        self._size_bytes[slot] = query.size_bytes
        self._backend[slot] = number
        self._inflight_before[slot] = inflight_before if inflight_before < MAX_BEFORE else MAX_BEFORE
        request_id, content_hash, location = query.request_id, query.content_hash, query.location
        texts = request_id.encode(), content_hash.encode(), query.content_type.encode()
        self._texts[slot] = _pack_lengths(*map(len, texts)) + b"".join(texts)
        state = _IN_USE if query.operation is Operation.STORE else _IN_USE | _RETRIEVE
        if location is not None:
            bits, where = _place(location)
            state |= bits
            self._texts[slot] += where
        if request_id:
            self._by_request.add(hash(request_id), slot)
        if awaited and (content_hash or not request_id):
            state |= _QUEUED
            self._enqueue(slot, content_hash, backend_id)
        self._states[slot] = state
        return slot

    def dequeue(self, decision: PendingDecision) -> None:
        """An outcome of the decision is known: it leaves its queue."""
        if self._states[decision.slot] & _QUEUED:
            self._leave_queue(decision.slot, decision.content_hash, decision.backend_id)

    def remove(self, slot: int) -> None:
        """Removes a decision, whose operation is over or does not matter."""
        texts = self._texts[slot]
        request_size, hash_size, _ = _unpack_lengths(texts)
        at = _LENGTHS.size + request_size
        if request_size:
            key_hash = hash(texts[_LENGTHS.size : at].decode())
            self._by_request.replace(key_hash, self._by_request.position(key_hash, slot), NO_SLOT)
        if self._states[slot] & _QUEUED:
            content_hash = texts[at : at + hash_size].decode()
            self._leave_queue(slot, content_hash, self._names[self._backend[slot]])
        self._texts[slot] = b""
        self._states[slot] = 0
        self._inflight_until[slot] = _ENDED
        self._count -= 1
        if slot == self._oldest % self._capacity:
            self._oldest += 1

    def _grow(self) -> None:
        self._texts.extend([b""] * SLOTS_AT_ONCE)
        self._states.extend(bytes(SLOTS_AT_ONCE))
        for column in (
            self._decided_at,
            self._inflight_until,
            self._size_bytes,
            self._backend,
            self._inflight_before,
            self._next,
            self._last,
        ):
            column.frombytes(bytes(SLOTS_AT_ONCE * column.itemsize))

    def _enqueue(self, slot: int, content_hash: str, backend_id: str) -> None:
        key_hash, heads = hash((content_hash, backend_id)), self._heads
        number, tag = key_hash % heads.size, key_hash >> 24 & NO_SLOT
        bucket = heads.buckets[number]
        self._next[slot] = NO_SLOT
        head = None if bucket.find(pack_tag(tag)) < 0 else self.head(content_hash, backend_id)
        if head is None:
            self._last[slot] = slot
            heads.buckets[number] = bucket + pack_entry(tag, slot)
        else:
            self._next[self._last[head]] = slot
            self._last[head] = slot

    def _leave_queue(self, slot: int, content_hash: str, backend_id: str) -> None:
        self._states[slot] &= ~_QUEUED
        key_hash = hash((content_hash, backend_id))
        position = self._heads.position(key_hash, slot)
        if position < 0:
            return  # it is not the head, and is skipped when the head reaches it
        following = self._next[slot]
        while following != NO_SLOT and not self._states[following] & _QUEUED:
            following = self._next[following]
        if following != NO_SLOT:
            self._last[following] = self._last[slot]
        self._heads.replace(key_hash, position, following)


def _place(location: Location) -> tuple[int, bytes]:
    """The state bits of a location, and its bytes."""
    region = location.region.encode()
    if location.latitude is None or location.longitude is None:
        return _HAS_LOCATION, region
    return _HAS_LOCATION | _HAS_COORDINATES, _COORDINATES.pack(location.latitude, location.longitude) + region
