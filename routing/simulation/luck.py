"""Chance that no choice can change: the same for every policy (common random numbers)."""

from random import Random
from typing import NamedTuple


class Luck(NamedTuple):
    """What would befall this request on this backend. `spread` is a standard normal number,
    the others lie evenly in [0, 1)."""

    spread: float
    stall: float
    stalled: float
    failure: float
    failed_at: float


def luck(seed: str, request: int, backend_id: str) -> Luck:
    """Drawn from the three names alone, whatever was drawn before.

    >>> luck("0", 7, "s3") == luck("0", 7, "s3"), luck("0", 7, "s3") == luck("0", 8, "s3")
    (True, False)
    """
    dice = Random(f"{seed}/{request}/{backend_id}")
    return Luck(dice.gauss(0.0, 1.0), *(dice.random() for _ in range(4)))
