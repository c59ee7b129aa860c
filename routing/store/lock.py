"""Locks a state file, so that only one server uses it."""

import errno
import fcntl
import os
from pathlib import Path

from routing.store.sqlite import StoreError, wal_of

LOCK_TABLE = Path("/proc/locks")
"""Linux's table of file locks, which names the process that holds one."""


class Lock:
    """An exclusive lock on a state file, whatever path leads to it.

    It is a kernel lock (flock) on the file itself, not on a file beside it: links lead to the same
    lock, nothing can be removed by hand, and the kernel releases it when the process ends, however
    that happens. SQLite's locks are of another kind (fcntl), so the two do not meet, and the
    compaction process, which takes no lock of this kind, is not excluded.

    SQLite keeps the latest commits in a file named after the path, PATH-wal. A second lock is on that
    one: a server on another file that was put in this place would overwrite it, and read what is not
    its own.

    Closing any descriptor of the state file drops the process's fcntl locks on it, so SQLite must have
    closed the file before `release`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._wal_descriptor: int | None = None

    def __repr__(self) -> str:
        return f"<Lock {self._path} {'free' if self._descriptor is None else 'taken'}>"

    def take(self) -> None:
        """Takes the lock, and creates the file if there is none. To be called before SQLite opens it.

        StoreError names the process that holds it. A file with several hard links is refused:
        a server that starts under the other name after a crash would not see the latest commits. So
        is an empty or absent file beside a PATH-wal that has commits, which SQLite would remove.
        """
        try:
            self._check_kind()
            self._check_wal()
            while not self._take_what_is_there():
                pass
        except OSError as error:
            raise self._refusal((error.strerror or str(error)).lower()) from None

    def hold_wal(self) -> None:
        """Takes the lock on PATH-wal as well, once SQLite has opened the file; anew if it did so again."""
        self._close_wal()
        try:
            self._wal_descriptor = os.open(wal_of(self._path), os.O_RDONLY)
            self._lock(self._wal_descriptor)
        except OSError as error:
            raise self._refusal((error.strerror or str(error)).lower()) from None

    def release(self) -> None:
        """Releases the lock."""
        self._close_wal()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _check_kind(self) -> None:
        if self._path.exists() and not self._path.is_file():
            raise self._refusal("is a folder or a device; expected a file")

    def _check_wal(self) -> None:
        wal = wal_of(self._path)
        if not wal.exists():
            return
        descriptor = os.open(wal, os.O_RDONLY | os.O_NONBLOCK)
        try:
            self._lock(descriptor)
        finally:
            os.close(descriptor)
        if wal.stat().st_size and not (self._path.exists() and self._path.stat().st_size):
            remedy = f"put the file back that belongs to it, or remove {wal.name} to start without state"
            raise self._refusal(f"is missing or empty, but {wal.name} holds the latest commits; {remedy}")

    def _take_what_is_there(self) -> bool:
        """Locks the file at the path; False if another file took its place meanwhile."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK, 0o644)
        try:
            self._lock(descriptor)
            status = os.fstat(descriptor)
            if self._path.exists() and os.path.samestat(status, self._path.stat()):
                if status.st_nlink > 1:
                    links = f"has {status.st_nlink} hard links; keep one, and use symbolic links instead"
                    raise self._refusal(links)
                self._descriptor, descriptor = descriptor, -1
                return True
            return False
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            holder = _holder(os.fstat(descriptor)) or "of unknown number"
            raise self._refusal(f"another server uses this state (process {holder})") from None

    def _close_wal(self) -> None:
        descriptor, self._wal_descriptor = self._wal_descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _refusal(self, why: str) -> StoreError:
        return StoreError(f"{self._path}: {why}")


def _holder(status: os.stat_result) -> str:
    """The number of the process that holds a flock on this file; empty where that is not known."""
    try:
        rows = [line.split() for line in LOCK_TABLE.read_text().splitlines()]
    except OSError:
        return ""
    # 1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return next((row[4] for row in rows if row[1] == "FLOCK" and row[5] == place), "")
