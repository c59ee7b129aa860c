"""Locks a state file, so that only one server uses it."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from routing.store.sqlite import StoreError


class Lock:
    """An exclusive lock on a state file.

    It is a kernel lock (flock) on a file beside it, which is released when the process ends, however
    that happens. SQLite's own lock would exclude the compaction process as well.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}-lock")
        self._file: IO[str] | None = None

    def __repr__(self) -> str:
        return f"<Lock {self._path} {'taken' if self._file else 'free'}>"

    def take(self) -> None:
        """Takes the lock; StoreError names the process that holds it."""
        try:
            file = self._path.open("a+")
        except OSError as error:
            raise StoreError(f"{self._path}: {(error.strerror or str(error)).lower()}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            with file:
                file.seek(0)
                holder = file.read(20).strip() or "of unknown number"
            raise StoreError(f"{self._path}: another server uses this state (process {holder})") from None
        self._file = file
        with contextlib.suppress(OSError):  # a full disk: the process id is only informative
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()

    def release(self) -> None:
        """Releases the lock."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
