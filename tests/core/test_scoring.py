"""The weights of every strategy and priority, and how candidates are ordered by them."""

from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.factors import FACTORS
from routing.core.model import Backend, Candidate, Query
from routing.core.scoring import (
    PRIORITIES,
    STRATEGIES,
    Weights,
    default_weights,
    priority_named,
    rank,
    strategy_named,
    weight_table,
)
from routing.errors import InvalidArgument
from support.makers import candidate

DEFAULTS = default_weights()
TABLE = weight_table(DEFAULTS)
FOCUSED = [strategy for strategy in STRATEGIES.values() if strategy.focus]


def named(weights: Weights) -> dict[str, float]:
    return dict(zip(FACTORS, weights, strict=True))


# --- names ---


def test_the_strategies_and_priorities_are_the_contracts() -> None:
    assert list(STRATEGIES) == [
        "hybrid",
        "performance",
        "cost",
        "reliability",
        "geographic",
        "content_type",
        "adaptive",
    ]
    assert list(PRIORITIES) == ["balanced", "performance", "cost", "reliability", "geographic"]
    assert {row.name: row.focus for row in STRATEGIES.values()} == {
        "hybrid": None,
        "adaptive": None,
        "performance": "performance",
        "cost": "cost",
        "reliability": "reliability",
        "geographic": "geo_proximity",
        "content_type": "content_affinity",
    }
    assert [row.name for row in STRATEGIES.values() if row.draws] == ["adaptive"]


@pytest.mark.parametrize(("text", "name"), [("", "hybrid"), ("optimal", "hybrid"), ("cost", "cost")])
def test_no_strategy_and_optimal_mean_hybrid(text: str, name: str) -> None:
    assert strategy_named(text) == name


@pytest.mark.parametrize(("text", "name"), [("", "balanced"), ("balanced", "balanced"), ("cost", "cost")])
def test_no_priority_means_balanced(text: str, name: str) -> None:
    assert priority_named(text) == name


@pytest.mark.parametrize("text", ["fastest", "Hybrid", " cost", "content_type "])
def test_an_unknown_strategy_is_refused_with_the_valid_ones(text: str) -> None:
    with pytest.raises(InvalidArgument, match="strategy") as caught:
        strategy_named(text)
    assert all(name in caught.value.message for name in (*STRATEGIES, "optimal"))


@pytest.mark.parametrize("text", ["optimal", "hybrid", "content_type"])
def test_an_unknown_priority_is_refused_with_the_valid_ones(text: str) -> None:
    with pytest.raises(InvalidArgument, match="priority") as caught:
        priority_named(text)
    assert all(name in caught.value.message for name in PRIORITIES)


# --- weights ---


def test_there_are_weights_for_every_strategy_and_priority_and_they_sum_to_1() -> None:
    assert set(TABLE) == {(strategy, priority) for strategy in STRATEGIES for priority in PRIORITIES}
    for weights in TABLE.values():
        assert sum(weights) == pytest.approx(1.0, abs=1e-12)
        assert all(weight >= 0.0 for weight in weights)


@pytest.mark.parametrize("strategy", ["hybrid", "adaptive"])
def test_hybrid_and_adaptive_weigh_as_the_defaults_do(strategy: str) -> None:
    assert named(TABLE[strategy, "balanced"]) == pytest.approx(
        {
            "performance": 0.30,
            "cost": 0.20,
            "reliability": 0.25,
            "geo_proximity": 0.10,
            "content_affinity": 0.10,
            "load": 0.05,
        }
    )


@pytest.mark.parametrize("priority", PRIORITIES)
@pytest.mark.parametrize("strategy", FOCUSED, ids=lambda strategy: strategy.name)
def test_a_focused_strategy_puts_most_on_its_factor_and_at_least_a_fifth_on_reliability(
    strategy: object, priority: str
) -> None:
    assert isinstance(strategy, type(FOCUSED[0]))
    assert strategy.focus is not None
    weights = named(TABLE[strategy.name, priority])
    assert weights[strategy.focus] > 0.5
    assert weights["reliability"] >= 0.2


@pytest.mark.parametrize("strategy", FOCUSED, ids=lambda strategy: strategy.name)
def test_what_a_focused_strategy_leaves_is_shared_as_the_default_weights_are(strategy: object) -> None:
    assert isinstance(strategy, type(FOCUSED[0]))
    weights = named(TABLE[strategy.name, "balanced"])
    shares = {
        name: weights[name] / factor.weight
        for name, factor in FACTORS.items()
        if name not in (strategy.focus, "reliability")
    }
    assert len({round(share, 12) for share in shares.values()}) == 1
    assert min(shares.values()) > 0.0


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("priority", [row for row in PRIORITIES.values() if row.raises])
def test_a_priority_raises_its_factor_and_nothing_else(strategy: str, priority: object) -> None:
    assert isinstance(priority, type(PRIORITIES["cost"]))
    assert priority.raises is not None
    before, after = named(TABLE[strategy, "balanced"]), named(TABLE[strategy, priority.name])
    ratios = {name: after[name] / before[name] for name in FACTORS}
    raised = ratios.pop(priority.raises)
    assert len({round(ratio, 12) for ratio in ratios.values()}) == 1
    assert raised / min(ratios.values()) == pytest.approx(1.75)


def test_overrides_are_renormalised_together_with_the_rest() -> None:
    # The contract's example: 0.4 instead of 0.3 makes the sum 1.1.
    weights = named(default_weights({"performance": 0.4}))
    assert weights["performance"] == pytest.approx(0.4 / 1.1)
    assert weights["load"] == pytest.approx(0.05 / 1.1)
    assert sum(weights.values()) == pytest.approx(1.0, abs=1e-12)


def test_weights_of_0_silence_a_factor() -> None:
    only_cost = dict.fromkeys(FACTORS, 0.0) | {"cost": 7.0}
    assert named(default_weights(only_cost)) == dict.fromkeys(FACTORS, 0.0) | {"cost": 1.0}


@pytest.mark.parametrize("weight", [1e308, 5e-324])
def test_weights_at_the_ends_of_what_a_float_holds_still_sum_to_1(weight: float) -> None:
    weights = default_weights(dict.fromkeys(FACTORS, weight))
    assert weights == pytest.approx((1 / 6,) * 6)


def test_overrides_change_hybrid_and_adaptive_and_no_focused_strategy() -> None:
    table = weight_table(default_weights({"load": 10.0}))
    assert named(table["hybrid", "balanced"])["load"] > 0.9
    assert named(table["adaptive", "balanced"])["load"] > 0.9
    assert table["cost", "balanced"] == TABLE["cost", "balanced"]


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"speed": 1.0}, "weights"),
        ({"cost": -0.1}, "weights.cost"),
        ({"cost": inf}, "weights.cost"),
        ({"cost": nan}, "weights.cost"),
        (dict.fromkeys(FACTORS, 0.0), "weights"),
    ],
)
def test_weights_that_mean_nothing_are_refused(overrides: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        default_weights(overrides)
    assert caught.value.field == field


# --- rank ---

QUERY = Query(size_bytes=25_000_000)


def test_a_score_is_the_dot_product_of_weights_and_factors() -> None:
    # 1 / 2, a price that is the reference's, 0.8, half way, nothing known, 9 of 10 left.
    of = candidate(
        Backend("a", max_inflight=10),
        expected_ms=1150.0,
        success_probability=0.8,
        inflight=1,
        distance_km=10_007.5,
    )
    [ranked] = rank(QUERY, [of], DEFAULTS)
    assert ranked.factor_scores == pytest.approx((0.5, 0.5, 0.8, 0.5, 0.5, 0.9))
    assert ranked.score == pytest.approx(0.15 + 0.10 + 0.20 + 0.05 + 0.05 + 0.045)
    assert ranked.backend_id == "a"
    assert ranked.estimate is of.estimate


def test_the_best_comes_first_and_equals_come_by_id() -> None:
    ids = ["c", "b10", "b9", "a", "B"]
    ranked = rank(QUERY, [candidate(Backend(name)) for name in ids], DEFAULTS)
    assert [one.backend_id for one in ranked] == sorted(ids)
    better = [candidate(Backend(name), success_probability=0.9 + 0.01 * at) for at, name in enumerate(ids)]
    assert [one.backend_id for one in rank(QUERY, better, DEFAULTS)] == ids[::-1]


def test_nobody_to_rank_gives_an_empty_list() -> None:
    assert rank(QUERY, [], DEFAULTS) == []


def test_one_may_come_first_whatever_its_score_and_the_rest_may_be_cut() -> None:
    candidates = [candidate(Backend(name)) for name in "abcd"]
    names = [one.backend_id for one in rank(QUERY, candidates, DEFAULTS, first="c", limit=3)]
    assert names == ["c", "a", "b"]


def test_perfect_scores_sum_to_1_and_not_to_a_hair_more() -> None:
    free = Backend("a", storage_usd_per_gb_month=0.0, egress_usd_per_gb=0.0, request_usd_per_1000=0.0)
    perfect = candidate(
        replace(free, content_affinity={"*/*": 1.0}),
        expected_ms=0.0,
        success_probability=1.0,
        distance_km=0.0,
    )
    for weights in TABLE.values():
        [ranked] = rank(QUERY, [perfect], weights)
        assert ranked.factor_scores == (1.0,) * 6
        assert 1.0 - 1e-12 <= ranked.score <= 1.0


def plainly_ranked(
    query: Query, candidates: list[Candidate], weights: Weights
) -> list[tuple[str, float, tuple[float, ...]]]:
    """The twin: one candidate after the other."""
    rows = []
    for one in candidates:
        scores = tuple(factor.score(query, one) for factor in FACTORS.values())
        score = 0.0
        for weight, factor_score in zip(weights, scores, strict=True):
            score += weight * factor_score
        rows.append((one.backend.id, min(score, 1.0), scores))
    return sorted(rows, key=lambda row: (-row[1], row[0]))


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3),
        st.tuples(st.sampled_from([1.0, 200.0, 1e9]), st.sampled_from([0.0, 0.5, 0.9, 1.0])),
        max_size=12,
    ),
    st.sampled_from(sorted(TABLE)),
)
def test_ranking_agrees_with_the_plain_way_to_the_last_digit(
    seen: dict[str, tuple[float, float]], kind: tuple[str, str]
) -> None:
    candidates = [
        candidate(Backend(name), expected_ms=ms, success_probability=probability)
        for name, (ms, probability) in seen.items()
    ]
    ranked = rank(QUERY, candidates, TABLE[kind])
    assert [(one.backend_id, one.score, one.factor_scores) for one in ranked] == plainly_ranked(
        QUERY, candidates, TABLE[kind]
    )
