import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.learning.regression import (
    HALF_LIFE_S,
    LOAD,
    LOAD_SPREAD,
    MAX_EFFECTS,
    NOISE,
    OWN,
    OWN_SPREAD,
    REBASE_HALF_LIVES,
    SHARED_SPREAD,
    Effects,
)

PLACES = ("", "cell:a", "cell:b", "type:x", "type:y")

rows = st.lists(
    st.tuples(
        st.sampled_from([(OWN,), (OWN, "cell:a"), (OWN, "cell:b", "type:x"), (OWN, "cell:a", "type:y")]),
        st.floats(0.0, 1.0),
        st.floats(-2.0, 2.0),
        st.floats(0.0, 200_000.0),
    ),
    max_size=30,
)
Rows = list[tuple[tuple[str, ...], float, float, float]]


def effects_of(outcomes: Rows) -> Effects:
    effects = Effects()
    for names, share, residual, at in outcomes:
        effects.note(names, share, residual, at=at)
    return effects


def copied(effects: Effects, *others: Effects) -> Effects:
    """Fresh effects that took in the snapshots of these, by way of JSON."""
    fresh = Effects()
    for each in (effects, *others):
        fresh.merge(json.loads(json.dumps(each.snapshot())))
    return fresh


def totals(effects: Effects) -> list[float]:
    names = [(OWN,), (OWN, "cell:a"), (OWN, "cell:b", "type:x"), (OWN, "cell:b", "type:y")]
    return [effects.total(each, share) for each in names for share in (0.0, 0.4, 1.0)]


def solved(outcomes: Rows, names: list[str]) -> dict[str, tuple[float, float]]:
    """The dumb twin: the whole system by Gaussian elimination."""
    newest = max(at for *_, at in outcomes)
    size = 2 * len(names)
    matrix = [[0.0] * size for _ in range(size)]
    vector = [0.0] * size
    for index, name in enumerate(names):
        spread = SHARED_SPREAD if name else OWN_SPREAD
        for both in (2 * index, 2 * index + 1):
            matrix[both][both] = (NOISE / spread) ** 2
    for applying, share, residual, at in outcomes:
        weight = 2.0 ** ((at - newest) / HALF_LIFE_S)
        x = [0.0] * size
        for name in applying:
            x[2 * names.index(name)], x[2 * names.index(name) + 1] = 1.0 - share, share
        for i in range(size):
            vector[i] += weight * x[i] * residual
            for j in range(size):
                matrix[i][j] += weight * x[i] * x[j]
    for i in range(size):
        for j in range(i + 1, size):
            ratio = matrix[j][i] / matrix[i][i]
            vector[j] -= ratio * vector[i]
            matrix[j] = [b - ratio * a for a, b in zip(matrix[i], matrix[j], strict=True)]
    for i in reversed(range(size)):
        vector[i] = (vector[i] - sum(matrix[i][j] * vector[j] for j in range(i + 1, size))) / matrix[i][i]
    return {name: (vector[2 * i], vector[2 * i + 1]) for i, name in enumerate(names)}


def walk(count: int, seed: int = 0) -> Rows:
    """A backend whose latency is 1.0 off, its throughput 0.5; place b another 0.4, type x -0.3."""
    dice = Random(seed)
    outcomes = []
    for number in range(count):
        place, kind = dice.choice(["cell:a", "cell:b"]), dice.choice(["type:x", "type:y"])
        share = dice.random()
        residual = (1.0 - share) + share * 0.5 + 0.4 * (place == "cell:b") - 0.3 * (kind == "type:x")
        outcomes.append(((OWN, place, kind), share, residual + dice.gauss(0.0, 0.3), 60.0 * number))
    return outcomes


def test_without_outcomes_there_is_no_effect_and_all_of_the_doubt() -> None:
    effects = Effects()
    assert totals(effects) == [0.0] * 12
    assert effects.evidence(0.0) == 0.0
    assert effects.variance((OWN, "cell:a"), 1.0, now=0.0) == pytest.approx(OWN_SPREAD**2 + SHARED_SPREAD**2)


def test_one_outcome_moves_what_it_touched_and_nothing_else() -> None:
    effects = effects_of([((OWN, "cell:a"), 0.0, 1.0, 0.0)])
    assert 0.7 < effects.total((OWN, "cell:a"), 0.0) < 1.0
    assert effects.total((OWN, "cell:a"), 1.0) == 0.0
    assert effects.total((OWN,), 0.0) == effects.total((OWN, "cell:b"), 0.0)


def test_a_place_leans_on_the_backend_until_it_speaks_for_itself() -> None:
    effects = effects_of([((OWN, "cell:a"), 0.5, 0.0, float(second)) for second in range(100)])
    effects.note((OWN, "cell:b"), 0.5, 1.0, at=100.0)
    few = effects.total((OWN, "cell:b"), 0.5)
    for second in range(20):
        effects.note((OWN, "cell:b"), 0.5, 1.0, at=101.0 + second)
    many = effects.total((OWN, "cell:b"), 0.5)
    assert 0.1 < few < 0.5 < 0.8 < many < 1.0
    assert abs(effects.total((OWN, "cell:a"), 0.5)) < 0.1


def test_latency_and_throughput_are_told_apart() -> None:
    effects = effects_of(walk(600))
    small, large = (effects.total((OWN, "cell:a", "type:y"), share) for share in (0.0, 1.0))
    assert small == pytest.approx(1.0, abs=0.15)
    assert large == pytest.approx(0.5, abs=0.15)
    assert effects.total((OWN, "cell:b", "type:x"), 0.0) == pytest.approx(1.1, abs=0.15)


@pytest.mark.parametrize("count", [1, 3, 10, 300])
def test_the_means_are_those_of_the_whole_system(count: int) -> None:
    outcomes = walk(count)
    effects = effects_of(outcomes)
    names = list(dict.fromkeys(name for applying, *_ in outcomes for name in applying))
    truth = solved(outcomes, names)
    for applying, share, _, _ in walk(count, seed=1)[:50]:
        known = [name for name in applying if name in truth]
        exact = sum((1.0 - share) * truth[name][0] + share * truth[name][1] for name in known)
        assert effects.total(applying, share) == pytest.approx(exact, abs=0.03)


@given(rows, rows, rows)
def test_merging_adds_in_any_order_and_any_grouping(a: Rows, b: Rows, c: Rows) -> None:
    whole = effects_of(a + b + c)
    parts = [effects_of(part) for part in (a, b, c)]
    tail = copied(*parts[1:])
    for order in (parts, parts[::-1], [parts[0], tail], [tail, parts[0]]):
        # Outcomes that contradict each other are solved for nearly: within half of their noise.
        assert totals(copied(*order)) == pytest.approx(totals(whole), abs=NOISE / 2.0)
        assert copied(*order).evidence(0.0) == pytest.approx(whole.evidence(0.0))


@pytest.mark.parametrize("count", [20, 200])
def test_merged_halves_are_as_good_as_the_whole(count: int) -> None:
    outcomes = walk(count)
    halves, whole = copied(effects_of(outcomes[::2]), effects_of(outcomes[1::2])), effects_of(outcomes)
    for applying, share, _, _ in outcomes:
        assert halves.total(applying, share) == pytest.approx(whole.total(applying, share), abs=0.02)


@given(rows)
def test_a_snapshot_brings_back_the_same(outcomes: Rows) -> None:
    effects = effects_of(outcomes)
    assert copied(effects).snapshot() == effects.snapshot()
    assert totals(copied(effects)) == totals(effects)


@given(rows, st.randoms(use_true_random=False))
def test_outcomes_may_come_in_any_order(outcomes: Rows, dice: Random) -> None:
    shuffled = dice.sample(outcomes, len(outcomes))
    assert totals(effects_of(shuffled)) == pytest.approx(totals(effects_of(outcomes)), abs=NOISE / 2.0)


def test_what_is_in_flight_has_an_effect_of_its_own() -> None:
    effects = Effects()
    assert effects.total((OWN,), 0.5, 2.0) == 0.0
    dice = Random(0)
    for second in range(200):
        share, load = dice.random(), dice.choice([0.0, 1.0, 2.0, 3.0])
        effects.note((OWN,), share, 0.5 + 0.8 * load + dice.gauss(0.0, 0.3), load, at=float(second))
    assert effects.total((OWN,), 0.5) == pytest.approx(0.5, abs=0.1)
    assert effects.total((OWN,), 0.5, 3.0) == pytest.approx(2.9, abs=0.15)
    assert effects.total((OWN,), 0.5, 3.0) == pytest.approx(copied(effects).total((OWN,), 0.5, 3.0))
    assert effects.variance((OWN, LOAD), 1.0, now=0.0) < LOAD_SPREAD**2


def test_a_belief_that_was_asked_for_changes_with_the_next_outcome() -> None:
    effects = effects_of([((OWN,), 0.5, 1.0, 0.0)])
    before = effects.total((OWN,), 0.5)
    effects.note((OWN,), 0.5, 1.0, at=1.0)
    assert effects.total((OWN,), 0.5) > before


def test_old_outcomes_weigh_less() -> None:
    def after(days: float) -> float:
        effects = effects_of([((OWN,), 0.0, 0.0, float(second)) for second in range(20)])
        for second in range(5):
            effects.note((OWN,), 0.0, 1.0, at=days * HALF_LIFE_S + second)
        return effects.total((OWN,), 0.0)

    assert after(0.0) == pytest.approx(0.2, abs=0.01)
    assert after(2.0) == pytest.approx(0.5, abs=0.02)
    assert after(REBASE_HALF_LIVES + 5.0) > 0.95


def test_doubt_grows_back_to_what_it_was_and_evidence_goes() -> None:
    effects = effects_of([((OWN, "cell:a"), 0.5, 0.3, float(second)) for second in range(50)])
    days = [effects.variance((OWN, "cell:a"), 0.5, now=day * HALF_LIFE_S) for day in (0.0, 1.0, 5.0, 5000.0)]
    assert days == sorted(days)
    assert days[-1] == pytest.approx((OWN_SPREAD**2 + SHARED_SPREAD**2) / 2.0)
    assert effects.evidence(0.0) > 0.99
    assert effects.evidence(5000.0 * HALF_LIFE_S) == 0.0


def test_scaling_the_sums_down_changes_no_belief() -> None:
    long_ago = effects_of(walk(50))
    effects = effects_of(walk(50))
    effects.note((OWN, "cell:a"), 0.5, 0.0, at=(REBASE_HALF_LIVES + 1.0) * HALF_LIFE_S)
    assert effects.snapshot()["origin"] > long_ago.snapshot()["origin"]
    assert effects.snapshot()["count"] < 10.0
    late = effects_of([((OWN, "cell:a"), 0.5, 0.0, (REBASE_HALF_LIVES + 1.0) * HALF_LIFE_S)])
    assert totals(copied(long_ago, late)) == pytest.approx(totals(effects), abs=0.05)


def test_beyond_the_limit_the_effect_with_the_least_evidence_is_evicted() -> None:
    effects = Effects()
    for number in range(MAX_EFFECTS + 5):
        effects.note((OWN, f"cell:{number:02}"), 0.5, 1.0, at=0.0)
    names = effects.snapshot()["effects"]
    assert len(names) == MAX_EFFECTS
    assert f"cell:{MAX_EFFECTS + 4}" in names
    assert "cell:00" not in names
    other = Effects()
    other.note((OWN, "cell:other"), 0.5, 1.0, at=0.0)
    effects.merge(other.snapshot())
    assert len(effects.snapshot()["effects"]) == MAX_EFFECTS


def test_what_it_holds_can_be_seen() -> None:
    assert repr(effects_of([((OWN, "cell:a"), 0.5, 0.3, 0.0)])) == "Effects(['', 'cell:a'])"


@pytest.mark.parametrize("place", [0, 20, MAX_EFFECTS - 1], ids=["first", "in between", "last"])
def test_an_evicted_effect_leaves_what_is_known_of_the_others(place: int) -> None:
    """With OWN, there is one effect more than there is room for; the last comes by a merge."""
    types = [f"type:{number:02}" for number in range(MAX_EFFECTS - 1)]
    types.insert(place, "type:rare")
    effects, last = Effects(), Effects()
    for name in types:
        for _ in range(1 if name == "type:rare" else 3):
            (last if name == types[-1] else effects).note((OWN, name), 0.5, 0.2, at=0.0)
    known = {(one, other): entries for one, other, *entries in effects.snapshot()["information"]}
    effects.merge(last.snapshot())
    merged = effects.snapshot()
    after = {(one, other): entries for one, other, *entries in merged["information"]}
    assert set(merged["effects"]) == {OWN, *types} - {"type:rare"}
    for pair, entries in known.items():
        if "type:rare" not in pair and pair != (OWN, OWN):
            assert after[pair] == entries
