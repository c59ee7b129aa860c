"""Counts of decisions and outcomes of one backend and content type in one interval."""

from routing.core.usage.sketch import DenseSketch, Sketch


class UsageCell:
    """The counts of one backend and content type in one interval; merging is addition."""

    __slots__ = ("bytes_total", "decisions", "durations", "outcomes", "successes")

    def __init__(self) -> None:
        self.decisions = 0
        self.bytes_total = 0
        self.outcomes = 0
        self.successes = 0
        self.durations: Sketch | None = None

    def __repr__(self) -> str:
        return f"UsageCell(decisions={self.decisions}, outcomes={self.outcomes}, successes={self.successes})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UsageCell) and self.as_row() == other.as_row()

    def note_decision(self, size_bytes: int) -> None:
        self.decisions += 1
        self.bytes_total += size_bytes

    def note_outcome(self, success: bool) -> None:
        self.outcomes += 1
        self.successes += success

    def note_duration(self, index: int, duration_ms: int) -> None:
        if self.durations is None:
            self.durations = Sketch()
        self.durations.add_to_bin(index, duration_ms)

    def merge(self, other: "UsageCell") -> None:
        self.decisions += other.decisions
        self.bytes_total += other.bytes_total
        self.outcomes += other.outcomes
        self.successes += other.successes
        if other.durations is not None:
            if self.durations is None:
                self.durations = Sketch()
            self.durations.merge(other.durations)

    def as_row(self) -> list[int]:
        """The cell as a list of whole numbers."""
        row = [self.decisions, self.bytes_total, self.outcomes, self.successes]
        return row if self.durations is None else row + self.durations.as_row()

    @classmethod
    def from_row(cls, row: list[int]) -> "UsageCell":
        """The cell that `as_row` returned."""
        cell = cls()
        cell.decisions, cell.bytes_total, cell.outcomes, cell.successes = row[:4]
        if len(row) > 4:
            cell.durations = Sketch.from_row(row[4:])
        return cell


class SlidingCell(UsageCell):
    """A cell of a sliding sum: made for quantiles that are read often, and for subtraction."""

    __slots__ = ()

    def note_duration(self, index: int, duration_ms: int) -> None:
        if self.durations is None:
            self.durations = DenseSketch()
        self.durations.add_to_bin(index, duration_ms)

    def merge(self, other: UsageCell) -> None:
        if other.durations is not None and self.durations is None:
            self.durations = DenseSketch()
        super().merge(other)

    def subtract(self, other: UsageCell) -> None:
        """Removes the counts of another cell, which must have been merged into this one."""
        self.decisions -= other.decisions
        self.bytes_total -= other.bytes_total
        self.outcomes -= other.outcomes
        self.successes -= other.successes
        if other.durations is not None and isinstance(self.durations, DenseSketch):
            self.durations.subtract(other.durations)
            if not self.durations.count:
                self.durations = None
