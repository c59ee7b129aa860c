"""What happened from some moment on, as a sum that goes on growing and lets go of what is old."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from routing.core.usage.cell import Cell, RunningCell
from routing.core.usage.packing import Names, Segment, unpack

Totals = dict[str, RunningCell]
Distribution = dict[str, dict[str, int]]
Cells = Mapping[str, Mapping[str, Cell]]
"""{content type: {backend: cell}}"""

COMPLETE = 10**12
"""Later than any five minutes."""


class Sum:
    """The counts from the five minutes `first` on, of one content type or of all.

    `totals` by backend, `distribution` by content type and backend. What is over is added
    in order of time, interval by interval, by `building`; what lies before `built` is in the
    sum. `leaving` are cells from before `first` that are still in it. The extremes of the
    backends in `doubtful` may be those of durations that have left.
    """

    def __init__(self, first: int, content_type: str, *, built: int) -> None:
        self.first = first
        self.content_type = content_type
        self.built = built
        self.building: Iterator[None] = iter(())
        self.leaving: deque[Segment] = deque()
        self.totals: Totals = {}
        self.distribution: Distribution = {}
        self.doubtful: set[str] = set()

    def __repr__(self) -> str:
        return f"Sum(first={self.first}, content_type={self.content_type!r}, built={self.built})"

    def counts(self, number: int, content_type: str) -> bool:
        """Whether what happens with this type in these five minutes is to be counted."""
        return self.first <= number < self.built and self.content_type in ("", content_type)

    def total(self, backend_id: str) -> Cell:
        """The cell of this backend."""
        cell = self.totals.get(backend_id)
        if cell is None:
            cell = self.totals[backend_id] = RunningCell()
        return cell

    def decided(self, content_type: str, backend_id: str, decisions: int) -> None:
        """Counts decisions by type."""
        row = self.distribution.setdefault(content_type, {})
        row[backend_id] = row.get(backend_id, 0) + decisions

    def add(self, content_type: str, backend_id: str, cell: Cell) -> None:
        """Counts all that a cell of this type has counted."""
        self.total(backend_id).merge(cell)
        if cell.decisions:
            self.decided(content_type, backend_id, cell.decisions)

    def let_go(self, cells: Iterable[tuple[str, Mapping[str, Cell]]]) -> None:
        """Counts no longer what these cells have counted."""
        for content_type, by_backend in cells:
            for backend_id, cell in by_backend.items():
                self._take(content_type, backend_id, cell)

    def let_go_some(self, names: Names) -> None:
        """The next of what is leaving."""
        self.let_go(unpack(self.leaving.popleft(), names))

    def _take(self, content_type: str, backend_id: str, cell: Cell) -> None:
        total = self.totals[backend_id]
        total.take(cell)
        leaving, left = cell.durations, total.durations
        if leaving and left and (leaving.min_ms <= left.min_ms or leaving.max_ms >= left.max_ms):
            self.doubtful.add(backend_id)
        if not total.decisions and not total.outcomes:
            del self.totals[backend_id]
        if cell.decisions:
            row = self.distribution[content_type]
            row[backend_id] -= cell.decisions
            if not row[backend_id]:
                del row[backend_id]
                if not row:
                    del self.distribution[content_type]
