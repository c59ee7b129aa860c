"""A sliding sum: the counts since some interval, from which old intervals are subtracted."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from routing.core.usage.cell import SlidingCell, UsageCell
from routing.core.usage.packing import BackendNumbers, Segment, unpack

Totals = dict[str, SlidingCell]
Distribution = dict[str, dict[str, int]]
Cells = Mapping[str, Mapping[str, UsageCell]]
"""{content type: {backend: cell}}"""

BUILT = 10**12
"""`built_until` of a sum that is complete: later than any interval."""


class SlidingSum:
    """The counts from the interval `first` on, of one content type or (with "") of all.

    `totals` is by backend, `distribution` by content type and backend. A new sum is built by
    `build_steps` from past intervals, in order of time; those before `built_until` are in it.
    `expiring` are packed cells from before `first` that are still to be subtracted. For the
    backends in `stale_extremes`, minimum or maximum may be of a duration that was subtracted.
    """

    def __init__(self, first: int, content_type: str, *, built_until: int) -> None:
        self.first = first
        self.content_type = content_type
        self.built_until = built_until
        self.build_steps: Iterator[None] = iter(())
        self.expiring: deque[Segment] = deque()
        self.totals: Totals = {}
        self.distribution: Distribution = {}
        self.stale_extremes: set[str] = set()

    def __repr__(self) -> str:
        return f"SlidingSum(first={self.first}, type={self.content_type!r}, built_until={self.built_until})"

    def includes(self, number: int, content_type: str) -> bool:
        """Whether an event of this interval and type is to be counted in this sum now."""
        return self.first <= number < self.built_until and self.content_type in ("", content_type)

    def total(self, backend_id: str) -> UsageCell:
        """The cell of this backend."""
        cell = self.totals.get(backend_id)
        if cell is None:
            cell = self.totals[backend_id] = SlidingCell()
        return cell

    def add_decisions(self, content_type: str, backend_id: str, decisions: int) -> None:
        """Counts decisions by type."""
        row = self.distribution.setdefault(content_type, {})
        row[backend_id] = row.get(backend_id, 0) + decisions

    def add(self, content_type: str, backend_id: str, cell: UsageCell) -> None:
        """Adds the counts of a cell of this type."""
        self.total(backend_id).merge(cell)
        if cell.decisions:
            self.add_decisions(content_type, backend_id, cell.decisions)

    def subtract(self, cells: Iterable[tuple[str, Mapping[str, UsageCell]]]) -> None:
        """Subtracts the counts of these cells."""
        for content_type, by_backend in cells:
            for backend_id, cell in by_backend.items():
                self._subtract_cell(content_type, backend_id, cell)

    def subtract_some(self, names: BackendNumbers) -> None:
        """Subtracts the next segment of `expiring`."""
        self.subtract(unpack(self.expiring.popleft(), names))

    def _subtract_cell(self, content_type: str, backend_id: str, cell: UsageCell) -> None:
        total = self.totals[backend_id]
        total.subtract(cell)
        gone, left = cell.durations, total.durations
        if gone and left and (gone.min_ms <= left.min_ms or gone.max_ms >= left.max_ms):
            self.stale_extremes.add(backend_id)
        if not total.decisions and not total.outcomes:
            del self.totals[backend_id]
        if cell.decisions:
            row = self.distribution[content_type]
            row[backend_id] -= cell.decisions
            if not row[backend_id]:
                del row[backend_id]
                if not row:
                    del self.distribution[content_type]
