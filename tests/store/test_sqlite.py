"""The state file: what is written is read again, and what cannot be used is refused in one line."""

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from types import MappingProxyType

import pytest

from routing.config.options import Settings, SuspensionSettings
from routing.core.events import decision_event, outcome_event
from routing.core.model import Backend, Outcome, Query, State
from routing.core.router import Router
from routing.store import Lock, SqliteFile, StoreError, sqlite
from routing.store.compaction import compact, fold
from routing.store.restore import Restored, restore

NOON = 1_700_000_000.0
FOREVER = float("inf")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteFile]:
    """A new state file."""
    opened = SqliteFile(tmp_path / "state.db")
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def settings() -> Settings:
    """Those of a server that would make the router of `fresh`."""
    affinity = MappingProxyType({"image/*": 0.9})
    return Settings(backends=(Backend("a", tags=frozenset({"hot"}), content_affinity=affinity), Backend("b")))


def fresh() -> Router:
    return Router([Backend("a"), Backend("b")], random=Random(0))


def happen(file: SqliteFile, router: Router, times: int, *, first: int = 1) -> None:
    """Decisions and outcomes, an entry for each pair."""
    for number in range(first, first + times):
        now = NOON + number
        decision = router.select(Query(content_hash=f"h{number}", request_id=f"r{number}"), now=now)
        outcome = Outcome(
            decision.chosen.backend_id, number % 3 > 0, duration_ms=number, request_id=f"r{number}"
        )
        router.record(outcome, now=now)
        file.append(number, (decision_event(decision), outcome_event(outcome, now=now)))


def known(router: Router) -> str:
    """All but what was learned, whose sums a merge may round in their last digit."""
    return json.dumps({**router.snapshot(now=NOON), "learning": router.outcomes_total})


def read(file: SqliteFile) -> tuple[Router, Restored]:
    router = fresh()
    return router, restore(file, router, latest=FOREVER)


def test_a_new_file_says_nothing(file: SqliteFile) -> None:
    router, restored = read(file)
    assert known(router) == known(fresh())
    assert restored == Restored(file.position(), 0, 0, 0, file.caller_key())


def test_what_was_appended_is_replayed(file: SqliteFile) -> None:
    router = fresh()
    happen(file, router, sqlite.ENTRIES_PER_STATEMENT + 10)
    again, restored = read(file)
    assert known(again) == known(router)
    assert (restored.last_number, restored.events) == (266, 532)


def test_a_snapshot_takes_the_place_of_the_journal(file: SqliteFile) -> None:
    router = fresh()
    happen(file, router, sqlite.ENTRIES_PER_STATEMENT + 10)
    fold(file, fresh(), latest=FOREVER)
    assert [entry.number for entry in file.entries(0)] == []
    happen(file, router, 5, first=267)
    again, restored = read(file)
    assert known(again) == known(router)
    assert (restored.last_number, restored.events) == (271, 10)
    fold(file, fresh(), latest=FOREVER)
    assert known(read(file)[0]) == known(router)


def test_a_snapshot_of_many_pieces_is_put_together(file: SqliteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PIECE_BYTES", 100)
    router = fresh()
    happen(file, router, 20)
    fold(file, fresh(), latest=FOREVER)
    assert file.position().snapshot_bytes > 500
    assert known(read(file)[0]) == known(router)


def test_of_two_compactions_at_a_time_the_second_gives_way(file: SqliteFile) -> None:
    router = fresh()
    happen(file, router, 4)
    before = file.position()
    fold(file, fresh(), latest=FOREVER)
    after = file.position()
    assert not file.write_snapshot({"late": True}, instead_of=before.generation, through=2)
    assert file.position() == after
    assert known(read(file)[0]) == known(router)


def test_pieces_that_a_crash_left_are_dropped_with_the_next_snapshot(file: SqliteFile) -> None:
    with sqlite3.connect(file.path) as other:
        other.execute("INSERT INTO snapshot (generation, data) VALUES (7, x'00')")
    other.close()
    happen(file, fresh(), 2)
    fold(file, fresh(), latest=FOREVER)
    with sqlite3.connect(file.path) as other:
        assert other.execute("SELECT DISTINCT generation FROM snapshot").fetchall() == [
            (file.position().generation,)
        ]
    other.close()


def test_an_entry_written_twice_is_there_once(file: SqliteFile) -> None:
    router = fresh()
    decision = router.select(Query(), now=NOON)
    file.append(1, (decision_event(decision),))
    second = router.select(Query(), now=NOON)
    file.append(1, (decision_event(decision), decision_event(second)))
    assert read(file)[0].decisions_total == 2


def test_what_is_read_is_of_one_moment(file: SqliteFile) -> None:
    happen(file, fresh(), 3)
    other = SqliteFile(file.path)
    other.open()
    with file.reading():
        position = file.position()
        fold(other, fresh(), latest=FOREVER)
        assert file.position() == position
        assert len(list(file.entries(0))) == 3
    other.close()


async def test_a_compaction_is_done_by_another_process(file: SqliteFile, settings: Settings) -> None:
    router = fresh()
    happen(file, router, 10)
    size_bytes = await compact(file.path, settings, latest=FOREVER)
    again, restored = read(file)
    assert known(again) == known(router)
    assert (restored.events, restored.position.snapshot_bytes) == (0, size_bytes)


async def test_a_compaction_suspends_by_the_server_s_own_rules(file: SqliteFile, settings: Settings) -> None:
    for number in range(1, 4):
        file.append(number, (outcome_event(Outcome("a", False), now=NOON + number),))
    strict = replace(settings, suspension=SuspensionSettings(failures_in_a_row=3))
    await compact(file.path, strict, latest=FOREVER)
    assert read(file)[0].state("a") is State.SUSPENDED


def test_the_key_of_callers_stays_with_the_file(file: SqliteFile, tmp_path: Path) -> None:
    key = file.caller_key()
    fold(file, fresh(), latest=FOREVER)
    file.reopen()
    other = SqliteFile(tmp_path / "other.db")
    other.open()
    assert len(key) == 16
    assert file.caller_key() == key != other.caller_key()
    other.close()


async def test_a_compaction_that_fails_says_why(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="is not a state file of this server"):
        await compact(path, settings, latest=FOREVER)


# Files that are refused


def refusal(path: Path) -> str:
    """What opening and reading this file says, without its name; the file is closed after it."""
    file = SqliteFile(path)
    with pytest.raises(StoreError) as refused:
        try:
            file.open()
            restore(file, fresh(), latest=FOREVER)
        finally:
            file.close()
    assert refused.value.message.startswith(f"{path}: ")
    assert "\n" not in refused.value.message
    return refused.value.message.removeprefix(f"{path}: ")


def changed(file: SqliteFile, statement: str) -> Path:
    file.close()
    other = sqlite3.connect(file.path)
    other.execute(statement)
    other.commit()
    other.close()
    return file.path


def test_a_file_of_another_format_is_refused(file: SqliteFile) -> None:
    for other in (2, 4):
        assert refusal(changed(file, f"PRAGMA user_version = {other}")) == (
            f"has format {other}, and this version reads format 3"
        )


@pytest.mark.parametrize("content", [b"[server]\nport = 1\n" * 100, b"\x00" * 4096])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    assert "is not a state file of this server" in refusal(path)
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (url)")
    other.commit()
    other.close()
    content = path.read_bytes()
    assert "is not a state file of this server" in refusal(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal SET events = '[[1, 2' WHERE number = 3",
        "UPDATE journal SET events = '[[\"unheard of\"]]' WHERE number = 3",
        "UPDATE journal SET events = '[[\"reported\", 1]]' WHERE number = 3",
        "UPDATE journal SET events = '7' WHERE number = 3",
        "UPDATE journal SET events = x'00ff' WHERE number = 3",
        "UPDATE current SET generation = 9",
        "DELETE FROM current",
        "DROP TABLE journal",
    ],
)
def test_what_nobody_wrote_is_damage(file: SqliteFile, statement: str) -> None:
    happen(file, fresh(), 4)
    assert refusal(changed(file, statement))


@pytest.mark.parametrize(
    "statement", ["UPDATE snapshot SET data = x'78'", "UPDATE snapshot SET data = zeroblob(50)"]
)
def test_a_damaged_snapshot_is_refused(file: SqliteFile, statement: str) -> None:
    happen(file, fresh(), 4)
    fold(file, fresh(), latest=FOREVER)
    assert refusal(changed(file, statement)) == sqlite.DAMAGED


def test_a_damaged_page_is_refused(file: SqliteFile) -> None:
    happen(file, fresh(), 400)
    file.close()
    content = bytearray(file.path.read_bytes())
    content[4096 * 5 : 4096 * 6] = Random(1).randbytes(4096)
    file.path.write_bytes(content)
    assert refusal(file.path) == sqlite.DAMAGED


def test_a_file_cut_short_is_refused(file: SqliteFile) -> None:
    happen(file, fresh(), 400)
    file.close()
    os.truncate(file.path, 4096 * 3)
    assert refusal(file.path) == sqlite.DAMAGED


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "cannot be opened"
    with pytest.raises(StoreError, match="is a folder or a device; expected a file"):
        Lock(tmp_path).take()


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "state.db")
    with pytest.raises(StoreError, match="is a folder or a device; expected a file"):
        Lock(tmp_path / "state.db").take()


def test_a_compaction_creates_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteFile(tmp_path / "state.db").open(create=False)
    assert not (tmp_path / "state.db").exists()


def test_a_file_that_cannot_be_written_is_refused(file: SqliteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SQLite's own switch: who runs tests may be root, whom no file mode stops."""
    file.close()
    connect = sqlite3.connect

    def read_only(address: str, **how: object) -> sqlite3.Connection:
        return connect(address.replace("mode=rwc", "mode=ro"), **how)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    assert refusal(file.path) == "cannot be written"


def test_nothing_is_written_to_a_file_that_was_moved_away(file: SqliteFile, tmp_path: Path) -> None:
    happen(file, fresh(), 1)
    file.path.rename(tmp_path / "elsewhere.db")
    with pytest.raises(StoreError, match="no such file"):
        file.append(2, ())
    another = SqliteFile(file.path)
    another.open()
    another.close()
    with pytest.raises(StoreError, match="was replaced by another file"):
        file.append(2, ())
    with pytest.raises(StoreError, match="was replaced by another file"):
        file.reopen()


def test_all_that_is_known_can_be_written_where_the_file_has_gone(file: SqliteFile) -> None:
    router = fresh()
    happen(file, router, 3)
    for left in file.path.parent.glob("state.db*"):
        left.unlink()
    file.write_anew(router.snapshot(now=NOON), 3)
    again, restored = read(file)
    assert known(again) == known(router)
    assert restored.last_number == 3


def test_a_full_disk_is_said_and_the_file_stays_good(file: SqliteFile) -> None:
    router = fresh()
    happen(file, router, 10)
    assert file._connection is not None
    file._connection.execute("PRAGMA max_page_count = 10")
    with pytest.raises(StoreError, match="the disk is full"):
        file.append(11, (outcome_event(Outcome("a", True, content_hash="h" * 1_000_000), now=NOON),))
    assert known(read(file)[0]) == known(router)


# The lock


def test_a_state_has_one_server_at_a_time(tmp_path: Path) -> None:
    ours, theirs = Lock(tmp_path / "state.db"), Lock(tmp_path / "state.db")
    ours.take()
    with pytest.raises(StoreError, match=f"another server uses this state .process {os.getpid()}."):
        theirs.take()
    ours.release()
    theirs.take()
    theirs.release()


def test_a_lock_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file or directory"):
        Lock(tmp_path / "missing" / "state.db").take()
