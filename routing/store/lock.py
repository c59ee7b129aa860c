"""Locks a state file, so that only one server uses it."""

import errno
import fcntl
import os
from pathlib import Path

from routing.store.sqlite import StoreError

LOCK_TABLE = Path("/proc/locks")
"""Linux's table of file locks, which names the process that holds one."""


class Lock:
    """An exclusive lock on a state file, whatever path leads to it.

    It is a kernel lock (flock) on the file itself, not on a file beside it: links lead to the same
    lock, nothing can be removed by hand, and the kernel releases it when the process ends, however
    that happens. SQLite's locks are of another kind (fcntl), so the two do not meet, and the
    compaction process, which takes no lock of this kind, is not excluded.

    Closing any descriptor of a file drops the process's fcntl locks on it, so SQLite must have
    closed the file before `release`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __repr__(self) -> str:
        return f"<Lock {self._path} {'free' if self._descriptor is None else 'taken'}>"

    def take(self) -> None:
        """Takes the lock, and creates the file if there is none.

        StoreError names the process that holds it. A file with several hard links is refused:
        SQLite keeps the latest commits in a file named after the path, so a server that starts
        under the other name after a crash would not see them.
        """
        try:
            while not self._take_what_is_there():
                pass
        except OSError as error:
            raise StoreError(f"{self._path}: {(error.strerror or str(error)).lower()}") from None

    def _take_what_is_there(self) -> bool:
        """Locks the file at the path; False if another file took its place meanwhile."""
        flags = os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK  # a FIFO would wait for its writer
        if self._path.is_dir():
            flags &= ~os.O_CREAT  # SQLite says what is wrong
        descriptor = os.open(self._path, flags, 0o644)
        try:
            self._lock(descriptor)
            status = os.fstat(descriptor)
            if self._path.exists() and os.path.samestat(status, self._path.stat()):
                if status.st_nlink > 1 and not self._path.is_dir():
                    links = f"has {status.st_nlink} hard links; keep one, and use symbolic links instead"
                    raise StoreError(f"{self._path}: {links}")
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
            holder = _holder(os.fstat(descriptor).st_ino) or "of unknown number"
            raise StoreError(f"{self._path}: another server uses this state (process {holder})") from None

    def release(self) -> None:
        """Releases the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _holder(inode: int) -> str:
    """The number of the process that holds a flock on this file; empty where that is not known."""
    try:
        rows = [line.split() for line in LOCK_TABLE.read_text().splitlines()]
    except OSError:
        return ""
    # 1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF
    return next((row[4] for row in rows if row[1] == "FLOCK" and row[5].endswith(f":{inode}")), "")
