"""How outcomes went, from those that were seen, each with a weight: sums, and what they estimate.

With weights w and values x, a mean is Σwx / Σw. Where a value was seen because a choice fell
that had the probability p, its weight is 1/p: importance sampling, self-normalised. Its
standard error is √(Σw²(x − mean)²) / Σw, and the outcomes are worth as much as (Σw)² / Σw²
that all had the same weight (Owen, "Monte Carlo theory, methods and examples", 2013, chapter
9, artowen.su.domains/mc). With equal weights these are the usual mean, its usual standard
error, and the count.
"""

import math

from routing.core.usage.sketch import bin_middle, bin_of

Values = dict[str, float | int | None]


class Mean:
    """A weighted mean, with how sure it is."""

    __slots__ = ("_squares", "_squares_x", "_squares_xx", "_weights", "_weights_x", "count")

    def __init__(self) -> None:
        self.count = 0
        self._weights = self._weights_x = 0.0
        self._squares = self._squares_x = self._squares_xx = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Takes in one value."""
        square = weight * weight
        self.count += 1
        self._weights += weight
        self._weights_x += weight * value
        self._squares += square
        self._squares_x += square * value
        self._squares_xx += square * value * value

    @property
    def value(self) -> float | None:
        """The mean; None of nothing."""
        return self._weights_x / self._weights if self.count else None

    @property
    def error(self) -> float | None:
        """Its standard error; None where there are not two values to tell it from."""
        mean = self.value
        if mean is None or self.count < 2:
            return None
        squares = self._squares_xx - 2.0 * mean * self._squares_x + mean * mean * self._squares
        return math.sqrt(max(0.0, squares)) / self._weights

    @property
    def effective_count(self) -> float:
        """How many values of equal weight it is worth."""
        return self._weights * self._weights / self._squares if self.count else 0.0


class Quantiles:
    """Weighted quantiles of durations of at least 1 ms, within 1 %, in a few hundred bins: those of
    `core.usage.sketch`, but with weights in place of counts."""

    __slots__ = ("_bins",)

    def __init__(self) -> None:
        self._bins: dict[int, float] = {}

    def add(self, duration_ms: float, weight: float = 1.0) -> None:
        """Takes in one duration."""
        index = bin_of(duration_ms)
        self._bins[index] = self._bins.get(index, 0.0) + weight

    def value(self, share: float) -> float | None:
        """The shortest duration such that this share of the weight is no longer; None of nothing."""
        wanted, reached = share * sum(self._bins.values()), 0.0
        index = None
        for index in sorted(self._bins):
            reached += self._bins[index]
            if reached >= wanted:
                break
        return None if index is None else bin_middle(index)


class ObservedOutcomes:
    """Outcomes that were seen: how many succeeded, and how long those took that did."""

    __slots__ = ("quantiles", "success", "time")

    def __init__(self) -> None:
        self.success = Mean()
        self.time = Mean()
        self.quantiles = Quantiles()

    def add(self, success: bool, duration_ms: int | None, weight: float = 1.0) -> None:
        """Takes in one outcome; a failure says nothing about how long success takes."""
        self.success.add(float(success), weight)
        if success and duration_ms is not None:
            self.time.add(duration_ms, weight)
            self.quantiles.add(duration_ms, weight)

    def values(self) -> Values:
        """What they say, under names with units; None where nothing was seen."""
        return {
            "outcomes": self.success.count,
            "effective_outcomes": self.success.effective_count,
            "success_rate": self.success.value,
            "success_rate_error": self.success.error,
            "measured": self.time.count,
            "mean_ms": self.time.value,
            "mean_ms_error": self.time.error,
            "p50_ms": self.quantiles.value(0.5),
            "p99_ms": self.quantiles.value(0.99),
        }
