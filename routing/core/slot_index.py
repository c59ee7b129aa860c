"""An index of slots by the hash of a key, in a fraction of what a dict takes."""

from collections.abc import Sequence
from struct import Struct

DECISIONS_PER_BUCKET = 48
"""In a full table. A bucket costs 41 bytes beside 8 for each entry, so fewer decisions would cost
more memory; more would cost time, since a bucket is copied when an entry is added."""

NO_SLOT = 0xFFFF_FFFF

_ENTRY = Struct("<II")
pack_entry = _ENTRY.pack
pack_tag = Struct("<I").pack
unpack_slot = Struct("<I").unpack_from


class SlotIndex:
    """{hash of a key: slots}, for about 10 bytes an entry.

    A bucket is the `bytes` of its entries: four bytes of the hash, four of the slot. Different keys
    may have the same four bytes, so the caller compares what it finds in a slot. `PendingTable`
    reads the buckets itself where every decision passes.
    """

    def __init__(self, capacity: int) -> None:
        self.size = max(1, capacity // DECISIONS_PER_BUCKET)
        self.buckets = [b""] * self.size

    def __len__(self) -> int:
        return sum(map(len, self.buckets)) // _ENTRY.size

    def slots(self, key_hash: int) -> Sequence[int]:
        """The slots that were added for this hash, and possibly others."""
        bucket = self.buckets[key_hash % self.size]
        if not bucket:
            return ()
        tag = pack_tag(key_hash >> 24 & NO_SLOT)
        at = bucket.find(tag)
        if at < 0:
            return ()
        found = []
        while at >= 0:
            if not at & 7:
                found.append(unpack_slot(bucket, at + 4)[0])
            at = bucket.find(tag, at + 1)
        return found

    def add(self, key_hash: int, slot: int) -> None:
        """Adds a slot."""
        self.buckets[key_hash % self.size] += pack_entry(key_hash >> 24 & NO_SLOT, slot)

    def position(self, key_hash: int, slot: int) -> int:
        """Where the slot stands in the bucket of this hash; negative if it was not added."""
        bucket = self.buckets[key_hash % self.size]
        entry = pack_entry(key_hash >> 24 & NO_SLOT, slot)
        at = bucket.find(entry)
        while at > 0 and at & 7:
            at = bucket.find(entry, at + 1)
        return at

    def replace(self, key_hash: int, position: int, slot: int) -> None:
        """Puts another slot in the place of the one there, or nothing where `slot` is NO_SLOT."""
        number = key_hash % self.size
        bucket = self.buckets[number]
        new = b"" if slot == NO_SLOT else pack_entry(key_hash >> 24 & NO_SLOT, slot)
        self.buckets[number] = bucket[:position] + new + bucket[position + _ENTRY.size :]
