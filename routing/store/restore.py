"""Restores a router from a state file: merges the snapshot, then replays the journal."""

from dataclasses import dataclass

from routing.core.events import apply_event
from routing.core.router import Router
from routing.store.sqlite import DAMAGED, Position, SqliteFile, StoreError


@dataclass(frozen=True, slots=True)
class Restored:
    """The snapshot's position, the number of the last entry, the size of the journal after it, and
    the key that callers are hashed under."""

    position: Position
    last_number: int
    events: int
    journal_bytes: int
    caller_key: bytes = b""


def restore(file: SqliteFile, router: Router, *, latest: float) -> Restored:
    """Applies the file's snapshot and journal to the router.

    `latest` is the latest time that an event can have. StoreError if the file cannot be read, or
    its contents are invalid.
    """
    with file.reading():
        position = file.position()
        last_number, events, journal_bytes = position.through, 0, 0
        try:
            if position.generation:
                snapshot = file.snapshot(position.generation)
                router.merge(snapshot, now=min(snapshot["at"], latest))
            for entry in file.entries(position.through):
                for row in entry.rows:
                    apply_event(router, row, latest=latest)
                last_number = entry.number
                events += len(entry.rows)
                journal_bytes += entry.size_bytes
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise StoreError(f"{file.path}: {DAMAGED}") from error
        caller_key = file.caller_key()
    return Restored(position, last_number, events, journal_bytes, caller_key)
