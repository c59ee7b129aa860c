"""Quantiles of durations in little memory, from sketches that can be merged.

DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch
with relative-error guarantees", VLDB 2019): values are counted in bins whose edges
grow by a constant ratio γ, so that any value in a bin is within a relative error of
the bin's middle. Bins are counts, so merging is addition.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate

RELATIVE_ERROR = 0.01
"""Half of the 2 % that the contract allows, so that interpolating between two neighbouring values
stays within it. Halving it again would double the bins."""

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_INVERSE_LOG_GAMMA = 1 / math.log(_GAMMA)
_MIDDLE = 2 / (1 + _GAMMA)
"""Bin i covers (γ^(i−1), γ^i]; γ^i × _MIDDLE is within RELATIVE_ERROR of all of it."""

BLOCK = 16
"""Bins in a block of a dense sketch, which also keeps the blocks' sums. A day's durations fill
some twenty blocks: with smaller blocks finding the block takes longer, with larger ones finding
the bin in it."""


def bin_of(duration_ms: float) -> int:
    """The bin in which a duration of at least 1 ms is counted."""
    return math.ceil(math.log(duration_ms) * _INVERSE_LOG_GAMMA)


def bin_middle(index: int) -> float:
    """The duration in ms that stands for all durations of a bin."""
    return _GAMMA**index * _MIDDLE


class Sketch:
    """Counts, sum and extremes of positive whole milliseconds.

    A wire duration is an int32, so there are at most 1,076 bins.

    >>> sketch = Sketch()
    >>> for duration_ms in range(1, 1001):
    ...     sketch.add(duration_ms)
    >>> round(sketch.quantile(0.5)), sketch.count, sketch.max_ms
    (498, 1000, 1000)
    """

    __slots__ = ("_bins", "count", "max_ms", "min_ms", "sum_ms")

    def __init__(self) -> None:
        self._bins: dict[int, int] = {}
        self.count = 0
        self.sum_ms = 0
        self.min_ms = 0
        self.max_ms = 0

    def __repr__(self) -> str:
        return f"Sketch(count={self.count}, min_ms={self.min_ms}, max_ms={self.max_ms})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self.as_row() == other.as_row()

    @property
    def bins(self) -> Mapping[int, int]:
        """{bin: how many values it has}, without empty bins."""
        return self._bins

    def add(self, duration_ms: int) -> None:
        """Counts one duration of at least 1 ms."""
        self.add_to_bin(bin_of(duration_ms), duration_ms)

    def add_to_bin(self, index: int, duration_ms: int) -> None:
        """Likewise, if the bin is known: one event is counted in several sketches."""
        self._bins[index] = self._bins.get(index, 0) + 1
        self._add_sums(1, duration_ms, duration_ms, duration_ms)

    def merge(self, other: "Sketch") -> None:
        """Adds the counts of another sketch."""
        if not other.count:
            return
        if not self.count:
            self._bins = dict(other.bins)
        else:
            bins = self._bins
            for index, count in other.bins.items():
                bins[index] = bins.get(index, 0) + count
        self._add_sums(other.count, other.sum_ms, other.min_ms, other.max_ms)

    def _add_sums(self, count: int, sum_ms: int, min_ms: int, max_ms: int) -> None:
        if not self.count or min_ms < self.min_ms:
            self.min_ms = min_ms
        if max_ms > self.max_ms:
            self.max_ms = max_ms
        self.count += count
        self.sum_ms += sum_ms

    @property
    def mean_ms(self) -> float:
        """The exact mean; the sketch must not be empty."""
        return self.sum_ms / self.count

    def quantile(self, q: float) -> float:
        """The quantile at `q` in [0, 1], within 2 %; the sketch must not be empty."""
        return self.quantiles((q,))[0]

    def quantiles(self, shares: Iterable[float]) -> list[float]:
        """The quantiles at these shares of the values.

        Between two neighbouring ranks it interpolates, as `statistics.quantiles`
        with method "inclusive" does. The extremes are exact.
        """
        bins = sorted(self._bins)
        # For each bin the number of values in it and in those below.
        ends = list(accumulate(map(self._bins.__getitem__, bins)))
        answers = []
        for share in shares:
            rank = share * (self.count - 1)
            low = int(rank)
            at = bisect_right(ends, low)
            value = self._value_in(bins[at], low)
            if rank > low:
                above = bins[bisect_right(ends, low + 1, at)]
                value += (self._value_in(above, low + 1) - value) * (rank - low)
            answers.append(value)
        return answers

    def _value_in(self, index: int, rank: int) -> float:
        """The approximation of the value of this rank, which lies in this bin."""
        if rank == 0:
            return float(self.min_ms)
        if rank == self.count - 1:
            return float(self.max_ms)
        middle = bin_middle(index)
        if middle <= self.min_ms:
            return float(self.min_ms)
        return middle if middle <= self.max_ms else float(self.max_ms)

    def as_row(self) -> list[int]:
        """The sketch as whole numbers: count, sum, extremes, then index and count of each bin."""
        row = [self.count, self.sum_ms, self.min_ms, self.max_ms]
        for index, count in sorted(self.bins.items()):
            row += (index, count)
        return row

    @staticmethod
    def from_row(row: list[int]) -> "Sketch":
        """The sketch that `as_row` returned."""
        return Sketch.of(row[:4], dict(zip(row[4::2], row[5::2], strict=True)))

    @staticmethod
    def of(sums: Iterable[int], bins: dict[int, int]) -> "Sketch":
        """A sketch with these bins; `sums` are count, sum, minimum and maximum."""
        sketch = Sketch()
        sketch.count, sketch.sum_ms, sketch.min_ms, sketch.max_ms = sums
        sketch._bins = bins
        return sketch


class DenseSketch(Sketch):
    """A sketch of many values, whose quantiles are read often.

    The counts are in a list, from bin 0 to the highest bin with a value, and a second list has
    the sum of each block of them: half the memory of a dictionary that is as full, and
    quantiles in a tenth of the time. For a sketch of few values it takes ten times as much.
    """

    __slots__ = ("_answers", "_answers_count", "_blocks", "_counts")

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._blocks: list[int] = []
        self.count = self.sum_ms = self.min_ms = self.max_ms = 0
        # A cache of quantiles, {shares: answer}, and the number of values it was computed for.
        self._answers: dict[tuple[float, ...], list[float]] = {}
        self._answers_count = -1

    @property
    def bins(self) -> Mapping[int, int]:
        return {index: count for index, count in enumerate(self._counts) if count}

    def add_to_bin(self, index: int, duration_ms: int) -> None:
        self._count(index, 1)
        self._add_sums(1, duration_ms, duration_ms, duration_ms)

    def merge(self, other: Sketch) -> None:
        for index, count in other.bins.items():
            self._count(index, count)
        if other.count:
            self._add_sums(other.count, other.sum_ms, other.min_ms, other.max_ms)
        self._answers_count = -1

    def subtract(self, other: Sketch) -> None:
        """Removes the counts of another sketch, which must have been merged into this one. The
        extremes are kept, and may now be too wide."""
        for index, count in other.bins.items():
            self._count(index, -count)
        self.count -= other.count
        self.sum_ms -= other.sum_ms
        self._answers_count = -1

    def quantiles(self, shares: Iterable[float]) -> list[float]:
        shares = tuple(shares)
        if self._answers_count != self.count:
            self._answers.clear()
            self._answers_count = self.count
        if shares not in self._answers:
            self._answers[shares] = self._quantiles(shares)
        return self._answers[shares]

    def _count(self, index: int, count: int) -> None:
        if index >= len(self._counts):
            missing = index // BLOCK + 1 - len(self._blocks)
            self._blocks += [0] * missing
            self._counts += [0] * missing * BLOCK
        self._counts[index] += count
        self._blocks[index // BLOCK] += count

    def _quantiles(self, shares: tuple[float, ...]) -> list[float]:
        counts, last = self._counts, self.count - 1
        # For each block the number of values below it.
        begins = list(accumulate(self._blocks, initial=0))
        answers = []
        for share in shares:
            rank = share * last
            low = int(rank)
            block = bisect_right(begins, low) - 1
            index = block * BLOCK
            end = begins[block] + counts[index]
            while end <= low:
                index += 1
                end += counts[index]
            value = self._value_in(index, low)
            in_next = low + 1 >= end
            # The value of the next rank is the same if it is in the same bin and no extreme.
            if rank > low and (in_next or low == 0 or low + 1 == last):
                above = self._value_in(self._bin_after(index) if in_next else index, low + 1)
                value += (above - value) * (rank - low)
            answers.append(value)
        return answers

    def _bin_after(self, index: int) -> int:
        """The next bin with a value."""
        index += 1
        while not self._counts[index]:
            index += 1
        return index
