"""Stores of the server's state, and STORES, the table that opens one by URL scheme."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from routing.clock import SystemClock
from routing.config.options import Settings
from routing.core.model import Decision, Outcome, Recorded
from routing.core.router import Router
from routing.errors import ConfigError, shown
from routing.store.compaction import compact
from routing.store.journal import Durability, Journal
from routing.store.lock import Lock
from routing.store.restore import restore
from routing.store.sqlite import SqliteFile, StoreError

log = logging.getLogger(__name__)


class Store(Protocol):
    """Receives every decision and outcome after the router has applied it.

    `caller_key` is the key that callers are hashed under: as long-lived as the state, so that
    callers are recognised after a restart, and no part of a snapshot.
    """

    caller_key: bytes

    def start(self) -> None:
        """Starts writing."""

    def note_decision(self, decision: Decision) -> None:
        """Stores a decision, some time later."""

    async def note_outcome(self, outcome: Outcome, recorded: Recorded, *, now: float) -> Recorded:
        """Stores an outcome. Returns the answer to its caller once it may be sent."""

    async def close(self) -> None:
        """Writes the pending events."""


class NullStore:
    """Stores nothing: the router's state ends with the process."""

    def __init__(self) -> None:
        self.caller_key = os.urandom(16)

    def start(self) -> None:
        """Does nothing."""

    def note_decision(self, decision: Decision) -> None:
        """Does nothing."""

    async def note_outcome(self, outcome: Outcome, recorded: Recorded, *, now: float) -> Recorded:  # noqa: ARG002
        return recorded

    async def close(self) -> None:
        """Does nothing."""


def open_store(
    settings: Settings,
    router: Router,
    *,
    latest: Callable[[], float],
    note_health: Callable[[bool], None],
    clock: SystemClock | None = None,
) -> Store:
    """The store that the settings name. Restores its state into the router, which must be new.

    `latest` returns the latest time that an event can have; `note_health` is called when the
    store fails and when it recovers. A `clock` continues the time of the state, which keeps how
    far the wall clock is ahead of it. ConfigError if the store cannot be used.
    """
    url = settings.server.state
    if not url:
        return NullStore()
    scheme, _, place = url.partition("://")
    if scheme not in STORES or not place.startswith("/") or not place[1:]:
        forms = " or ".join(f"{name}:///PATH" for name in STORES)
        raise ConfigError("server", "state", f"expected {forms}, got {shown(url)}")
    try:
        return STORES[scheme](Path(place[1:]).absolute(), settings, router, latest, note_health, clock)
    except StoreError as error:
        raise ConfigError("server", "state", error.message) from None


def _open_sqlite(
    path: Path,
    settings: Settings,
    router: Router,
    latest: Callable[[], float],
    note_health: Callable[[bool], None],
    clock: SystemClock | None,
) -> Journal:
    started_at = time.monotonic()
    if not path.parent.is_dir():
        raise StoreError(f"{path}: there is no folder {path.parent} (an absolute path takes four slashes)")
    file, lock = SqliteFile(path), Lock(path)
    lock.take()
    try:
        file.open()
        lock.hold_wal()
        if clock is not None:
            clock.resume(file.clock_ahead_s())
        restored = restore(file, router, latest=latest())
    except StoreError:
        file.close()
        lock.release()
        raise
    log.info(
        "state restored path=%s decisions=%d outcomes=%d replayed=%d seconds=%.3f",
        path,
        *(router.decisions_total, router.outcomes_total, restored.events),
        time.monotonic() - started_at,
    )
    durability = settings.server.durability == "ack", settings.server.durability_interval_seconds
    return Journal(
        file,
        lock,
        router,
        restored,
        Durability(*durability),
        compact=lambda: compact(path, settings, latest=latest()),
        note_health=note_health,
        clock=clock,
    )


STORES: Mapping[
    str,
    Callable[
        [Path, Settings, Router, Callable[[], float], Callable[[bool], None], SystemClock | None], Store
    ],
] = MappingProxyType({"sqlite": _open_sqlite})
"""{URL scheme: the function that opens such a store}."""
