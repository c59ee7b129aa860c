"""The state file: an SQLite database with a snapshot and the journal of events after it.

A new snapshot is written in pieces beside the current one. One small statement then makes it the
current one, and also stores up to which journal entry it reaches. So a crash at any moment leaves a
readable file, and no writer waits long for another.

    current    one row: the current snapshot, and the last entry that it contains
    snapshot   the pieces of each snapshot; concatenated, JSON compressed by zlib
    journal    entries by number; each holds the events of one commit, as JSON

WAL with `synchronous = NORMAL`: a commit has been handed to the kernel when it returns, so no crash of
the process loses it. A power failure may lose the last commits, but never corrupts the file.
"""

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

from routing.core.events import EventRow
from routing.errors import RoutingError

FORMAT = 3
APPLICATION_ID = 0x726F7574
"""The bytes "rout", which identify a state file of this server."""

BUSY_S = 5.0
"""How long a write waits for another process's write; those of a compaction take milliseconds."""

CHECKPOINT_PAGES = 4000
"""Size of the WAL at which it is written back, 16 MB: with less, commits wait for the disk more
often; with more, a restart reads more."""

PIECE_BYTES = 1 << 20
"""Bytes of a snapshot that one statement writes: other writers wait some milliseconds for it."""

ENTRIES_PER_STATEMENT = 256
"""Entries that one statement reads or deletes, so that other writers never wait long."""

TABLES = """
CREATE TABLE journal (number INTEGER PRIMARY KEY, events TEXT NOT NULL);
CREATE TABLE snapshot (piece INTEGER PRIMARY KEY, generation INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE current (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL,
                      through INTEGER NOT NULL, bytes INTEGER NOT NULL,
                      clock_ahead_s REAL NOT NULL);
INSERT INTO current VALUES (1, 0, 0, 0, 0.0);
CREATE TABLE secret (caller_key BLOB NOT NULL);
INSERT INTO secret VALUES (randomblob(16));
"""
SCHEMA = f"BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"

DAMAGED = "is damaged; move it away to start without state"

_WHY: Mapping[int, str] = MappingProxyType(
    {
        sqlite3.SQLITE_CORRUPT: DAMAGED,
        sqlite3.SQLITE_NOTADB: "is not a state file of this server; expected one, or a new name",
        sqlite3.SQLITE_FULL: "the disk is full",
        sqlite3.SQLITE_READONLY: "cannot be written",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened",
        sqlite3.SQLITE_BUSY: "is locked by another program",
        sqlite3.SQLITE_LOCKED: "is locked by another program",
    }
)


class StoreError(RoutingError):
    """The state file cannot be read or written; the message names it and says why."""


class Position(NamedTuple):
    """The generation of the current snapshot (0 for none), the last entry in it, and its size."""

    generation: int
    through: int
    snapshot_bytes: int


class Entry(NamedTuple):
    """One entry of the journal: the events of one commit."""

    number: int
    rows: list[Any]
    size_bytes: int


def wal_of(path: Path) -> Path:
    """The file in which SQLite keeps the latest commits: beside the file that symbolic links lead to."""
    real = path.resolve()
    return real.with_name(f"{real.name}-wal")


class SqliteFile:
    """A connection to one state file. Any thread may use it, but only one at a time.

    All failures raise StoreError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._wal = path
        self._status: os.stat_result | None = None
        self._wal_status: os.stat_result | None = None

    def __repr__(self) -> str:
        return f"<SqliteFile {self._path}{'' if self._connection else ' closed'}>"

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self._path

    def open(self, *, create: bool = True) -> None:
        """Opens the file, or creates it; a file of another format or application is refused. Only
        the holder of the lock may create it.

        Also writes once, to detect a read-only file or a full disk at start.
        """
        with self._as_store_errors():
            address = f"file:{quote(str(self._path))}?mode={'rwc' if create else 'rw'}"
            self._connection = sqlite3.connect(
                address, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
                self._wal = wal_of(self._path)
                self._status, self._wal_status = os.stat(self._path), os.stat(self._wal)
            # Any error, Ctrl-C included: an open connection would keep its lock.
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Closes the file, which also writes the WAL back; does nothing if it is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with self._as_store_errors():
                connection.close()

    def reopen(self) -> None:
        """Replaces the connection, whose state is unknown after an error."""
        self.check_same_file()
        with contextlib.suppress(StoreError):
            self.close()
        self.open(create=False)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """A read transaction: reads inside see one consistent version of the file."""
        with self._as_store_errors():
            self._run("BEGIN")
        try:
            yield
        finally:
            with self._as_store_errors():
                self._run("COMMIT")

    def position(self) -> Position:
        """The position of the current snapshot."""
        with self._as_store_errors():
            return Position(*self._run("SELECT generation, through, bytes FROM current").fetchone())

    def caller_key(self) -> bytes:
        """The random key that this file was created with."""
        with self._as_store_errors():
            return bytes(self._run("SELECT caller_key FROM secret").fetchone()[0])

    def clock_ahead_s(self) -> float:
        """How far the wall clock was ahead of the times in the file when they were written."""
        with self._as_store_errors():
            ahead_s: float = self._run("SELECT clock_ahead_s FROM current").fetchone()[0]
            return ahead_s

    def write_clock_ahead_s(self, ahead_s: float) -> None:
        """Stores how far the wall clock is ahead of the times in the file."""
        self._check_same_files()
        with self._as_store_errors():
            self._run("UPDATE current SET clock_ahead_s = ?", ahead_s)

    def snapshot(self, generation: int) -> Mapping[str, Any]:
        """The contents of a snapshot."""
        with self._as_store_errors():
            found = self._run("SELECT data FROM snapshot WHERE generation = ? ORDER BY piece", generation)
            values: Mapping[str, Any] = json.loads(zlib.decompress(b"".join(data for (data,) in found)))
            return values

    def entries(self, after: int) -> Iterator[Entry]:
        """The journal entries with a higher number, in order."""
        query = "SELECT number, events FROM journal WHERE number > ? ORDER BY number LIMIT ?"
        while True:
            with self._as_store_errors():
                found = self._run(query, after, ENTRIES_PER_STATEMENT).fetchall()
                entries = [Entry(number, json.loads(events), len(events)) for number, events in found]
            yield from entries
            if not entries:
                return
            after = entries[-1].number

    def append(self, number: int, rows: Sequence[EventRow]) -> int:
        """Commits one entry and returns its size in bytes.

        An existing entry of that number is replaced. It is from an attempt whose result is unknown,
        and holds the first of the same rows.
        """
        events = json.dumps(rows, separators=(",", ":"))
        self._check_same_files()
        with self._as_store_errors():
            self._run("INSERT OR REPLACE INTO journal VALUES (?, ?)", number, events)
        return len(events)

    def write_anew(self, snapshot: Mapping[str, Any], through: int) -> None:
        """Replaces the whole contents by a snapshot; creates the file if it was deleted."""
        with contextlib.suppress(StoreError):
            self.close()
        if self._path.exists():
            try:
                self.check_same_file()
            except StoreError:
                self._set_wal_aside()
                raise
        self.open()
        self.write_snapshot(snapshot, instead_of=self.position().generation, through=through)

    def write_snapshot(self, snapshot: Mapping[str, Any], *, instead_of: int, through: int) -> bool:
        """Replaces the snapshot `instead_of` by this one, which contains the journal up to `through`,
        and deletes those entries. False if another snapshot is current meanwhile."""
        data = zlib.compress(json.dumps(snapshot, separators=(",", ":")).encode(), 1)
        generation = int.from_bytes(os.urandom(6)) + 1
        with self._as_store_errors():
            for start in range(0, len(data), PIECE_BYTES):
                piece = data[start : start + PIECE_BYTES]
                self._run("INSERT INTO snapshot (generation, data) VALUES (?, ?)", generation, piece)
            update = "UPDATE current SET generation = ?, through = ?, bytes = ? WHERE generation = ?"
            replaced = self._run(update, generation, through, len(data), instead_of).rowcount == 1
            if replaced:
                self._drop_superseded(generation, through)
            else:
                self._run("DELETE FROM snapshot WHERE generation = ?", generation)
        return replaced

    def _set_wal_aside(self) -> None:
        """Renames our PATH-wal to PATH-wal.orphan: the next start would apply it to the file that is
        in the place of ours now, and destroy both."""
        with self._as_store_errors(), contextlib.suppress(FileNotFoundError):
            if self._wal_status is not None and os.path.samestat(os.stat(self._wal), self._wal_status):
                self._wal.rename(f"{self._wal}.orphan")
                self._wal.with_name(self._wal.name.removesuffix("-wal") + "-shm").unlink()

    def _drop_superseded(self, generation: int, through: int) -> None:
        """Deletes in small statements. A crash leaves rows that the next snapshot's call deletes."""
        some_pieces = "SELECT piece FROM snapshot WHERE generation <> ? LIMIT 1"
        while self._run(f"DELETE FROM snapshot WHERE piece IN ({some_pieces})", generation).rowcount:  # noqa: S608
            pass
        some_entries = "SELECT number FROM journal WHERE number <= ? ORDER BY number LIMIT ?"
        delete = f"DELETE FROM journal WHERE number IN ({some_entries})"  # noqa: S608 - our own text
        while self._run(delete, through, ENTRIES_PER_STATEMENT).rowcount:
            pass

    def _prepare(self) -> None:
        """Checks the format, creates the schema in a new file, sets the pragmas, writes once."""
        kind = self._run("PRAGMA application_id").fetchone()[0]
        found = self._run("PRAGMA user_version").fetchone()[0]
        tables = self._run("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if kind not in (0, APPLICATION_ID) or (tables and not kind):
            raise self._refusal(_WHY[sqlite3.SQLITE_NOTADB])
        if tables and found != FORMAT:
            raise self._refusal(f"has format {found}, and this version reads format {FORMAT}")
        self._run("PRAGMA journal_mode = WAL")
        self._run("PRAGMA synchronous = NORMAL")
        self._run(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        if not tables and self._connection is not None:
            self._connection.executescript(SCHEMA)
        self._run("UPDATE current SET one = 1")

    def check_same_file(self) -> None:
        """StoreError if the path is another file now: SQLite keeps writing to a deleted or renamed file."""
        with self._as_store_errors():
            if self._status is None or not os.path.samestat(os.stat(self._path), self._status):
                raise self._refusal("was replaced by another file")

    def _check_same_files(self) -> None:
        """Likewise, and if PATH-wal is not the one that SQLite writes to: the next start would not see it."""
        self.check_same_file()
        try:
            same = self._wal_status is not None and os.path.samestat(os.stat(self._wal), self._wal_status)
        except FileNotFoundError:
            same = False
        if not same:
            raise self._refusal(f"{self._wal.name} was removed or replaced")

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        if self._connection is None:
            raise self._refusal("is closed")
        return self._connection.execute(statement, values)

    def _refusal(self, why: str) -> StoreError:
        return StoreError(f"{self._path}: {why}")

    @contextlib.contextmanager
    def _as_store_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._refusal((error.strerror or str(error)).lower()) from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            raise self._refusal(_WHY.get(code, str(error))) from error
        except (zlib.error, ValueError, TypeError) as error:
            raise self._refusal(DAMAGED) from error
