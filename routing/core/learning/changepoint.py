"""Change detection: whether a backend's latest outcomes differ from its long-term record.

A backend behaves as its record says, except during a *change*: an outage, a brown-out, a
busy period. Changes begin rarely and end after a while. The detector goes through the
latest outcomes and updates, after each, the probability that no change holds, and for
each outcome so far, the probability that a change holds that began there. The level of
a change is estimated from the outcomes since it began (Adams and MacKay, "Bayesian online
changepoint detection", 2007; here over a few outcomes, and with changes that end). So one
odd outcome is best explained by chance, three by a change.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LATEST_OUTCOMES = 8
"""Outcomes that the detector looks at. A change is clear after two or three; with 12 the
choices are as good, and recording an outcome costs half as much again."""

BEGIN_PROBABILITY = 0.003
BEGIN_HALF_LIFE_S = 8 * 3600.0
"""The probability that a change begins before an outcome: at least BEGIN_PROBABILITY, and
growing with the time since the previous outcome. Three times as much mistakes chance for
changes."""

CHANGE_HALF_LIFE_S = 1800.0
CHANGE_HALF_LIFE_DECISIONS = 50.0
END_PROBABILITY = 0.02
"""The probability that a change has ended: half of all changes last for half an hour, or for
so many decisions after which no outcome of the backend arrives. A shorter half-life tries a
slow backend more often while it is slow; a longer one returns to it later after it has
recovered. Time alone does not do: at thousands of decisions a minute, a backend that was
abandoned would stay so for the day. Mean regret in seven worlds that change, three seeds:
0.068, 0.072 and 0.070 at 50, 100 and 200 decisions; three times END_PROBABILITY leaves it
at 0.072."""

MAX_HALF_LIFE_FACTOR = 3.0
"""A change that has lasted longer is expected to last longer: its half-life is multiplied by 1
plus the number of half-lives that it has lasted, up to this factor. Without, a backend that
is out for a thousand decisions gets one in forty of them. Mean regret in six worlds that
change, four seeds, of `adaptive` and `hybrid`: 0.070 and 0.075 without, 0.068 and 0.074 at 2,
0.068 and 0.073 at 3, 0.069 and 0.075 at 5, where traffic returns later than necessary."""

SHIFT_NOISE = 0.45
"""Standard deviation of a residual around the level of a change: a transfer's own noise, and
what the record has not learned yet."""

OUTLIER_SHARE = 0.02
OUTLIER_NOISE = 2.5
"""The share of transfers that are off by factors of ten although nothing has changed, and the
standard deviation of their residuals."""

PRIOR_SHIFT = (0.0, 1.0)
PRIOR_RATE = (1.0, 1.0)
"""The prior of a change's level: transfers slower or faster by factors up to eight (a normal
distribution), and any rate of success (a uniform beta distribution)."""

MAX_EXPECTED_RATE = 1.0 - 1.0 / 500.0
"""The highest rate of success that a record may predict. Without it, a single failure after a
perfect record would prove a change."""

MIN_HYPOTHESIS_PROBABILITY = 3e-3
"""Less probable hypotheses are dropped. This bounds the work, and how much an outcome that no
hypothesis predicted can revive. It is relative to the rarity of a change: a rare one starts far below
and was dropped before a second outcome could confirm it."""

MIN_CHANGE_PROBABILITY = 0.02
"""Changes less probable than this are ignored. Most backends then have none most of the time,
which keeps a decision among a hundred backends cheap."""


@dataclass(frozen=True, slots=True)
class Change:
    """The probability that a change holds after the latest outcome, which happened `at`, and
    mean and variance of its level: a shift of the logarithm of the duration, or a rate of
    success. `half_life_factor`, in [1, MAX_HALF_LIFE_FACTOR], multiplies its half-life."""

    probability: float = 0.0
    mean: float = 0.0
    variance: float = 0.0
    at: float = 0.0
    half_life_factor: float = 1.0

    def probability_at(self, now: float, decisions_since: float) -> float:
        """The probability that it still holds: without new outcomes it decays with time and
        with the decisions since the last one."""
        half_lives = _half_lives(now - self.at, decisions_since) / self.half_life_factor
        return self.probability * float(2.0**-half_lives)

    def decay_from(self, start: float, now: float) -> "DecayingChange | None":
        """The same, prepared for many decisions from `start` on, which is not later than now;
        None if there is no change."""
        if not self.probability:
            return None
        age_s = start - min(self.at, now)
        half_lives = age_s / CHANGE_HALF_LIFE_S / self.half_life_factor - math.log2(self.probability)
        return DecayingChange(half_lives, self.mean, 1.0 / self.half_life_factor)


class DecayingChange(NamedTuple):
    """A change's level, and in how many half-lives its probability has decayed from 1 until
    `start`. Later its probability is 2^-(half_lives + pace × (seconds since start /
    CHANGE_HALF_LIFE_S + decisions since the last outcome / CHANGE_HALF_LIFE_DECISIONS))."""

    half_lives: float
    level: float
    pace: float


UNCHANGED = Change()

Level = tuple[float, float]
"""The distribution of a change's level: mean and variance of a normal distribution, or the two
parameters of a beta distribution."""

Hypothesis = tuple[float, Level, float]
"""A change that began at one of the outcomes: its probability, its level, and an age in
half-lives (with a half-life factor of 1)."""

Update = Callable[[Level, float], tuple[float, Level]]
"""The likelihood of an outcome at a level, and the level's posterior after it."""


def detect_speed_change(
    times: Sequence[float],
    decisions_since: Sequence[float],
    residuals: Sequence[float],
    *,
    rarity: float = 1.0,
) -> Change:
    """The change of speed seen in the latest transfers, oldest first.

    `residuals` are what the record does not explain of the logarithms of their durations.
    `decisions_since` are, for each, the server's decisions since the backend's previous outcome.
    `rarity` multiplies the probability that a change begins.
    """
    expected = [_update_shift((0.0, 0.0), residual)[0] for residual in residuals]
    hypotheses = _hypotheses(times, decisions_since, residuals, expected, PRIOR_SHIFT, _update_shift, rarity)
    return _combined(hypotheses, times[-1])


def detect_success_change(
    times: Sequence[float],
    decisions_since: Sequence[float],
    successes: Sequence[float],
    rate: float,
    *,
    rarity: float = 1.0,
) -> Change:
    """The change of the success rate seen in the latest outcomes (1 or 0), oldest first, where
    the record predicts `rate`."""
    rate = min(rate, MAX_EXPECTED_RATE)
    expected = [rate if success else 1.0 - rate for success in successes]
    hypotheses = _hypotheses(times, decisions_since, successes, expected, PRIOR_RATE, _update_rate, rarity)
    return _combined(
        [(probability, beta_moments(*level), age) for probability, level, age in hypotheses], times[-1]
    )


def _hypotheses(
    times: Sequence[float],
    decisions_since: Sequence[float],
    outcomes: Sequence[float],
    expected: Sequence[float],
    prior: Level,
    update: Update,
    rarity: float,
) -> list[Hypothesis]:
    """The changes that may hold after the last outcome; `expected` is the likelihood of each
    outcome where no change holds."""
    no_change = 1.0
    hypotheses: list[Hypothesis] = []
    previous_at = times[0]
    # In half-lives since the first outcome.
    clock = 0.0
    rows = zip(times, decisions_since, outcomes, expected, strict=True)
    for at, decisions, outcome, expected_likelihood in rows:
        age_s, previous_at = at - previous_at, at
        begin = rarity * (1.0 - (1.0 - BEGIN_PROBABILITY) * _decay(age_s, BEGIN_HALF_LIFE_S))
        half_lives = _half_lives(age_s, decisions)
        likelihood, level = update(prior, outcome)
        updated = [(no_change * begin * likelihood, level, clock + half_lives)]
        no_change *= 1.0 - begin
        for probability, level, began in hypotheses:
            # As `_half_life_factor`, without its call: this is the innermost loop of an outcome.
            age = clock - began
            factor = 1.0 + age if age < MAX_HALF_LIFE_FACTOR - 1.0 else MAX_HALF_LIFE_FACTOR
            lasting = probability * (1.0 - END_PROBABILITY) * 2.0 ** (-half_lives / factor)
            no_change += probability - lasting
            likelihood, level = update(level, outcome)
            updated.append((lasting * likelihood, level, began))
        clock += half_lives
        no_change *= expected_likelihood
        total = no_change + sum([weight for weight, _, _ in updated])
        no_change /= total
        hypotheses = [
            (weight / total, level, began)
            for weight, level, began in updated
            if weight > MIN_HYPOTHESIS_PROBABILITY * rarity * total
        ]
    return [(probability, level, clock - began) for probability, level, began in hypotheses]


def _update_shift(level: Level, residual: float) -> tuple[float, Level]:
    mean, variance = level
    total_variance = variance + SHIFT_NOISE * SHIFT_NOISE
    error = residual - mean
    gain = variance / total_variance
    density = math.exp(-0.5 * error * error / total_variance)
    regular = (1.0 - OUTLIER_SHARE) * density / math.sqrt(total_variance)
    outlier = OUTLIER_SHARE / OUTLIER_NOISE * math.exp(-0.5 * (residual / OUTLIER_NOISE) ** 2)
    return regular + outlier, (mean + gain * error, variance * (1.0 - gain))


def _update_rate(level: Level, success: float) -> tuple[float, Level]:
    good, bad = level
    if success:
        return good / (good + bad), (good + 1.0, bad)
    return bad / (good + bad), (good, bad + 1.0)


def beta_moments(good: float, bad: float) -> Level:
    """Mean and variance of a beta distribution."""
    count = good + bad
    return good / count, good * bad / (count * count * (count + 1.0))


def _combined(hypotheses: Sequence[Hypothesis], at: float) -> Change:
    """All hypotheses as one change, whose level is that of the mixture."""
    probability = sum([weight for weight, _, _ in hypotheses])
    if probability < MIN_CHANGE_PROBABILITY:
        return UNCHANGED
    mean = sum([weight * level[0] for weight, level, _ in hypotheses]) / probability
    variance = sum([weight * (level[1] + (level[0] - mean) ** 2) for weight, level, _ in hypotheses])
    age = sum([weight * age for weight, _, age in hypotheses]) / probability
    # The weights sum to 1 only up to rounding.
    return Change(min(1.0, probability), mean, variance / probability, at, _half_life_factor(age))


def _half_life_factor(age: float) -> float:
    """By how much the half-life of a change of this age, in half-lives, is longer than a new one's."""
    return min(MAX_HALF_LIFE_FACTOR, 1.0 + age)


def _half_lives(age_s: float, decisions: float) -> float:
    return max(age_s, 0.0) / CHANGE_HALF_LIFE_S + decisions / CHANGE_HALF_LIFE_DECISIONS


def _decay(age_s: float, half_life_s: float) -> float:
    return float(2.0 ** (-age_s / half_life_s)) if age_s > 0.0 else 1.0
