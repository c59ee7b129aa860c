"""One effect of the regression of durations, and its part of the linear system."""

from array import array
from collections.abc import Mapping

NOISE = 0.4
"""Standard deviation of one residual: measured object stores have 0.1 to 0.5. It matters
only in proportion to the spreads."""

MIN_STEP = 0.003
"""Smaller steps are postponed, so durations are off by up to 0.3 %, a hundredth of one
transfer's noise. A third of it takes twice the rounds."""


class Effect:
    """One effect: its means, its gradient and its rows of the information matrix.

    `information` has, for each effect that occurred in the same outcomes (and for itself),
    the three distinct entries a (latency × latency), b (latency × throughput) and c
    (throughput × throughput), in an array that both effects share. These are most of the
    learned state, and an array takes half the memory of a list.
    """

    __slots__ = (
        "information",
        "latency",
        "latency_gradient",
        "precision",
        "throughput",
        "throughput_gradient",
    )

    def __init__(self, spread: float) -> None:
        self.precision = (NOISE / spread) ** 2
        self.latency = self.throughput = 0.0
        self.latency_gradient = self.throughput_gradient = 0.0
        self.information: dict[str, array[float]] = {}

    def weight(self, name: str) -> float:
        """The sum of the weights of its outcomes: the shares of each sum to 1."""
        a, b, c = self.information[name]
        return a + 2.0 * b + c

    def variance(self, name: str, latency_share: float, throughput_share: float, decay: float) -> float:
        """The effect's posterior variance at these shares, given the other effects; `decay` is
        the factor by which the sums have decayed."""
        a, b, c = self.information[name]
        a, b, c = a * decay + self.precision, b * decay, c * decay + self.precision
        form = (
            latency_share * latency_share * c
            - 2.0 * latency_share * throughput_share * b
            + throughput_share * throughput_share * a
        )
        return NOISE * NOISE * form / (a * c - b * b)

    def solve(self, name: str, weight: float, others: Mapping[str, "Effect"]) -> bool:
        """Moves the means to their optimum given the other effects, and updates all gradients.
        Returns whether they moved; steps below MIN_STEP are not taken."""
        prior = self.precision * weight
        a, b, c = self.information[name]
        a, c = a + prior, c + prior
        latency_pull = self.latency_gradient - prior * self.latency
        throughput_pull = self.throughput_gradient - prior * self.throughput
        scale = 1.0 / (a * c - b * b)
        latency_step = (c * latency_pull - b * throughput_pull) * scale
        throughput_step = (a * throughput_pull - b * latency_pull) * scale
        if abs(latency_step) + abs(throughput_step) < MIN_STEP:
            return False
        self.latency += latency_step
        self.throughput += throughput_step
        for other_name, (a, b, c) in self.information.items():
            other = others[other_name]
            other.latency_gradient -= a * latency_step + b * throughput_step
            other.throughput_gradient -= b * latency_step + c * throughput_step
        return True
