"""How uncertain the estimate for one backend is: its spreads, and draws from it."""

import math
from random import Random

from routing.core.learning.changepoint import Change, beta_moments
from routing.core.learning.context import Context
from routing.core.learning.history import BackendHistory
from routing.core.learning.regression import Effects
from routing.core.model import Backend

MIN_END_PROBABILITY = 0.02
"""At least this share of draws assumes that a change has ended. So its end is noticed within
some hundred draws, at a thousand decisions a second as at one a minute."""

CONVINCING_TRANSFERS = 3
IGNORED_SHARE = 0.3
"""While a backend has fewer transfers than this, this share of its draws ignores them: one odd
transfer is weak evidence, three are not. Without, a new backend whose first transfer was odd
may wait for a thousand decisions (regret 0.36 in one world of five). With 1.0, regret is the
same where new backends appear and higher by 0.01 where nothing changes; drawing for such
backends in every decision costs 0.02 where profiles are wrong."""

MIN_DRAWN_RATE = 1e-3
"""A success rate is drawn from a normal distribution with the posterior's mean and variance,
and kept this far inside (0, 1); a draw from the beta distribution takes five times as long."""


class Posterior:
    """The belief about one request to one backend, `throughput_share` of whose promised duration
    depends on throughput, after the server's `decisions` so far."""

    def __init__(
        self,
        history: BackendHistory,
        backend: Backend,
        context: Context,
        throughput_share: float,
        decisions: int,
        now: float,
    ) -> None:
        self.learned = history.context_estimate(backend, context, now)
        self._history = history
        self._backend = backend
        self._context = context
        self._throughput_share = throughput_share
        self._decisions = decisions
        self._now = now

    def spreads(self) -> tuple[float, float]:
        """The standard deviations of the natural logarithm of the duration, and of the probability
        of success."""
        speed = self._history.speed
        variance = speed.effects.variance(self._context, self._throughput_share, now=self._now)
        belief = speed.doubt.belief(self._now, self._decisions)
        if belief < 1.0:
            correction = speed.effects.total(self._context, self._throughput_share)
            prior = Effects().variance(self._context, self._throughput_share, now=self._now)
            variance = belief * variance + (1.0 - belief) * (prior + belief * correction * correction)
        change, probability = self._speed_change()
        variance += probability * (change.variance + (1.0 - probability) * change.mean**2)
        mean, rate_variance = self._rate()
        change, probability = self._success_change()
        rate_variance += probability * (
            change.variance - rate_variance + (1.0 - probability) * (change.mean - mean) ** 2
        )
        return math.sqrt(variance), math.sqrt(rate_variance)

    def draw(self, load: float, random: Random) -> tuple[float, float]:
        """A correction of the promised duration's logarithm, and a probability of success in (0, 1)."""
        speed = self._history.speed
        belief = speed.doubt.belief(self._now, self._decisions)
        if 0 < len(speed.transfers) < CONVINCING_TRANSFERS and random.random() < IGNORED_SHARE:
            belief = 0.0
        effects = speed.effects if random.random() < belief else Effects()
        correction = effects.total(self._context, self._throughput_share, load) + self.learned.log_mean
        variance = effects.variance(self._context, self._throughput_share, now=self._now)
        change, probability = self._speed_change()
        if _draw_change(probability, random):
            correction += change.mean
            variance += change.variance
        change, probability = self._success_change()
        if _draw_change(probability, random):
            rate, rate_variance = change.mean, change.variance
        else:
            rate, rate_variance = self._rate()
        rate = random.gauss(rate, math.sqrt(rate_variance))
        return (
            random.gauss(correction, math.sqrt(variance)),
            min(max(rate, MIN_DRAWN_RATE), 1.0 - MIN_DRAWN_RATE),
        )

    def _rate(self) -> tuple[float, float]:
        """Mean and variance of the probability of success by the records alone."""
        mean, variance = beta_moments(*self._history.success.beta(self._backend, self._now))
        return mean * self._history.kinds.success_rate(self._context[1:], self._now), variance

    def _speed_change(self) -> tuple[Change, float]:
        """The change of speed that counts here, and its probability now."""
        kind = None if self.learned.changes is None else self.learned.changes.speed_kind
        if kind is not None:
            return kind.speed_change, kind.speed_change.probability_at(self._now, kind.decisions_since)
        return self._with_probability(self._history.speed.change)

    def _success_change(self) -> tuple[Change, float]:
        """The change of success that counts here, and its probability now."""
        kind = None if self.learned.changes is None else self.learned.changes.success_kind
        if kind is not None:
            return kind.success_change, kind.success_change.probability_at(self._now, kind.decisions_since)
        return self._with_probability(self._history.success.change(self._backend))

    def _with_probability(self, change: Change) -> tuple[Change, float]:
        decisions_since = self._decisions - self._history.decisions_then
        return change, change.probability_at(self._now, decisions_since)


def _draw_change(probability: float, random: Random) -> bool:
    """Draws whether a change of this probability holds now."""
    return probability > 0.0 and random.random() < min(probability, 1.0 - MIN_END_PROBABILITY)
