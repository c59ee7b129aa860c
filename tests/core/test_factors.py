"""Each factor against numbers worked out by hand from the contract's formulas."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routing.core.factors import FACTORS, REFERENCE, cost_usd
from routing.core.model import Backend, Candidate, Location, Query
from support.makers import candidate

MIB = 1_048_576


def score(factor: str, query: Query, of: Candidate) -> float:
    return FACTORS[factor].score(query, of)


def about(expected: float) -> object:
    return pytest.approx(expected, rel=1e-12)


def test_the_factors_and_their_default_weights_are_the_contracts() -> None:
    assert {name: factor.weight for name, factor in FACTORS.items()} == {
        "performance": 0.30,
        "cost": 0.20,
        "reliability": 0.25,
        "geo_proximity": 0.10,
        "content_affinity": 0.10,
        "load": 0.05,
    }
    assert all(factor.name == name and factor.help for name, factor in FACTORS.items())


# --- performance: ref / (ref + t), ref = 150 ms + size at 200 Mbit/s ---


@pytest.mark.parametrize(
    ("size_bytes", "expected_ms", "expected"),
    [
        # 25 MB are 200 Mbit: one second, and the 150 ms before it.
        (25_000_000, 1150.0, 0.5),
        (25_000_000, 575.0, 2 / 3),
        (25_000_000, 2300.0, 1 / 3),
        # 250 kB take 10 ms.
        (250_000, 40.0, 160 / 200),
        # 1 byte takes nothing to speak of: 150.00004 ms.
        (1, 150.0, 150.00004 / 300.00004),
        # 1 MiB, which also stands for an unknown size: 41.94304 ms.
        (MIB, 100.0, 191.94304 / 291.94304),
        (0, 100.0, 191.94304 / 291.94304),
    ],
)
def test_performance_compares_the_time_with_150_ms_and_200_mbit(
    size_bytes: int, expected_ms: float, expected: float
) -> None:
    of = candidate(expected_ms=expected_ms)
    assert score("performance", Query(size_bytes=size_bytes), of) == about(expected)


@pytest.mark.parametrize("size_bytes", [0, 1, 2**63 - 1])
def test_performance_of_what_takes_forever_is_0_and_of_what_takes_no_time_is_1(size_bytes: int) -> None:
    query = Query(size_bytes=size_bytes)
    assert score("performance", query, candidate(expected_ms=inf)) == 0.0
    assert score("performance", query, candidate(expected_ms=0.0)) == 1.0


# --- cost: ref / (ref + c) ---

S3 = Backend("s3", storage_usd_per_gb_month=0.023, egress_usd_per_gb=0.09, request_usd_per_1000=0.005)
COLD = Backend("cold", storage_usd_per_gb_month=0.004, egress_usd_per_gb=0.02, request_usd_per_1000=0.05)
FREE = Backend("free", storage_usd_per_gb_month=0.0, egress_usd_per_gb=0.0, request_usd_per_1000=0.0)


@pytest.mark.parametrize(
    ("months", "reads", "expected"),
    [
        # 1 GB: 0.023 + 0.09 + 0.000005 against 0.004 + 0.02 + 0.00005 dollars.
        (1.0, 1.0, 0.113005 / (0.113005 + 0.02405)),
        # A year, never read: 0.276005 against 0.04805.
        (12.0, 0.0, 0.276005 / (0.276005 + 0.04805)),
        # Not kept, read ten times: 0.900005 against 0.20005.
        (0.0, 10.0, 0.900005 / (0.900005 + 0.20005)),
        # Neither kept nor read: only the request fees are left, 0.000005 against 0.00005.
        (0.0, 0.0, 1 / 11),
        (0.5, 0.25, 0.034005 / (0.034005 + 0.00705)),
    ],
)
def test_cost_compares_the_dollars_with_s3_list_price(months: float, reads: float, expected: float) -> None:
    query = Query(size_bytes=10**9, retention_months=months, expected_reads=reads)
    assert score("cost", query, candidate(COLD)) == about(expected)
    assert score("cost", query, candidate(S3)) == about(0.5)
    assert score("cost", query, candidate(FREE)) == 1.0


def test_cost_of_a_small_object_is_mostly_the_request_fee() -> None:
    # 1 kB: 0.000000113 + 0.000005 against 0.000000024 + 0.00005 dollars.
    query = Query(size_bytes=1000)
    assert score("cost", query, candidate(COLD)) == about(5.113e-6 / (5.113e-6 + 5.0024e-5))


def test_cost_takes_an_unknown_size_for_1_mib() -> None:
    of = candidate(COLD)
    assert score("cost", Query(), of) == score("cost", Query(size_bytes=MIB), of)


@pytest.mark.parametrize(
    ("months", "reads", "expected"),
    [
        # What is astronomic leaves only its own price to compare: 0.023 / (0.023 + 0.004) ...
        (1e308, 1.0, 23 / 27),
        # ... 0.09 / (0.09 + 0.02) ...
        (0.0, 1e308, 9 / 11),
        # ... or both.
        (1e308, 1e308, 0.113 / (0.113 + 0.024)),
        (1.7e308, 1.7e308, 0.113 / (0.113 + 0.024)),
        (1e13, 0.0, 23 / 27),
    ],
)
@pytest.mark.parametrize("size_bytes", [10**9, 2**63 - 1])
def test_cost_still_tells_prices_apart_where_the_dollars_pass_every_float(
    months: float, reads: float, expected: float, size_bytes: int
) -> None:
    query = Query(size_bytes=size_bytes, retention_months=months, expected_reads=reads)
    assert score("cost", query, candidate(COLD)) == pytest.approx(expected, rel=1e-6)
    assert score("cost", query, candidate(S3)) == pytest.approx(0.5)


# --- reliability ---


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_reliability_is_the_probability_of_success(probability: float) -> None:
    assert score("reliability", Query(), candidate(success_probability=probability)) == probability


# --- geo_proximity: 1 − distance / 20,015 km ---


@pytest.mark.parametrize(
    ("distance_km", "expected"), [(0.0, 1.0), (20_015.0, 0.0), (2001.5, 0.9), (10_007.5, 0.5)]
)
def test_proximity_falls_with_the_distance(distance_km: float, expected: float) -> None:
    query = Query(location=Location(0.0, 0.0))
    assert score("geo_proximity", query, candidate(distance_km=distance_km)) == about(expected)


@pytest.mark.parametrize(
    ("client", "backend", "expected"),
    [
        (Location(region="eu"), "eu", 1.0),
        (Location(region="eu"), "us", 0.5),
        (Location(region=""), "", 0.5),
        (Location(region="eu"), "", 0.5),
        (Location(50.0, 8.0, "eu"), "eu", 1.0),
        (Location(50.0, 8.0), "eu", 0.5),
        (None, "eu", 0.5),
    ],
)
def test_proximity_without_a_distance_is_a_matter_of_the_region(
    client: Location | None, backend: str, expected: float
) -> None:
    of = candidate(Backend("a", region=backend))
    assert score("geo_proximity", Query(location=client), of) == expected


def test_a_distance_counts_more_than_a_region() -> None:
    query = Query(location=Location(0.0, 0.0, "eu"))
    assert score("geo_proximity", query, candidate(Backend("a", region="eu"), distance_km=20_015.0)) == 0.0


# --- content_affinity ---

AFFINE = Backend("a", content_affinity={"image/png": 0.9, "image/*": 0.7, "*/*": 0.2, "audio/ogg": 0.0})


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("image/png", 0.9),
        ("image/jpeg", 0.7),
        ("image", 0.7),
        ("image/", 0.7),
        ("audio/ogg", 0.0),
        ("audio/flac", 0.2),
        ("", 0.2),
        ("/", 0.2),
        ("*/*", 0.2),
    ],
)
def test_affinity_takes_the_exact_type_before_its_family_before_any(
    content_type: str, expected: float
) -> None:
    assert score("content_affinity", Query(content_type=content_type), candidate(AFFINE)) == expected


@pytest.mark.parametrize("content_type", ["", "image/png", "text/plain"])
def test_affinity_without_a_pattern_that_matches_is_a_half(content_type: str) -> None:
    query = Query(content_type=content_type)
    assert score("content_affinity", query, candidate(Backend("a"))) == 0.5
    only_video = Backend("a", content_affinity={"video/*": 1.0})
    assert score("content_affinity", query, candidate(only_video)) == 0.5


# --- load ---


@pytest.mark.parametrize(
    ("inflight", "limit", "expected"),
    [(0, 10, 1.0), (1, 10, 0.9), (10, 10, 0.0), (11, 10, 0.0), (10**9, 1, 0.0), (10**9, None, 1.0)],
)
def test_load_is_the_room_left_under_the_limit(inflight: int, limit: int | None, expected: float) -> None:
    of = candidate(Backend("a", max_inflight=limit), inflight=inflight)
    assert score("load", Query(), of) == about(expected)


# --- properties of all ---

amounts = st.floats(0.0, 1.7e308) | st.sampled_from([0.0, 1.0, 1e308])
prices = st.floats(0.0, 1e9) | st.just(0.0)
queries = st.builds(
    Query,
    content_type=st.sampled_from(["", "image/png", "video/mp4", "*/*", "/"]),
    size_bytes=st.integers(0, 2**63 - 1),
    retention_months=amounts,
    expected_reads=amounts,
    location=st.none() | st.builds(Location, st.just(1.0), st.just(2.0), st.sampled_from(["", "eu"])),
)
backends = st.builds(
    Backend,
    id=st.just("a"),
    region=st.sampled_from(["", "eu"]),
    storage_usd_per_gb_month=prices,
    egress_usd_per_gb=prices,
    request_usd_per_1000=prices,
    max_inflight=st.none() | st.integers(1, 10**9),
    content_affinity=st.dictionaries(
        st.sampled_from(["image/png", "image/*", "*/*"]), st.floats(0.0, 1.0), max_size=3
    ),
)
candidates = st.builds(
    candidate,
    backends,
    expected_ms=st.floats(1e-9, 1e30),
    success_probability=st.floats(0.0, 1.0),
    inflight=st.integers(0, 10**9),
    distance_km=st.none() | st.floats(0.0, 20_015.0),
)


@pytest.mark.parametrize("factor", FACTORS)
@given(query=queries, of=candidates)
@example(query=Query(size_bytes=2**63 - 1, retention_months=1e308), of=candidate(S3))
def test_every_factor_lies_between_0_and_1_and_answers_the_same_twice(
    factor: str, query: Query, of: Candidate
) -> None:
    answer = score(factor, query, of)
    assert 0.0 <= answer <= 1.0
    assert score(factor, query, of) == answer


@given(query=queries, several=st.lists(candidates, max_size=5))
def test_no_candidate_changes_what_another_scores(query: Query, several: list[Candidate]) -> None:
    for factor in FACTORS.values():
        assert factor.scores(query, several) == [factor.score(query, of) for of in several]


amounts_that_occur = st.floats(0.0, 1e6)


@given(queries, candidates, amounts_that_occur, amounts_that_occur)
def test_cost_compares_dollars_with_dollars(query: Query, of: Candidate, months: float, reads: float) -> None:
    query = query._replace(retention_months=months, expected_reads=reads)
    reference = cost_usd(query, REFERENCE)
    assert score("cost", query, of) == pytest.approx(reference / (reference + cost_usd(query, of.backend)))


def test_the_reference_scores_a_half_on_cost_and_performance() -> None:
    reference = candidate(REFERENCE, expected_ms=150.0 + (1 << 20) * 8 / 200e6 * 1e3)
    assert (score("cost", Query(), reference), score("performance", Query(), reference)) == (0.5, 0.5)


@given(query=queries, of=candidates, slower=st.floats(1.0, 1e6))
def test_what_takes_longer_never_scores_better(query: Query, of: Candidate, slower: float) -> None:
    late = of._replace(estimate=of.estimate._replace(expected_ms=of.estimate.expected_ms * slower))
    assert score("performance", query, late) <= score("performance", query, of)


@given(query=queries, of=candidates, more=st.floats(0.0, 1e6))
def test_what_costs_more_never_scores_better(query: Query, of: Candidate, more: float) -> None:
    for price in ("storage_usd_per_gb_month", "egress_usd_per_gb", "request_usd_per_1000"):
        dear = of._replace(backend=replace(of.backend, **{price: getattr(of.backend, price) + more}))
        assert score("cost", query, dear) <= score("cost", query, of) + 1e-15
