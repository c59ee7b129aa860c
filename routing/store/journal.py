"""The write-ahead journal: commits events to the state file in groups.

Events are buffered in memory. A task commits all buffered events as one entry, on a worker thread,
and then releases the callers that wait for them. New events are buffered while a commit runs, so
the more callers wait, the fewer commits each of them costs (group commit).

While the file cannot be written, no caller waits: the router continues in memory and the responses
say so. Unwritten events stay buffered, up to a limit, and the write is retried.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from routing.clock import SystemClock
from routing.core.events import EventRow, decision_event, discovery_event, outcome_event
from routing.core.model import Decision, Outcome, Recorded
from routing.core.router import Router
from routing.store.lock import Lock
from routing.store.restore import Restored
from routing.store.sqlite import SqliteFile, StoreError

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_PENDING_EVENTS = 50_000
"""Events that are not on disk yet, some 30 MB: at 1,000 a second, a disk may be full for the
better part of a minute without a gap in the journal."""

STALL_S = 5.0
"""A commit that takes longer counts as failed, and its callers stop waiting. As long as BUSY_S,
the longest that another writer may hold the lock."""

RETRY_S = 1.0
"""Interval between two attempts while the file cannot be written."""

COMPACT_BYTES = 8 << 20
"""Size of the journal that starts a compaction: some 65,000 events, which a restart replays in a
few seconds."""

SNAPSHOTS_PER_JOURNAL = 2
"""Beside a large snapshot, the journal may grow to this multiple of its size before the next
compaction, so that writing snapshots stays a small part of the work."""

CLOCK_STEP_S = 1.0
"""Change of the difference between the wall clock and the router's time that is stored. Less
does not matter to anything that is learned, and NTP makes smaller ones all the time."""

NOT_KEPT = "; in memory only: the state cannot be written at the moment"


@dataclass(frozen=True, slots=True)
class Durability:
    """Whether an outcome is acknowledged only after its commit, and the longest time between commits."""

    ack: bool = True
    interval_s: float = 1.0


class Journal:
    """The store of one router in one file.

    State: the events that are not on disk yet (at most MAX_PENDING_EVENTS), a future for each
    open call that waits for them, and the entry number and sizes, which start from `restore`.
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
        clock: SystemClock | None = None,
    ) -> None:
        self.caller_key = restored.caller_key
        self._file = file
        self._lock = lock
        self._router = router
        self._durability = durability
        self._compact = compact
        self._note_health = note_health
        self._clock = clock
        self._stored_ahead_s = 0.0 if clock is None else clock.ahead_s
        self._pending: list[EventRow] = []
        self._acknowledgements: list[asyncio.Future[bool]] = []
        self._stored_backends = len(router.backends)
        self._number = restored.last_number + 1
        self._journal_bytes = restored.journal_bytes
        self._compact_at = compaction_due(restored.position.snapshot_bytes)
        self._failing = False
        # Events dropped because MAX_PENDING_EVENTS were pending; above 0, the file has a gap.
        self._lost = 0
        self._closing = False
        self._has_events = asyncio.Event()
        self._commit_now = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._compaction: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "failing" if self._failing else "working"
        return f"<Journal {self._file.path} {state} entry={self._number} pending={len(self._pending)}>"

    def start(self) -> None:
        """Starts the writing task. `close` must be called on the same running loop."""
        self._writer = asyncio.create_task(self._write(), name="journal")

    def note_decision(self, decision: Decision) -> None:
        """Buffers a decision; it is written with the next outcome, or after the interval."""
        self._buffer(decision_event(decision))

    async def note_outcome(self, outcome: Outcome, recorded: Recorded, *, now: float) -> Recorded:
        """Buffers an outcome. Returns the answer to its caller; with `ack`, once it is on disk."""
        if not recorded.recorded:
            return recorded
        buffered = self._buffer(outcome_event(outcome, now=self._router.advance(now)))
        if buffered and self._durability.ack and not self._failing:
            stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._acknowledgements.append(stored)
            self._commit_now.set()
            buffered = await stored
        if buffered and not self._failing:
            return recorded
        return replace(recorded, message=recorded.message + NOT_KEPT)

    async def close(self) -> None:
        """Writes the pending events and closes the file."""
        self._closing = True
        self._has_events.set()
        self._commit_now.set()
        if self._writer is not None:
            await self._writer
        if self._compaction is not None:
            self._compaction.cancel()
            await asyncio.wait([self._compaction])
        try:
            await self._note_replaced_file()
            if self._failing or self._lost:
                # No calls are open any more, so this can take the time that a whole snapshot needs.
                snapshot = self._router.snapshot(now=float("-inf"))
                await _in_thread(self._file.write_anew, snapshot, self._number)
                self._stored_ahead_s = 0.0  # of a file that was deleted meanwhile
            await self._store_clock()
            await _in_thread(self._file.close)
        except StoreError as error:
            log.error("state is lost in part reason=%s", error.message)
        self._lock.release()

    async def _note_replaced_file(self) -> None:
        """A file that was removed or replaced since the last commit counts as a failure: what was
        acknowledged before is in the router's memory only."""
        try:
            await _in_thread(self._file.check_same_file)
        except StoreError as error:
            self._fail(error.message)

    def _buffer(self, row: EventRow) -> bool:
        """Buffers an event; False if there is no room for it."""
        if len(self._pending) >= MAX_PENDING_EVENTS:
            self._lost += 1
            return False
        self._pending.append(row)
        self._has_events.set()
        return True

    async def _write(self) -> None:
        """The writing task: runs until `close`, then writes the pending events."""
        while not self._closing or (self._pending and not self._failing):
            await self._has_events.wait()
            if not self._commit_now.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if self._failing else self._durability.interval_s):
                        await self._commit_now.wait()
            self._has_events.clear()
            self._commit_now.clear()
            try:
                await self._commit()
            except StoreError as error:
                self._fail(error.message)
            except Exception:
                # Callers wait for this task's commits; if an unexpected error ended it, they would wait
                # for ever. So any error fails this commit, and the next round retries.
                log.exception("journal failed")
                self._fail("an internal error")

    async def _commit(self) -> None:
        """Writes all pending events as one entry."""
        rows = self._next_entry()
        if not rows:
            return
        waiting, self._acknowledgements = self._acknowledgements, []
        why = f"{self._file.path}: a commit takes longer than {STALL_S:g} seconds"
        stalled = asyncio.get_running_loop().call_later(STALL_S, self._fail, why, waiting)
        try:
            if self._failing:
                await _in_thread(self._file.reopen)
                await _in_thread(self._lock.hold_wal)
            await self._store_clock()
            size_bytes = await _in_thread(self._file.append, self._number, rows)
        # Any error, cancellation included: the waiting callers must learn that nothing was stored.
        except BaseException:
            _release(waiting, False)
            raise
        finally:
            stalled.cancel()
        del self._pending[: len(rows)]
        self._number += 1
        self._journal_bytes += size_bytes
        _release(waiting, True)
        self._recover()
        if self._journal_bytes >= self._compact_at and self._compaction is None and not self._closing:
            self._compaction = asyncio.create_task(self._run_compaction(), name="compaction")

    async def _store_clock(self) -> None:
        """Stores how far the wall clock is ahead of the events' times, where that has changed."""
        ahead_s = 0.0 if self._clock is None else self._clock.ahead_s
        if abs(ahead_s - self._stored_ahead_s) >= CLOCK_STEP_S:
            await _in_thread(self._file.write_clock_ahead_s, ahead_s)
            self._stored_ahead_s = ahead_s

    def _next_entry(self) -> tuple[EventRow, ...]:
        """The pending events, preceded by the backends discovered since the last entry."""
        backends = self._router.backends
        if len(backends) > self._stored_backends:
            self._pending.insert(0, discovery_event(one.id for one in backends[self._stored_backends :]))
            self._stored_backends = len(backends)
        return tuple(self._pending)

    def _fail(self, reason: str, waiting: list[asyncio.Future[bool]] | None = None) -> None:
        """Releases all waiting callers. Logged once, until a write succeeds again."""
        if not self._failing:
            self._failing = True
            log.error("state cannot be written; continuing in memory reason=%s", reason)
            self._note_health(False)
        _release([*(waiting or ()), *self._acknowledgements], False)
        self._acknowledgements.clear()
        self._has_events.set()

    def _recover(self) -> None:
        if self._failing:
            self._failing = False
            log.warning("state is written again lost_events=%d", self._lost)
            self._note_health(True)

    async def _run_compaction(self) -> None:
        """Runs one compaction. A failure costs only disk space; the next attempt waits for twice the size."""
        compacted_bytes = self._journal_bytes
        try:
            snapshot_bytes = await self._compact()
        except StoreError as error:
            log.warning("compaction failed reason=%s", error.message)
            self._compact_at = 2 * compacted_bytes
        else:
            log.info("state compacted journal_bytes=%d snapshot_bytes=%d", compacted_bytes, snapshot_bytes)
            self._journal_bytes -= compacted_bytes
            self._compact_at = compaction_due(snapshot_bytes)
        finally:
            self._compaction = None


def compaction_due(snapshot_bytes: int) -> int:
    """The size of the journal that starts the next compaction, beside a snapshot of this size."""
    return max(COMPACT_BYTES, SNAPSHOTS_PER_JOURNAL * snapshot_bytes)


def _release(waiting: Iterable[asyncio.Future[bool]], stored: bool) -> None:
    for each in waiting:
        if not each.done():  # done already where the caller has disconnected
            each.set_result(stored)


async def _in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Runs `work` on a worker thread; its arguments must not change meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(work, *arguments))
