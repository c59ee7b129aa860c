"""What happens, written down while it goes on.

Events gather in memory; a task commits all that have gathered as one entry, on a worker
thread, and whoever waits for one of them is answered when its entry is committed. While
one commit is under way the next one gathers, so the more callers wait, the fewer commits
each of them costs.

When the file cannot be written, nobody waits any more: the router goes on from memory,
callers are told so, and what could not be written is kept for as long as there is room
and tried again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from routing.core.events import EventRow, decision_event, discovery_event, outcome_event
from routing.core.model import Decision, Outcome, Recorded
from routing.core.router import Router
from routing.store.lock import Lock
from routing.store.restore import Restored
from routing.store.sqlite import SqliteFile, StoreError

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST_KEPT = 50_000
"""Events that wait for the file, some 30 MB: at 1,000 a second, a disk may be full for
the better part of a minute without a gap."""

STALL_S = 5.0
"""A commit that takes longer keeps its callers waiting for nothing: as BUSY_S, the longest
that another writer may take."""

RETRY_S = 1.0
"""Between two tries to write while the file cannot be written."""

COMPACT_BYTES = 8 << 20
"""Of journal: some 65,000 events, which a restart replays in a few seconds."""

SNAPSHOTS_PER_JOURNAL = 2
"""Where the snapshot is large, the journal may grow to so many times its size before the
next one: writing snapshots must not become the main work."""

NOT_KEPT = "; in memory only: the state cannot be written at the moment"


@dataclass(frozen=True, slots=True)
class Durability:
    """Whether outcomes are answered after their commit, and how long anything may wait for one."""

    ack: bool = True
    interval_s: float = 1.0


class Journal:
    """The store of one router in one file.

    State: the events that are not on disk yet (at most MOST_KEPT), who waits for them
    (the open calls), and the numbers that `restore` found, as they went on since.
    """

    def __init__(
        self,
        file: SqliteFile,
        lock: Lock,
        router: Router,
        restored: Restored,
        durability: Durability,
        *,
        compact: Callable[[], Coroutine[object, object, int]],
        note_health: Callable[[bool], None],
    ) -> None:
        self._file = file
        self._lock = lock
        self._router = router
        self._durability = durability
        self._compact = compact
        self._note_health = note_health
        self._rows: list[EventRow] = []
        self._waiting: list[asyncio.Future[bool]] = []
        self._known = len(router.backends)
        self._number = restored.last_number + 1
        self._journal_bytes = restored.journal_bytes
        self._compact_at = compaction_due(restored.position.snapshot_bytes)
        self._failing = False
        # Events that found no room; as long as there are some, the file has a gap.
        self._lost = 0
        self._closing = False
        self._gathered = asyncio.Event()
        self._urgent = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._compaction: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "failing" if self._failing else "working"
        return f"<Journal {self._file.path} {state} entry={self._number} waiting={len(self._rows)}>"

    def start(self) -> None:
        """Begins to write. Needs a running loop, which `close` must be called on."""
        self._writer = asyncio.create_task(self._write(), name="journal")

    def note_decision(self, decision: Decision) -> None:
        """Notes a decision; it is written with the next outcome, or after the interval."""
        self._emit(decision_event(decision))

    async def note_outcome(self, outcome: Outcome, recorded: Recorded, *, now: float) -> Recorded:
        """Notes an outcome, and answers, when it is on disk, what to answer."""
        if not recorded.recorded:
            return recorded
        kept = self._emit(outcome_event(outcome, now=self._router.advance(now)))
        if kept and self._durability.ack and not self._failing:
            written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._waiting.append(written)
            self._urgent.set()
            kept = await written
        if kept and not self._failing:
            return recorded
        return replace(recorded, message=recorded.message + NOT_KEPT)

    async def close(self) -> None:
        """Writes what is left, and lets go of the file."""
        self._closing = True
        self._gathered.set()
        self._urgent.set()
        if self._writer is not None:
            await self._writer
        if self._compaction is not None:
            self._compaction.cancel()
            await asyncio.wait([self._compaction])
        try:
            if self._failing or self._lost:
                # Nobody is served any more, so it may take its time to tell all it knows.
                snapshot = self._router.snapshot(now=float("-inf"))
                await _in_thread(self._file.write_anew, snapshot, self._number)
            await _in_thread(self._file.close)
        except StoreError as error:
            log.error("state is lost in part reason=%s", error.message)
        self._lock.release()

    def _emit(self, row: EventRow) -> bool:
        """Whether there was room."""
        if len(self._rows) >= MOST_KEPT:
            self._lost += 1
            return False
        self._rows.append(row)
        self._gathered.set()
        return True

    async def _write(self) -> None:
        """The task that writes, until `close` and then what is left."""
        while not self._closing or (self._rows and not self._failing):
            await self._gathered.wait()
            if not self._urgent.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if self._failing else self._durability.interval_s):
                        await self._urgent.wait()
            self._gathered.clear()
            self._urgent.clear()
            try:
                await self._commit()
            except StoreError as error:
                self._fail(error.message)
            # Those who report wait for this task's commits: were it to end, they would wait for ever.
            # So whatever it is, they are told that it failed, and the next round tries again.
            except Exception:
                log.exception("journal failed")
                self._fail("a fault of the server's own")

    async def _commit(self) -> None:
        """One entry with everything that has gathered."""
        rows = self._take()
        if not rows:
            return
        waiting, self._waiting = self._waiting, []
        why = f"{self._file.path}: a commit takes longer than {STALL_S:g} seconds"
        stalled = asyncio.get_running_loop().call_later(STALL_S, self._fail, why, waiting)
        try:
            if self._failing:
                await _in_thread(self._file.reopen)
            size_bytes = await _in_thread(self._file.append, self._number, rows)
        # Whatever it is, being cancelled too: those who wait must be told that nothing was kept.
        except BaseException:
            _answer(waiting, False)
            raise
        finally:
            stalled.cancel()
        del self._rows[: len(rows)]
        self._number += 1
        self._journal_bytes += size_bytes
        _answer(waiting, True)
        self._recover()
        if self._journal_bytes >= self._compact_at and self._compaction is None and not self._closing:
            self._compaction = asyncio.create_task(self._compacted(), name="compaction")

    def _take(self) -> tuple[EventRow, ...]:
        """What has gathered, after the names that became known meanwhile."""
        backends = self._router.backends
        if len(backends) > self._known:
            self._rows.insert(0, discovery_event(one.id for one in backends[self._known :]))
            self._known = len(backends)
        return tuple(self._rows)

    def _fail(self, reason: str, waiting: list[asyncio.Future[bool]] | None = None) -> None:
        """Nobody waits any more. Said once, until it works again."""
        if not self._failing:
            self._failing = True
            log.error("state cannot be written; going on from memory reason=%s", reason)
            self._note_health(False)
        _answer([*(waiting or ()), *self._waiting], False)
        self._waiting.clear()
        self._gathered.set()

    def _recover(self) -> None:
        if self._failing:
            self._failing = False
            log.warning("state is written again lost_events=%d", self._lost)
            self._note_health(True)

    async def _compacted(self) -> None:
        """The task of one compaction. One that fails costs nothing but room."""
        before = self._journal_bytes
        try:
            snapshot_bytes = await self._compact()
        except StoreError as error:
            log.warning("compaction failed reason=%s", error.message)
            self._compact_at = 2 * before
        else:
            log.info("state compacted journal_bytes=%d snapshot_bytes=%d", before, snapshot_bytes)
            self._journal_bytes -= before
            self._compact_at = compaction_due(snapshot_bytes)
        finally:
            self._compaction = None


def compaction_due(snapshot_bytes: int) -> int:
    """How large the journal may become beside such a snapshot."""
    return max(COMPACT_BYTES, SNAPSHOTS_PER_JOURNAL * snapshot_bytes)


def _answer(waiting: Iterable[asyncio.Future[bool]], kept: bool) -> None:
    for one in waiting:
        if not one.done():  # a caller that has left is
            one.set_result(kept)


async def _in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """On one of the threads for blocking work, which gets values that do not change."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(work, *arguments))
