"""One effect of the regression of durations, and its part of the linear system."""

from array import array
from collections.abc import Sequence

NOISE = 0.4
"""Standard deviation of one residual: measured object stores have 0.1 to 0.5. It matters
only in proportion to the spreads."""

MIN_STEP = 0.003
"""Smaller steps are postponed, so durations are off by up to 0.3 %, a hundredth of one
transfer's noise. A third of it takes twice the rounds."""


def block(slot: int, other: int) -> int:
    """Where the block of two effects begins in the information: three numbers, a (latency ×
    latency), b (latency × throughput) and c (throughput × throughput). The matrix is symmetric, so
    only the rows up to the diagonal are kept, one after the other: 48 effects take 28 KB, where a
    dict of arrays for each took 170 KB."""
    if slot < other:
        slot, other = other, slot
    return 3 * (slot * (slot + 1) // 2 + other)


class Effect:
    """One effect: its means, its gradient, and its `slot`, the number of its row in the information
    matrix that all effects of a backend share."""

    __slots__ = (
        "latency",
        "latency_gradient",
        "precision",
        "slot",
        "throughput",
        "throughput_gradient",
    )

    def __init__(self, spread: float, slot: int) -> None:
        self.precision = (NOISE / spread) ** 2
        self.slot = slot
        self.latency = self.throughput = 0.0
        self.latency_gradient = self.throughput_gradient = 0.0

    def weight(self, information: "array[float]") -> float:
        """The sum of the weights of its outcomes: the shares of each sum to 1."""
        a, b, c = self._own(information)
        return a + 2.0 * b + c

    def variance(
        self, information: "array[float]", latency_share: float, throughput_share: float, decay: float
    ) -> float:
        """The effect's posterior variance at these shares, given the other effects; `decay` is
        the factor by which the sums have decayed."""
        a, b, c = self._own(information)
        a, b, c = a * decay + self.precision, b * decay, c * decay + self.precision
        form = (
            latency_share * latency_share * c
            - 2.0 * latency_share * throughput_share * b
            + throughput_share * throughput_share * a
        )
        return NOISE * NOISE * form / (a * c - b * b)

    def solve(self, information: "array[float]", weight: float, effects: Sequence["Effect"]) -> bool:
        """Moves the means to their optimum given the other effects, and updates the gradients of
        all `effects`, which are ordered by slot. Returns whether they moved; steps below MIN_STEP
        are not taken."""
        prior = self.precision * weight
        a, b, c = self._own(information)
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
        own, start = self.slot, block(self.slot, 0)
        for slot, other in enumerate(effects):
            a, b, c = information[start], information[start + 1], information[start + 2]
            other.latency_gradient -= a * latency_step + b * throughput_step
            other.throughput_gradient -= b * latency_step + c * throughput_step
            # Along the own row, and from its end down the column.
            start += 3 if slot < own else 3 * (slot + 1)
        return True

    def _own(self, information: "array[float]") -> tuple[float, float, float]:
        start = block(self.slot, self.slot)
        return information[start], information[start + 1], information[start + 2]
