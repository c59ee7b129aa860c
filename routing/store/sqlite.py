"""One SQLite file: a snapshot, and the journal of what happened after it.

A snapshot is written piece by piece beside the one in force, and takes its place in one
small statement, which also says up to which entry of the journal it reaches. So a crash
at any moment leaves a file that can be read, and no writer waits long for another.

    current    one row: the snapshot in force, and the last entry that it contains
    snapshot   the pieces of each snapshot; put together, JSON packed by zlib
    journal    entries by number; each holds the events of one commit, as JSON

WAL with `synchronous = NORMAL`: a commit is in the kernel's hands when it returns, so no
crash of the process loses it. A power cut may take the last commits, never the file.
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

FORMAT = 2
APPLICATION_ID = 0x726F7574
""""rout", by which we know our own files."""

BUSY_S = 5.0
"""How long a write waits for another one: those of a compaction take milliseconds."""

CHECKPOINT_PAGES = 4000
"""16 MB of WAL before it is written back: with fewer, commits wait for the disk more
often; with more, a restart reads more."""

PIECE_BYTES = 1 << 20
"""Of a snapshot, written at a time: some milliseconds for which others cannot write."""

ENTRIES_AT_ONCE = 256
"""Entries read, or dropped, at a time: nobody may hold others up for long."""

TABLES = """
CREATE TABLE journal (number INTEGER PRIMARY KEY, events TEXT NOT NULL);
CREATE TABLE snapshot (piece INTEGER PRIMARY KEY, generation INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE current (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL,
                      through INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO current VALUES (1, 0, 0, 0);
"""
SCHEMA = f"BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"

DAMAGED = "is damaged; move it away to begin anew"

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
    """The file cannot be read or written; the message names it, and says why."""


class Position(NamedTuple):
    """The snapshot in force (0 is none), the last journal entry in it, and its size."""

    generation: int
    through: int
    snapshot_bytes: int


class Entry(NamedTuple):
    """One entry of the journal."""

    number: int
    rows: list[Any]
    size_bytes: int


class SqliteFile:
    """A connection to one state file. One thread at a time may use it, whichever.

    Whatever goes wrong is a StoreError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def __repr__(self) -> str:
        return f"<SqliteFile {self._path}{'' if self._connection else ' closed'}>"

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def open(self) -> None:
        """Opens the file, or makes it; a file of another format or kind is refused.

        It also writes, to find out now whether that can be done.
        """
        with self._explained():
            address = f"file:{quote(str(self._path))}?mode=rwc"
            self._connection = sqlite3.connect(
                address, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
                self._inode = os.stat(self._path).st_ino
            # Whatever it is, Ctrl-C too: a file left open would keep its lock.
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Closes the file, which also writes the WAL back; no harm where it is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with self._explained():
                connection.close()

    def reopen(self) -> None:
        """Opens the file anew, where the connection may have gone wrong."""
        self._check_place()
        with contextlib.suppress(StoreError):
            self.close()
        self.open()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What is read inside is of one moment, whatever others write meanwhile."""
        with self._explained():
            self._run("BEGIN")
        try:
            yield
        finally:
            with self._explained():
                self._run("COMMIT")

    def position(self) -> Position:
        """Which snapshot is in force."""
        with self._explained():
            return Position(*self._run("SELECT generation, through, bytes FROM current").fetchone())

    def snapshot(self, generation: int) -> Mapping[str, Any]:
        """What that snapshot says."""
        with self._explained():
            found = self._run("SELECT data FROM snapshot WHERE generation = ? ORDER BY piece", generation)
            values: Mapping[str, Any] = json.loads(zlib.decompress(b"".join(data for (data,) in found)))
            return values

    def entries(self, after: int) -> Iterator[Entry]:
        """Every later entry of the journal, in order."""
        later = "SELECT number, events FROM journal WHERE number > ? ORDER BY number LIMIT ?"
        while True:
            with self._explained():
                found = self._run(later, after, ENTRIES_AT_ONCE).fetchall()
                entries = [Entry(number, json.loads(events), len(events)) for number, events in found]
            yield from entries
            if not entries:
                return
            after = entries[-1].number

    def append(self, number: int, rows: Sequence[EventRow]) -> int:
        """Commits one entry, and answers how large it is.

        One of that number that is there already, from a try whose end was not known, is
        replaced: it held the beginning of the same rows.
        """
        events = json.dumps(rows, separators=(",", ":"))
        self._check_place()
        with self._explained():
            self._run("INSERT OR REPLACE INTO journal VALUES (?, ?)", number, events)
        return len(events)

    def write_anew(self, snapshot: Mapping[str, Any], through: int) -> None:
        """Puts a snapshot in the place of all that is there, also where that is nothing any more."""
        with contextlib.suppress(StoreError):
            self.close()
        if self._path.exists():
            self._check_place()
        self.open()
        self.write_snapshot(snapshot, instead_of=self.position().generation, through=through)

    def write_snapshot(self, snapshot: Mapping[str, Any], *, instead_of: int, through: int) -> bool:
        """Puts a snapshot in the place of another one; it contains the journal up to
        `through`, which is dropped. Answers False where a third one has come between."""
        data = zlib.compress(json.dumps(snapshot, separators=(",", ":")).encode(), 1)
        generation = int.from_bytes(os.urandom(6)) + 1
        with self._explained():
            for start in range(0, len(data), PIECE_BYTES):
                piece = data[start : start + PIECE_BYTES]
                self._run("INSERT INTO snapshot (generation, data) VALUES (?, ?)", generation, piece)
            update = "UPDATE current SET generation = ?, through = ?, bytes = ? WHERE generation = ?"
            took_place = self._run(update, generation, through, len(data), instead_of).rowcount == 1
            if took_place:
                self._drop_superseded(generation, through)
            else:
                self._run("DELETE FROM snapshot WHERE generation = ?", generation)
        return took_place

    def _drop_superseded(self, generation: int, through: int) -> None:
        """A little at a time. What a crash leaves is dropped with the next snapshot."""
        some_pieces = "SELECT piece FROM snapshot WHERE generation <> ? LIMIT 1"
        while self._run(f"DELETE FROM snapshot WHERE piece IN ({some_pieces})", generation).rowcount:  # noqa: S608
            pass
        some_entries = "SELECT number FROM journal WHERE number <= ? ORDER BY number LIMIT ?"
        delete = f"DELETE FROM journal WHERE number IN ({some_entries})"  # noqa: S608 - our own text
        while self._run(delete, through, ENTRIES_AT_ONCE).rowcount:
            pass

    def _prepare(self) -> None:
        """The schema, in a file that is new; the settings of this connection; one write."""
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

    def _check_place(self) -> None:
        """SQLite goes on writing to a file that has no name any more, and nobody would find it."""
        with self._explained():
            if os.stat(self._path).st_ino != self._inode:
                raise self._refusal("was replaced by another file")

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        if self._connection is None:
            raise self._refusal("is closed")
        return self._connection.execute(statement, values)

    def _refusal(self, why: str) -> StoreError:
        return StoreError(f"{self._path}: {why}")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._refusal((error.strerror or str(error)).lower()) from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            raise self._refusal(_WHY.get(code, str(error))) from error
        except (zlib.error, ValueError, TypeError) as error:
            raise self._refusal(DAMAGED) from error
