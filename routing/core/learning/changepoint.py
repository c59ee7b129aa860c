"""Whether something has changed lately: what a backend's latest outcomes show.

A backend is as its long record says, except while it is in a *condition*: an outage, a
brown-out, a busy spell. Conditions begin now and then, and end after a while. One goes
through the latest outcomes and weighs, after each, how probable it is that no condition
holds, and for each outcome so far, that one holds which began there; what a condition is
like is learned from the outcomes since it began (Adams and MacKay, "Bayesian online
changepoint detection", 2007, over a few outcomes, and with a way back). One odd outcome
is then better explained by bad luck, and three by a change.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LATEST = 8
"""Outcomes kept. A change is clear after two or three; with 12 the choices are as good
and an outcome costs half as much again to take in."""

BEGIN_PER_OUTCOME = 0.003
BEGIN_HALF_LIFE_S = 8 * 3600.0
"""How likely a condition is to begin before an outcome: a little at least, and the more
the longer nothing was heard. Three times as much takes bad luck for changes."""

CONDITION_HALF_LIFE_S = 1800.0
CONDITION_HALF_LIFE_DECISIONS = 50.0
END_PER_OUTCOME = 0.02
"""How likely it is to have ended: half of them last for half an hour, or for so many decisions
of which none brought word. Shorter tries a slow backend more often while it is slow; longer
comes back later when it is well. Time alone would not do: where thousands of decisions fall
in a minute, a backend that was left would stay so for the day. Mean regret in seven worlds
that change, three seeds: 0.068, 0.072 and 0.070 at 50, 100 and 200 decisions; and three times
END_PER_OUTCOME leaves it at 0.072."""

MOST_PATIENCE = 3.0
"""What has lasted for long is given longer: a condition's half-life grows by the half-lives that
it has lasted for, up to so many times. Without, a backend that is out for a thousand decisions
gets one in forty of them. Mean regret in six worlds that change, four seeds, of `adaptive` and
`hybrid`: 0.070 and 0.075 without, 0.068 and 0.074 at 2, 0.068 and 0.073 at 3, 0.069 and 0.075
at 5, where traffic comes back later than need be."""

SHIFT_NOISE = 0.45
"""Standard deviation of a residual around its level: a transfer's own noise, and what the
record has not learned yet."""

ODD_SHARE = 0.02
ODD_NOISE = 2.5
"""Some transfers are odd without anything having changed, by factors of ten."""

FRESH_SHIFT = (0.0, 1.0)
FRESH_RATE = (1.0, 1.0)
"""What a condition may be like: transfers slower or faster by factors up to eight, and any
rate of success."""

RECORD_WORTH = 500.0
"""No record is trusted further than one failure in so many outcomes, or a single failure
would prove a change."""

NEGLIGIBLE = 3e-3
"""A hypothesis less probable than this is dropped. It bounds the work, and what an outcome
that nobody expected can revive."""

LEAST_PROBABILITY = 0.02
"""A condition less probable than this is taken for none: most backends are then in none most
of the time, and a decision among a hundred need not ask how each has faded."""


@dataclass(frozen=True, slots=True)
class Change:
    """How probable it is that a condition held at the latest outcome, `at`, and mean and
    variance of its level: a shift of the logarithm of the time, or a rate of success; and how
    many half-lives one is of it, in [1, MOST_PATIENCE]."""

    probability: float = 0.0
    mean: float = 0.0
    variance: float = 0.0
    at: float = 0.0
    patience: float = 1.0

    def held(self, now: float, unheard: float) -> float:
        """How probable it is that it holds now: without news it is ever less, with time and with
        decisions since then."""
        return self.probability * float(2.0 ** (-_halvings(now - self.at, unheard) / self.patience))

    def fading(self, then: float, now: float) -> "Fading | None":
        """The same for many decisions, from `then` on, which is no later than now; None where no
        condition holds."""
        if not self.probability:
            return None
        age_s = then - min(self.at, now)
        halvings = age_s / CONDITION_HALF_LIFE_S / self.patience - math.log2(self.probability)
        return Fading(halvings, self.mean, 1.0 / self.patience)


class Fading(NamedTuple):
    """A condition's level, and how often the probability that it holds has halved since it was
    1: held = 2^-(halvings + pace × (seconds since / CONDITION_HALF_LIFE_S + unheard /
    CONDITION_HALF_LIFE_DECISIONS))."""

    halvings: float
    level: float
    pace: float


UNCHANGED = Change()

Level = tuple[float, float]
"""What is known of a condition's level: mean and variance of a normal distribution, or the
two parameters of a beta distribution."""

Held = tuple[float, Level, float]
"""A condition that may hold: how probable it is, its level, and for how many half-lives of a
young one it has lasted."""

Known = Callable[[Level, float], tuple[float, Level]]
"""How likely an outcome is at this level, and the level as it is known after it."""


def speed_change(times: Sequence[float], unheard: Sequence[float], residuals: Sequence[float]) -> Change:
    """From what the record does not explain of the latest transfers, oldest first.

    `unheard` are the decisions before each, since the outcome before it.
    """
    usual = [_shifted((0.0, 0.0), residual)[0] for residual in residuals]
    weights = _filtered(times, unheard, residuals, usual, FRESH_SHIFT, _shifted)
    return _summed(weights, times[-1])


def success_change(
    times: Sequence[float], unheard: Sequence[float], successes: Sequence[float], rate: float
) -> Change:
    """From the latest outcomes (1 or 0), oldest first, where the record expects this rate."""
    rate = min(rate, 1.0 - 1.0 / RECORD_WORTH)
    usual = [rate if success else 1.0 - rate for success in successes]
    weights = _filtered(times, unheard, successes, usual, FRESH_RATE, _succeeded)
    return _summed([(weight, moments(*level), age) for weight, level, age in weights], times[-1])


def _filtered(
    times: Sequence[float],
    unheard: Sequence[float],
    outcomes: Sequence[float],
    usual: Sequence[float],
    fresh: Level,
    known: Known,
) -> list[Held]:
    """The conditions that may hold after the last outcome; `usual` is how likely each outcome
    is where none holds."""
    calm = 1.0
    held: list[Held] = []
    before = times[0]
    age = 0.0
    for at, decisions, outcome, likely in zip(times, unheard, outcomes, usual, strict=True):
        begin = 1.0 - (1.0 - BEGIN_PER_OUTCOME) * _fade(at - before, BEGIN_HALF_LIFE_S)
        halvings = _halvings(at - before, decisions)
        before = at
        likelihood, level = known(fresh, outcome)
        after = [(calm * begin * likelihood, level, age + halvings)]
        calm *= 1.0 - begin
        for weight, level, begun in held:
            lasts = (1.0 - END_PER_OUTCOME) * 2.0 ** (-halvings / _patience(age - begun))
            calm += weight * (1.0 - lasts)
            likelihood, level = known(level, outcome)
            after.append((weight * lasts * likelihood, level, begun))
        age += halvings
        calm *= likely
        total = calm + sum([weight for weight, _, _ in after])
        calm /= total
        held = [
            (weight / total, level, begun) for weight, level, begun in after if weight > NEGLIGIBLE * total
        ]
    return [(weight, level, age - begun) for weight, level, begun in held]


def _shifted(level: Level, residual: float) -> tuple[float, Level]:
    mean, variance = level
    all_variance = variance + SHIFT_NOISE * SHIFT_NOISE
    off = residual - mean
    share = variance / all_variance
    regular = (1.0 - ODD_SHARE) * math.exp(-0.5 * off * off / all_variance) / math.sqrt(all_variance)
    odd = ODD_SHARE / ODD_NOISE * math.exp(-0.5 * (residual / ODD_NOISE) ** 2)
    return regular + odd, (mean + share * off, variance * (1.0 - share))


def _succeeded(level: Level, success: float) -> tuple[float, Level]:
    good, bad = level
    if success:
        return good / (good + bad), (good + 1.0, bad)
    return bad / (good + bad), (good, bad + 1.0)


def moments(good: float, bad: float) -> Level:
    """Mean and variance of a beta distribution."""
    count = good + bad
    return good / count, good * bad / (count * count * (count + 1.0))


def _summed(held: Sequence[Held], at: float) -> Change:
    """All conditions as one."""
    probability = sum([weight for weight, _, _ in held])
    if probability < LEAST_PROBABILITY:
        return UNCHANGED
    mean = sum([weight * level[0] for weight, level, _ in held]) / probability
    variance = sum([weight * (level[1] + (level[0] - mean) ** 2) for weight, level, _ in held])
    age = sum([weight * age for weight, _, age in held]) / probability
    # Weights sum to 1 up to rounding.
    return Change(min(1.0, probability), mean, variance / probability, at, _patience(age))


def _patience(age: float) -> float:
    """How many half-lives one is of a condition that has lasted for so many."""
    return min(MOST_PATIENCE, 1.0 + age)


def _halvings(age_s: float, decisions: float) -> float:
    return max(age_s, 0.0) / CONDITION_HALF_LIFE_S + decisions / CONDITION_HALF_LIFE_DECISIONS


def _fade(age_s: float, half_life_s: float) -> float:
    return float(2.0 ** (-age_s / half_life_s)) if age_s > 0.0 else 1.0
