"""Weighted factor selection: strategies pick the weights, priorities scale them, rank adds up.

`score = Σ weight × factor` and nothing else: what is reported is what was used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from routing.core.factors import FACTORS
from routing.core.model import Candidate, Query, Ranked
from routing.errors import InvalidArgument, listed

FOCUS_SHARE = 0.62
"""What a one-factor strategy puts on its factor. Below 0.613 the priority `reliability`
could take its majority; near 1 a tie on it would be decided by nothing."""

RELIABILITY_SHARE = 0.30
"""What every one-factor strategy keeps on reliability: the fastest or cheapest backend is
of no use while it fails. Below 0.293 the strategy's own priority would take it under the
contract's 0.2; more would leave nothing for the other factors."""

PRIORITY_SCALE = 1.75
"""How much a priority raises its factor before the weights are renormalised: about as
far as the two shares above allow."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A row of STRATEGIES. `focus` None means the default weights; `draws` says that the
    learned factors are drawn from what is still uncertain about them."""

    name: str
    focus: str | None
    help: str
    draws: bool = False


@dataclass(frozen=True, slots=True)
class Priority:
    """A row of PRIORITIES. `raises` names the factor that it scales up, if any."""

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
"""One weight for each factor in the order of FACTORS, none negative, summing to 1."""


def strategy_named(text: str) -> str:
    """The strategy that a caller's word means; InvalidArgument lists the valid ones."""
    return _named("strategy", text, STRATEGIES, STRATEGY_ALIASES)


def priority_named(text: str) -> str:
    """The priority that a caller's word means; InvalidArgument lists the valid ones."""
    return _named("priority", text, PRIORITIES, PRIORITY_ALIASES)


def _named(field: str, text: str, rows: Mapping[str, object], aliases: Mapping[str, str]) -> str:
    name = aliases.get(text, text)
    if name not in rows:
        words = [*rows, *(alias for alias in aliases if alias)]
        raise InvalidArgument(field, text, f"one of {listed(words)}, or nothing")
    return name


def default_weights(overrides: Mapping[str, float] | None = None) -> Weights:
    """The factors' own weights with some replaced, renormalised to sum to 1.

    InvalidArgument for an unknown factor, a negative weight, or weights that are all 0.

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
    """The weights in force for every (strategy, priority)."""
    return MappingProxyType(
        {
            (strategy.name, priority.name): _raised(_strategy_weights(strategy, defaults), priority)
            for strategy in STRATEGIES.values()
            for priority in PRIORITIES.values()
        }
    )


def scores(query: Query, candidates: Sequence[Candidate], weights: Weights) -> list[float]:
    """The score of each candidate, in their order."""
    return _weighed(query, candidates, weights)[1]


def rank(
    query: Query,
    candidates: Sequence[Candidate],
    weights: Weights,
    *,
    first: str | None = None,
    most: int | None = None,
) -> list[Ranked]:
    """The candidates by falling score, equal scores by backend id; not more than `most`, and
    the one of this name before all others, whatever its score."""
    columns, totals = _weighed(query, candidates, weights)
    rows = sorted(
        zip(
            [-total for total in totals],
            [candidate.backend.id for candidate in candidates],
            zip(*columns, strict=True),
            [candidate.estimate for candidate in candidates],
            strict=True,
        )
    )
    if first is not None:
        rows.sort(key=lambda row: row[1] != first)
    return [Ranked(name, -negated, scores, estimate) for negated, name, scores, estimate in rows[:most]]


def _weighed(
    query: Query, candidates: Sequence[Candidate], weights: Weights
) -> tuple[list[list[float]], list[float]]:
    """By factor, the scores of the candidates; and their weighted sums."""
    # One factor after the other over all candidates: the same sums in the same order as
    # one candidate after the other, in half of the time.
    columns = [of_factor(query, candidates) for of_factor in _SCORES]
    totals = [0.0] * len(candidates)
    for weight, column in zip(weights, columns, strict=True):
        totals = [total + weight * score for total, score in zip(totals, column, strict=True)]
    # Weights sum to 1 up to rounding, and so may the sum of perfect scores.
    return columns, [total if total < 1.0 else 1.0 for total in totals]


def _strategy_weights(strategy: Strategy, defaults: Weights) -> Weights:
    """The default weights, or: the focus, reliability, and the rest shared out among
    the other factors as the factors' own weights stand to each other."""
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


def _raised(weights: Weights, priority: Priority) -> Weights:
    scaled = (
        weight * PRIORITY_SCALE if name == priority.raises else weight
        for name, weight in zip(FACTORS, weights, strict=True)
    )
    return weights if priority.raises is None else _normalised(tuple(scaled))


def _normalised(weights: Weights) -> Weights:
    # Scaling down first keeps the sum finite for weights near the largest float.
    largest = max(weights)
    scaled = [weight / largest for weight in weights]
    total = sum(scaled)
    return tuple(weight / total for weight in scaled)
