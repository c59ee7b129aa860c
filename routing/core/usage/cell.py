"""What happened on one backend with one content type in one stretch of time."""

from routing.core.usage.sketch import DenseSketch, Sketch


class Cell:
    """What happened on one backend with one content type in one interval; all of it adds."""

    __slots__ = ("bytes_total", "decisions", "durations", "outcomes", "successes")

    def __init__(self) -> None:
        self.decisions = 0
        self.bytes_total = 0
        self.outcomes = 0
        self.successes = 0
        self.durations: Sketch | None = None

    def __repr__(self) -> str:
        return f"Cell(decisions={self.decisions}, outcomes={self.outcomes}, successes={self.successes})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.as_row() == other.as_row()

    def note_decision(self, size_bytes: int) -> None:
        self.decisions += 1
        self.bytes_total += size_bytes

    def note_outcome(self, success: bool) -> None:
        self.outcomes += 1
        self.successes += success

    def note_duration(self, index: int, duration_ms: int) -> None:
        if self.durations is None:
            self.durations = Sketch()
        self.durations.add_to(index, duration_ms)

    def merge(self, other: "Cell") -> None:
        self.decisions += other.decisions
        self.bytes_total += other.bytes_total
        self.outcomes += other.outcomes
        self.successes += other.successes
        if other.durations is not None:
            if self.durations is None:
                self.durations = Sketch()
            self.durations.merge(other.durations)

    def as_row(self) -> list[int]:
        """All of it as whole numbers."""
        row = [self.decisions, self.bytes_total, self.outcomes, self.successes]
        return row if self.durations is None else row + self.durations.as_row()

    @classmethod
    def from_row(cls, row: list[int]) -> "Cell":
        """The cell that `as_row` wrote."""
        cell = cls()
        cell.decisions, cell.bytes_total, cell.outcomes, cell.successes = row[:4]
        if len(row) > 4:
            cell.durations = Sketch.from_row(row[4:])
        return cell


class RunningCell(Cell):
    """A cell that goes on counting while it is asked."""

    __slots__ = ()

    def note_duration(self, index: int, duration_ms: int) -> None:
        if self.durations is None:
            self.durations = DenseSketch()
        self.durations.add_to(index, duration_ms)

    def merge(self, other: Cell) -> None:
        if other.durations is not None and self.durations is None:
            self.durations = DenseSketch()
        super().merge(other)

    def take(self, other: Cell) -> None:
        """Counts no longer what the other has counted, all of which was counted here."""
        self.decisions -= other.decisions
        self.bytes_total -= other.bytes_total
        self.outcomes -= other.outcomes
        self.successes -= other.successes
        if other.durations is not None and isinstance(self.durations, DenseSketch):
            self.durations.take(other.durations)
            if not self.durations.count:
                self.durations = None
