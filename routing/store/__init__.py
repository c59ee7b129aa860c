"""What the server keeps between two runs, and where: a table of stores by URL scheme."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

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
    """Hears of every decision and outcome, after the router has."""

    def start(self) -> None:
        """Begins to write."""

    def note_decision(self, decision: Decision) -> None:
        """A decision was made."""

    async def note_outcome(self, outcome: Outcome, recorded: Recorded, *, now: float) -> Recorded:
        """An outcome was taken in as `recorded`; what to answer, once it may be answered."""

    async def close(self) -> None:
        """Writes what is left."""


class NullStore:
    """The store that keeps nothing: what the router knows ends with the process."""

    def start(self) -> None:
        """Nothing to begin."""

    def note_decision(self, decision: Decision) -> None:
        """Nothing to do."""

    async def note_outcome(self, outcome: Outcome, recorded: Recorded, *, now: float) -> Recorded:  # noqa: ARG002
        return recorded

    async def close(self) -> None:
        """Nothing to write."""


def open_store(
    settings: Settings,
    router: Router,
    *,
    latest: Callable[[], float],
    note_health: Callable[[bool], None],
) -> Store:
    """The store that the settings name; the router, which must be fresh, is told what it holds.

    `latest` is the time that nothing can have happened after; `note_health` hears when
    the store stops working, and when it works again. ConfigError where it cannot be used.
    """
    url = settings.server.state
    if not url:
        return NullStore()
    scheme, _, place = url.partition("://")
    if scheme not in STORES or not place.startswith("/") or not place[1:]:
        forms = " or ".join(f"{name}:///PATH" for name in STORES)
        raise ConfigError("server", "state", f"expected {forms}, got {shown(url)}")
    try:
        return STORES[scheme](Path(place[1:]).absolute(), settings, router, latest, note_health)
    except StoreError as error:
        raise ConfigError("server", "state", error.message) from None


def _open_sqlite(
    path: Path,
    settings: Settings,
    router: Router,
    latest: Callable[[], float],
    note_health: Callable[[bool], None],
) -> Journal:
    began = time.monotonic()
    if not path.parent.is_dir():
        raise StoreError(f"{path}: there is no folder {path.parent} (an absolute path takes four slashes)")
    file, lock = SqliteFile(path), Lock(path)
    lock.take()
    try:
        file.open()
        restored = restore(file, router, latest=latest())
    except StoreError:
        file.close()
        lock.release()
        raise
    said = "state restored path=%s decisions=%d outcomes=%d replayed=%d seconds=%.3f"
    facts = router.decisions_total, router.outcomes_total, restored.events
    log.info(said, path, *facts, time.monotonic() - began)
    server = settings.server
    return Journal(
        file,
        lock,
        router,
        restored,
        Durability(server.durability == "ack", server.durability_interval_seconds),
        compact=lambda: compact(path, settings, latest=latest()),
        note_health=note_health,
    )


STORES: Mapping[
    str, Callable[[Path, Settings, Router, Callable[[], float], Callable[[bool], None]], Store]
] = MappingProxyType({"sqlite": _open_sqlite})
"""{scheme of the URL: what opens such a store}."""
