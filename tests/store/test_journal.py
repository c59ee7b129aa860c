"""The journal: many outcomes in one commit, an answer when it is done, and life without a file."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from routing.config.options import ServerSettings, Settings
from routing.core.events import apply_event
from routing.core.model import Backend, Outcome, Query, Recorded
from routing.core.router import Router
from routing.errors import ConfigError
from routing.store import NullStore, journal, open_store
from routing.store.journal import NOT_KEPT, Durability, Journal, compaction_due
from routing.store.lock import Lock
from routing.store.restore import Restored
from routing.store.sqlite import Position, StoreError
from support.grpc_calls import until

NOON = 1_700_000_000.0
SOON = Durability(ack=True, interval_s=0.01)
NEVER = Durability(ack=True, interval_s=3600.0)
"""So that only what is waited for is written."""


class File:
    """A state file that writes when it is told, or fails."""

    path = Path("state.db")

    def __init__(self) -> None:
        self.entries: dict[int, tuple[Any, ...]] = {}
        self.anew: dict[str, Any] | None = None
        self.fault: Exception | None = None
        self.may_write = threading.Event()
        self.may_write.set()
        self.opened = 1

    def append(self, number: int, rows: tuple[Any, ...]) -> int:
        assert self.may_write.wait(10)
        if self.fault is not None:
            raise self.fault
        self.entries[number] = rows
        return 100 * len(rows)

    def reopen(self) -> None:
        self.opened += 1

    def check_same_file(self) -> None:
        pass

    def write_anew(self, snapshot: dict[str, Any], through: int) -> None:
        if self.fault is not None:
            raise self.fault
        self.anew = snapshot
        self.entries = {number: rows for number, rows in self.entries.items() if number > through}

    def close(self) -> None:
        self.opened = 0

    @property
    def told(self) -> tuple[int, int]:
        """Decisions and outcomes that a restart would find."""
        router = Router([Backend("a")], random=Random(0))
        if self.anew is not None:
            router.merge(self.anew, now=NOON)
        for number in sorted(self.entries):
            for row in self.entries[number]:
                apply_event(router, row, latest=NOON)
        return router.decisions_total, router.outcomes_total


class NoLock(Lock):
    """A lock beside a file that is not on a disk."""

    def hold_wal(self) -> None:
        pass


class Desk:
    """A router, its journal, and what was said about its health."""

    def __init__(self, durability: Durability, compact: Callable[[], Any] | None = None) -> None:
        self.file = File()
        self.router = Router([Backend("a")], random=Random(0))
        self.health: list[bool] = []
        self.journal = Journal(
            self.file,  # type: ignore[arg-type]  # it does all that is asked of one
            NoLock(Path("never-taken")),
            self.router,
            Restored(Position(0, 0, 0), 0, 0, 0),
            durability,
            compact=compact or self.never,
            note_health=self.health.append,
        )

    async def never(self) -> int:
        raise AssertionError("nothing is to be compacted here")

    def decide(self) -> None:
        self.journal.note_decision(self.router.select(Query(), now=NOON))

    async def report(self, **fields: Any) -> Recorded:
        outcome = Outcome("a", True, **fields)
        return await self.journal.note_outcome(outcome, self.router.record(outcome, now=NOON), now=NOON)

    def reporting(self, count: int = 1) -> list[asyncio.Task[Recorded]]:
        return [asyncio.create_task(self.report()) for _ in range(count)]


@asynccontextmanager
async def desk(durability: Durability = NEVER, **how: Any) -> AsyncIterator[Desk]:
    opened = Desk(durability, **how)
    opened.journal.start()
    try:
        yield opened
    finally:
        opened.file.may_write.set()
        await opened.journal.close()


async def test_an_outcome_is_answered_when_it_is_on_disk() -> None:
    async with desk() as one:
        one.file.may_write.clear()
        (report,) = one.reporting()
        await until(lambda: one.journal._acknowledgements == [] and one.router.outcomes_total == 1)
        assert not report.done()
        one.file.may_write.set()
        assert (await report).message == "recorded"
        assert one.file.told == (0, 1)


async def test_all_that_wait_share_a_commit() -> None:
    async with desk() as one:
        await asyncio.gather(*one.reporting(64))
        assert len(one.file.entries) == 1


async def test_what_comes_during_a_commit_shares_the_next_one() -> None:
    async with desk() as one:
        one.file.may_write.clear()
        first = one.reporting()
        await until(lambda: one.router.outcomes_total == 1)
        await asyncio.sleep(0)
        rest = one.reporting(63)
        await until(lambda: one.router.outcomes_total == 64)
        one.file.may_write.set()
        await asyncio.gather(*first, *rest)
        assert sorted(len(rows) for rows in one.file.entries.values()) == [1, 63]


async def test_a_decision_is_not_waited_for_and_goes_with_the_next_outcome() -> None:
    async with desk() as one:
        one.decide()
        one.decide()
        await one.report()
        assert one.file.told == (2, 1)


async def test_a_decision_alone_is_written_after_the_interval() -> None:
    async with desk(SOON) as one:
        one.decide()
        await until(lambda: one.file.told == (1, 0))


async def test_with_an_interval_no_outcome_waits() -> None:
    async with desk(Durability(ack=False, interval_s=0.01)) as one:
        one.file.may_write.clear()
        assert (await one.report()).message == "recorded"
        one.file.may_write.set()
        await until(lambda: one.file.told == (0, 1))


async def test_an_outcome_that_was_not_recorded_is_not_written() -> None:
    async with desk() as one:
        late = await one.report(happened_at=NOON - 10**8)
        assert not late.recorded
        assert one.file.entries == {}


async def test_a_caller_that_has_left_holds_nobody_up() -> None:
    async with desk() as one:
        one.file.may_write.clear()
        gone, stays = one.reporting(2)
        await until(lambda: one.router.outcomes_total == 2)
        gone.cancel()
        one.file.may_write.set()
        assert (await stays).message == "recorded"
        assert one.file.told == (0, 2)


async def test_names_that_became_known_are_written_before_what_they_did() -> None:
    async with desk() as one:
        one.journal.note_decision(one.router.select(Query(available_backends=("new", "other")), now=NOON))
        await one.report()
        first, second, _ = one.file.entries[1]
        assert first == ("discovered", ("new", "other"))
        assert second[0] == "decided"
        await one.report()
        assert [row[0] for row in one.file.entries[2]] == ["reported"]


async def test_closing_writes_what_is_left() -> None:
    async with desk() as one:
        one.decide()
    assert one.file.told == (1, 0)
    assert one.file.opened == 0


async def test_closing_during_a_commit_writes_what_came_meanwhile() -> None:
    async with desk() as one:
        one.file.may_write.clear()
        (report,) = one.reporting()
        await until(lambda: one.router.outcomes_total == 1)
        await asyncio.sleep(0)
        one.decide()
        closing = asyncio.create_task(one.journal.close())
        await asyncio.sleep(0)
        one.file.may_write.set()
        await closing
        assert (await report).recorded
        assert one.file.told == (1, 1)


# Without a file


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again at once."""
    monkeypatch.setattr(journal, "RETRY_S", 0.001)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


async def test_a_failing_file_fails_no_call_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with desk() as one:
        one.file.fault = StoreError("state.db: the disk is full")
        for answer in await asyncio.gather(*one.reporting(10)):
            assert answer == Recorded(True, "recorded" + NOT_KEPT)
        one.decide()
        assert (await one.report()).message == "recorded" + NOT_KEPT
        assert one.router.outcomes_total == 11
        assert one.health == [False]
        assert said(caplog) == [
            "state cannot be written; continuing in memory reason=state.db: the disk is full"
        ]
        one.file.fault = None


@pytest.mark.usefixtures("soon")
async def test_what_was_not_written_is_written_when_that_works_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with desk() as one:
        one.file.fault = StoreError("state.db: the disk is full")
        await asyncio.gather(*one.reporting(10))
        one.decide()
        one.file.fault = None
        await until(lambda: one.health == [False, True])
        assert (await one.report()).message == "recorded"
        assert one.file.told == (1, 11)
        assert one.file.opened > 1
        assert said(caplog)[1:] == ["state is written again lost_events=0"]


@pytest.mark.usefixtures("soon")
async def test_past_its_room_a_journal_has_a_gap_that_closing_mends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal, "MAX_PENDING_EVENTS", 5)
    async with desk() as one:
        one.file.fault = StoreError("state.db: the disk is full")
        await asyncio.gather(*one.reporting(8))
        assert len(one.journal._pending) == 5
        one.file.fault = None
        await until(lambda: one.health == [False, True])
        assert one.file.told == (0, 5)
        assert said(caplog)[1:] == ["state is written again lost_events=3"]
        assert (await one.report()).message == "recorded"
    assert one.file.told == (0, 9)


async def test_closing_a_failing_journal_writes_all_or_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async with desk() as one:
        one.file.fault = StoreError("state.db: the disk is full")
        await one.report()
    assert said(caplog)[1:] == ["state is lost in part reason=state.db: the disk is full"]
    async with desk() as two:
        two.file.fault = StoreError("state.db: the disk is full")
        await two.report()
        two.file.fault = None
    assert two.file.told == (0, 1)


async def test_a_disk_that_does_not_answer_holds_nobody_up_for_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal, "STALL_S", 0.01)
    async with desk() as one:
        one.file.may_write.clear()
        assert (await one.report()).message == "recorded" + NOT_KEPT
        assert "a commit takes longer than 0.01 seconds" in said(caplog)[0]
        one.file.may_write.set()
        await until(lambda: one.health == [False, True])
        assert one.file.told == (0, 1)


@pytest.mark.usefixtures("soon")
async def test_a_fault_of_our_own_ends_no_journal(caplog: pytest.LogCaptureFixture) -> None:
    async with desk() as one:
        one.file.fault = ZeroDivisionError("a slip")
        assert (await one.report()).message == "recorded" + NOT_KEPT
        one.file.fault = None
        await until(lambda: one.health == [False, True])
        assert one.file.told == (0, 1)
    assert "journal failed" in said(caplog)[0]


# Compaction


async def test_a_journal_that_has_grown_is_compacted_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "COMPACT_BYTES", 250)
    begun, end = 0, asyncio.Event()

    async def compact() -> int:
        nonlocal begun
        begun += 1
        await end.wait()
        return 200

    async with desk(compact=compact) as one:
        for _ in range(6):
            await one.report()
        assert begun == 1
        end.set()
        await until(lambda: one.journal._compaction is None)
        await one.report()
        assert begun == 1  # 300 of 700 bytes went; the limit is now two snapshots, 400
        await one.report()
        await until(lambda: begun == 2)


async def test_a_compaction_that_fails_is_said_and_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal, "COMPACT_BYTES", 100)
    begun = 0

    async def compact() -> int:
        nonlocal begun
        begun += 1
        raise StoreError("no process")

    async with desk(compact=compact) as one:
        await one.report()
        await until(lambda: begun == 1 and one.journal._compaction is None)
        assert said(caplog) == ["compaction failed reason=no process"]
        await one.report()
        await until(lambda: begun == 2 and one.journal._compaction is None)
        assert one.health == []


async def test_closing_ends_a_compaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "COMPACT_BYTES", 100)
    ended = asyncio.Event()

    async def compact() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 0

    async with desk(compact=compact) as one:
        await one.report()
        await asyncio.sleep(0)
    assert ended.is_set()


def test_a_large_snapshot_lets_the_journal_grow() -> None:
    assert compaction_due(0) == compaction_due(1 << 20) == 8 << 20
    assert compaction_due(100 << 20) == 200 << 20


def test_the_page_tells_the_limits() -> None:
    page = " ".join((Path(__file__).parents[2] / "docs" / "persistence.md").read_text().split())
    assert f"up to {journal.MAX_PENDING_EVENTS:,} events are kept" in page
    assert f"exceeds {journal.COMPACT_BYTES >> 20} MiB" in page
    assert (journal.SNAPSHOTS_PER_JOURNAL, journal.STALL_S, journal.RETRY_S) == (2, 5.0, 1.0)
    assert "twice the packed snapshot" in page
    assert "takes longer than five seconds" in page
    assert "tried every second" in page


def test_a_journal_says_how_it_does() -> None:
    assert repr(Desk(NEVER).journal) == "<Journal state.db working entry=1 pending=0>"


# What the settings name


def opened(state: str | None, router: Router | None = None) -> Any:
    settings = Settings(ServerSettings(state=state), backends=(Backend("a"),))
    router = router or Router(settings.backends, random=Random(0))
    return open_store(settings, router, latest=lambda: NOON, note_health=lambda _: None)


async def test_without_a_state_nothing_is_kept() -> None:
    store = opened(None)
    assert isinstance(store, NullStore)
    store.start()
    store.note_decision(Router([Backend("a")], random=Random(0)).select(Query(), now=NOON))
    assert await store.note_outcome(Outcome("a", True), Recorded(True, "recorded"), now=NOON) == Recorded(
        True, "recorded"
    )
    await store.close()


@pytest.mark.parametrize("url", ["state.db", "redis://host", "sqlite://", "sqlite:///", "sqlite://state.db"])
def test_a_state_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"server: state: expected sqlite:///PATH, got "):
        opened(url)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no folder .*four slashes"):
        opened(f"sqlite:///{tmp_path}/missing/state.db")


async def test_a_state_that_is_in_use_is_refused_until_it_is_free(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    first = opened(url)
    with pytest.raises(ConfigError, match="another server uses this state"):
        opened(url)
    await first.close()
    await opened(url).close()


async def test_a_state_that_is_refused_is_not_kept_locked(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(ConfigError, match="is not a state file of this server"):
            opened(f"sqlite:///{tmp_path}/state.db")


async def test_what_one_journal_wrote_the_next_one_tells(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    for times in range(1, 4):
        router = Router([Backend("a")], random=Random(0))
        store = opened(url, router)
        assert router.outcomes_total == times - 1
        store.start()
        outcome = Outcome("a", True)
        await store.note_outcome(outcome, router.record(outcome, now=NOON), now=NOON)
        await store.close()
