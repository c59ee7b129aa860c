"""Weighted scoring: a strategy picks the weights, a priority scales one, `rank` adds up.

`score = Σ weight × factor` and nothing else: the reported factors are those that were used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from routing.core.factors import FACTORS
from routing.core.model import Candidate, Query, Ranked
from routing.errors import InvalidArgument, listed

FOCUS_SHARE = 0.62
"""The weight of a one-factor strategy's factor. Below 0.613 the priority `reliability` could
take its majority; near 1 nothing would decide a tie on it."""

RELIABILITY_SHARE = 0.30
"""The weight of reliability in every one-factor strategy: the fastest or cheapest backend is of
no use while it fails. Below 0.293 the strategy's own priority would push it under the
contract's 0.2; more would leave nothing for the other factors."""

PRIORITY_SCALE = 1.75
"""The factor by which a priority multiplies its weight before the weights are normalised: about
as large as the two shares above allow."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A row of STRATEGIES. `focus` None means the default weights; with `draws` the estimates
    are drawn from their posterior, so that uncertain backends are tried."""

    name: str
    focus: str | None
    help: str
    draws: bool = False


@dataclass(frozen=True, slots=True)
class Priority:
    """A row of PRIORITIES. `raises` is the factor whose weight it multiplies, if any."""

    name: str
    raises: str | None
    help: str


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        row.name: row
        for row in (
            Strategy("hybrid", None, "the default weights"),
            Strategy("performance", "performance", "the fastest"),
            Strategy("cost", "cost", "the cheapest"),
            Strategy("reliability", "reliability", "the safest"),
            Strategy("geographic", "geo_proximity", "the nearest"),
            Strategy("content_type", "content_affinity", "the one that suits the type best"),
            Strategy("adaptive", None, "the default weights, and tries what is little known", draws=True),
        )
    }
)

PRIORITIES: Mapping[str, Priority] = MappingProxyType(
    {
        row.name: row
        for row in (
            Priority("balanced", None, "the strategy's own weights"),
            Priority("performance", "performance", f"performance counts {PRIORITY_SCALE:g} times"),
            Priority("cost", "cost", f"cost counts {PRIORITY_SCALE:g} times"),
            Priority("reliability", "reliability", f"reliability counts {PRIORITY_SCALE:g} times"),
            Priority("geographic", "geo_proximity", f"nearness counts {PRIORITY_SCALE:g} times"),
        )
    }
)

STRATEGY_ALIASES: Mapping[str, str] = MappingProxyType({"": "hybrid", "optimal": "hybrid"})
PRIORITY_ALIASES: Mapping[str, str] = MappingProxyType({"": "balanced"})

_SCORES = tuple(factor.scores for factor in FACTORS.values())

Weights = tuple[float, ...]
"""One weight for each factor, in the order of FACTORS; none is negative, they sum to 1."""


def strategy_named(text: str) -> str:
    """The name of the strategy that a caller asks for; InvalidArgument lists the valid ones."""
    return _named("strategy", text, STRATEGIES, STRATEGY_ALIASES)


def priority_named(text: str) -> str:
    """The name of the priority that a caller asks for; InvalidArgument lists the valid ones."""
    return _named("priority", text, PRIORITIES, PRIORITY_ALIASES)


def _named(field: str, text: str, rows: Mapping[str, object], aliases: Mapping[str, str]) -> str:
    name = aliases.get(text, text)
    if name not in rows:
        words = [*rows, *(alias for alias in aliases if alias)]
        raise InvalidArgument(field, text, f"one of {listed(words)}, or nothing")
    return name


def default_weights(overrides: Mapping[str, float] | None = None) -> Weights:
    """The factors' default weights with some replaced, normalised to sum to 1.

    Raises InvalidArgument for an unknown factor, a negative weight, or weights that are all 0.

    >>> default_weights({"performance": 0.4})[0]
    0.36363636363636365
    """
    overrides = overrides or {}
    for name, weight in overrides.items():
        if name not in FACTORS:
            raise InvalidArgument("weights", name, f"one of {listed(FACTORS)}")
        if not 0.0 <= weight < float("inf"):
            raise InvalidArgument(f"weights.{name}", weight, "a finite number, 0 or more")
    weights = tuple(float(overrides.get(name, factor.weight)) for name, factor in FACTORS.items())
    if not any(weights):
        raise InvalidArgument("weights", dict(overrides), "at least one weight above 0")
    return _normalised(weights)


def weight_table(defaults: Weights) -> Mapping[tuple[str, str], Weights]:
    """The weights for every (strategy, priority)."""
    return MappingProxyType(
        {
            (strategy.name, priority.name): _with_priority(_strategy_weights(strategy, defaults), priority)
            for strategy in STRATEGIES.values()
            for priority in PRIORITIES.values()
        }
    )


def scores(query: Query, candidates: Sequence[Candidate], weights: Weights) -> list[float]:
    """The score of each candidate, in the order of the candidates."""
    return _weighted(query, candidates, weights)[1]


def rank(
    query: Query,
    candidates: Sequence[Candidate],
    weights: Weights,
    *,
    first: str | None = None,
    after: Mapping[str, int] = MappingProxyType({}),
    limit: int | None = None,
) -> list[Ranked]:
    """The candidates by descending score, equal scores by backend id; at most `limit`. Whatever
    their scores, the backend `first` comes before all others, and those in `after` come after
    the others, a greater number after a smaller one."""
    columns, totals = _weighted(query, candidates, weights)
    rows = sorted(
        zip(
            [-total for total in totals],
            [candidate.backend.id for candidate in candidates],
            zip(*columns, strict=True),
            [candidate.estimate for candidate in candidates],
            strict=True,
        )
    )
    if after:
        rows.sort(key=lambda row: after.get(row[1], 0))
    if first is not None:
        rows.sort(key=lambda row: row[1] != first)
    return [Ranked(name, -negated, scores, estimate) for negated, name, scores, estimate in rows[:limit]]


def _weighted(
    query: Query, candidates: Sequence[Candidate], weights: Weights
) -> tuple[list[list[float]], list[float]]:
    """For each factor the scores of the candidates; and for each candidate their weighted sum."""
    # Column by column takes half the time of candidate by candidate, and adds in the same order.
    columns = [scores_of_factor(query, candidates) for scores_of_factor in _SCORES]
    totals = [0.0] * len(candidates)
    for weight, column in zip(weights, columns, strict=True):
        totals = [total + weight * score for total, score in zip(totals, column, strict=True)]
    # Weights sum to 1 only up to rounding, so perfect scores may sum to a little more.
    return columns, [total if total < 1.0 else 1.0 for total in totals]


def _strategy_weights(strategy: Strategy, defaults: Weights) -> Weights:
    """The default weights; or the focus, reliability, and the rest divided among the other
    factors in proportion to their default weights."""
    if strategy.focus is None:
        return defaults
    others = {
        name: factor.weight for name, factor in FACTORS.items() if name not in (strategy.focus, "reliability")
    }
    rest = (1.0 - FOCUS_SHARE - RELIABILITY_SHARE) / sum(others.values())
    shares = {name: weight * rest for name, weight in others.items()}
    shares["reliability"] = RELIABILITY_SHARE
    shares[strategy.focus] = shares.get(strategy.focus, 0.0) + FOCUS_SHARE
    return _normalised(tuple(shares[name] for name in FACTORS))


def _with_priority(weights: Weights, priority: Priority) -> Weights:
    if priority.raises is None:
        return weights
    scaled = (
        weight * PRIORITY_SCALE if name == priority.raises else weight
        for name, weight in zip(FACTORS, weights, strict=True)
    )
    return _normalised(tuple(scaled))


def _normalised(weights: Weights) -> Weights:
    # Scaling down first keeps the sum finite for weights near the largest float.
    largest = max(weights)
    scaled = [weight / largest for weight in weights]
    total = sum(scaled)
    return tuple(weight / total for weight in scaled)
