"""Reloads files when they change while the server runs."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from routing.errors import RoutingError

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_Fingerprint = tuple[tuple[int, ...], ...]


class WatchedFiles(Generic[Value]):
    """A value read from files, and read again when they change.

    If the files become invalid, the last valid value stays in force until they are valid again.
    `current` says whether the value in force is that of the files.
    """

    def __init__(
        self, what: str, paths: Sequence[str], read: Callable[[], Value], use: Callable[[Value], None]
    ) -> None:
        """Reads the files, and raises what `read` raises. `what` names them in the log; `use` is
        called with the value, now and after each change."""
        self._what = what
        self._paths = paths
        self._read = read
        self._use = use
        self._error = ""
        # Taken before reading, so a change in between is detected by the next check.
        self._fingerprint = _fingerprint(paths)
        use(read())

    def __repr__(self) -> str:
        return f"<WatchedFiles {self._what} {'current' if self.current else 'outdated'}>"

    @property
    def current(self) -> bool:
        return not self._error

    async def check(self) -> None:
        """Reads the files again if they changed, or were invalid the last time. Uses a worker
        thread: a file may be on a slow disk or an unreachable network."""
        try:
            changed = await asyncio.to_thread(self._read_if_changed)
        except (RoutingError, OSError) as error:
            if str(error) != self._error:
                log.warning("files not reloaded what=%s reason=%s", self._what, error)
            self._error = str(error)
            return
        if changed is not None:
            self._fingerprint, value = changed
            self._error = ""
            self._use(value)
            log.info("files reloaded what=%s", self._what)

    def _read_if_changed(self) -> tuple[_Fingerprint, Value] | None:
        fingerprint = _fingerprint(self._paths)
        return None if fingerprint == self._fingerprint and self.current else (fingerprint, self._read())


def _fingerprint(paths: Sequence[str]) -> _Fingerprint:
    """Differs after a file was written, replaced, removed or made unreadable."""
    return tuple(map(_file_fingerprint, paths))


def _file_fingerprint(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    # ctime also changes for a copy that preserves mtime.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
