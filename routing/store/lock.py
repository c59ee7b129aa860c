"""One server for one state file."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from routing.store.sqlite import StoreError


class Lock:
    """Keeps a second server away from a state file.

    A lock of the kernel's on a file beside it: it ends with the process, however that
    ends. SQLite's own lock would keep the compaction away as well.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}-lock")
        self._file: IO[str] | None = None

    def __repr__(self) -> str:
        return f"<Lock {self._path} {'taken' if self._file else 'free'}>"

    def take(self) -> None:
        """StoreError where another process has it, which it names."""
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
        with contextlib.suppress(OSError):  # a full disk: the number only serves the reader
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()

    def release(self) -> None:
        """Lets others have it."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
