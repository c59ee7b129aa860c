"""Files that are read again when they change, while the server runs."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from routing.errors import RoutingError

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_Marks = tuple[tuple[int, ...], ...]


class Reloaded(Generic[Value]):
    """A value that comes from some files, and changes when they do.

    What is on the disk counts only if it can be read: else the value that was read last
    stays, until the files are right again. `current` says whether it is what the files say.
    """

    def __init__(
        self, what: str, paths: Sequence[str], read: Callable[[], Value], use: Callable[[Value], None]
    ) -> None:
        """Reads the files, and raises what `read` does. `what` is for the log, `use` is handed
        the value, now and whenever there is another."""
        self._what = what
        self._paths = paths
        self._read = read
        self._use = use
        self._complaint = ""
        # Before they are read: a change in between is seen as one that comes later.
        self._marks = _marks(paths)
        use(read())

    def __repr__(self) -> str:
        return f"<Reloaded {self._what}{' outdated' * (not self.current)}>"

    @property
    def current(self) -> bool:
        return not self._complaint

    async def look(self) -> None:
        """Reads the files again if they have changed, or could not be read the last time; on a
        worker thread, since a file may lie on a slow disk, or on a network that is gone."""
        try:
            found = await asyncio.to_thread(self._changed)
        except (RoutingError, OSError) as error:
            if str(error) != self._complaint:
                log.warning("files not reloaded what=%s reason=%s", self._what, error)
            self._complaint = str(error)
            return
        if found is not None:
            self._marks, value = found
            self._complaint = ""
            self._use(value)
            log.info("files reloaded what=%s", self._what)

    def _changed(self) -> tuple[_Marks, Value] | None:
        marks = _marks(self._paths)
        return None if marks == self._marks and self.current else (marks, self._read())


def _marks(paths: Sequence[str]) -> _Marks:
    """What differs when a file was written, replaced, taken away or made unreadable."""
    return tuple(map(_mark, paths))


def _mark(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    # The time of the last change covers a copy that keeps the time of the last write.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
