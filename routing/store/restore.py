"""A state file told to a router: the snapshot merged, and what happened after it replayed."""

from dataclasses import dataclass

from routing.core.events import apply_event
from routing.core.router import Router
from routing.store.sqlite import DAMAGED, Position, SqliteFile, StoreError


@dataclass(frozen=True, slots=True)
class Restored:
    """What was read: the snapshot's position, the last entry, and how much came after the snapshot."""

    position: Position
    last_number: int
    events: int
    journal_bytes: int


def restore(file: SqliteFile, router: Router, *, latest: float) -> Restored:
    """Tells the router all that the file holds, and answers where that ends.

    `latest` is the time that nothing can have happened after. StoreError where the file
    cannot be read, or says what nobody wrote.
    """
    with file.reading():
        position = file.position()
        last, events, size_bytes = position.through, 0, 0
        try:
            if position.generation:
                snapshot = file.snapshot(position.generation)
                router.merge(snapshot, now=min(snapshot["at"], latest))
            for entry in file.entries(position.through):
                for row in entry.rows:
                    apply_event(router, row, latest=latest)
                last, events, size_bytes = (
                    entry.number,
                    events + len(entry.rows),
                    size_bytes + entry.size_bytes,
                )
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise StoreError(f"{file.path}: {DAMAGED}") from error
    return Restored(position, last, events, size_bytes)
