"""Weighted estimates from observed outcomes: means with standard errors, and quantiles.

With weights w and values x, a mean is Σwx / Σw. The weight of a value that was observed with
probability p is 1/p: self-normalised importance sampling. The standard error is
√(Σw²(x − mean)²) / Σw, and the effective number of outcomes is (Σw)² / Σw² (Owen, "Monte Carlo
theory, methods and examples", 2013, chapter 9, artowen.su.domains/mc). With equal weights these
are the plain mean, its standard error and the count.
"""

import math

from routing.core.usage.sketch import bin_middle, bin_of

Values = dict[str, float | int | None]


class Mean:
    """A weighted mean with its standard error."""

    __slots__ = ("_squares", "_squares_x", "_squares_xx", "_weights", "_weights_x", "count")

    def __init__(self) -> None:
        self.count = 0
        self._weights = self._weights_x = 0.0
        self._squares = self._squares_x = self._squares_xx = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Adds a value."""
        square = weight * weight
        self.count += 1
        self._weights += weight
        self._weights_x += weight * value
        self._squares += square
        self._squares_x += square * value
        self._squares_xx += square * value * value

    @property
    def value(self) -> float | None:
        """The mean; None without values."""
        return self._weights_x / self._weights if self.count else None

    @property
    def error(self) -> float | None:
        """The standard error; None with fewer than two values."""
        mean = self.value
        if mean is None or self.count < 2:
            return None
        squares = self._squares_xx - 2.0 * mean * self._squares_x + mean * mean * self._squares
        return math.sqrt(max(0.0, squares)) / self._weights

    @property
    def effective_count(self) -> float:
        """Number of equally weighted values with the same standard error."""
        return self._weights * self._weights / self._squares if self.count else 0.0


class Quantiles:
    """Weighted quantiles of durations of at least 1 ms, within 1 %, in a few hundred bins: a sketch
    like `core.usage.sketch`, with weights in place of counts."""

    __slots__ = ("_bins",)

    def __init__(self) -> None:
        self._bins: dict[int, float] = {}

    def add(self, duration_ms: float, weight: float = 1.0) -> None:
        """Adds a duration."""
        index = bin_of(duration_ms)
        self._bins[index] = self._bins.get(index, 0.0) + weight

    def value(self, share: float) -> float | None:
        """The smallest duration with this share of the weight at or below it; None without values."""
        wanted, reached = share * sum(self._bins.values()), 0.0
        index = None
        for index in sorted(self._bins):
            reached += self._bins[index]
            if reached >= wanted:
                break
        return None if index is None else bin_middle(index)


class ObservedOutcomes:
    """Success rate of observed outcomes, and the durations of the successful ones."""

    __slots__ = ("quantiles", "success", "time")

    def __init__(self) -> None:
        self.success = Mean()
        self.time = Mean()
        self.quantiles = Quantiles()

    def add(self, success: bool, duration_ms: int | None, weight: float = 1.0) -> None:
        """Adds an outcome; durations of failures are ignored."""
        self.success.add(float(success), weight)
        if success and duration_ms is not None:
            self.time.add(duration_ms, weight)
            self.quantiles.add(duration_ms, weight)

    def values(self) -> Values:
        """The estimates by name; None without outcomes."""
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
