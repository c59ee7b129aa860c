"""SelectBackend: the factors, the weights, who may be chosen, and what comes back."""

from datetime import UTC, datetime
from math import asin, cos, radians, sin, sqrt
from typing import Any

import pytest
from routing_pb.google.protobuf import Value

from routing import wire
from routing.core.model import Backend
from support.contract_world import NOON, World, world
from support.grpc_calls import status_of

WEIGHTS = {
    "performance": 0.30,
    "cost": 0.20,
    "reliability": 0.25,
    "geo_proximity": 0.10,
    "content_affinity": 0.10,
    "load": 0.05,
}

STRATEGIES = {
    "performance": "performance",
    "cost": "cost",
    "reliability": "reliability",
    "geographic": "geo_proximity",
    "content_type": "content_affinity",
}
"""Each strategy that has a factor of its own, and that factor."""

PRIORITIES = {name: factor for name, factor in STRATEGIES.items() if name != "content_type"}

VIRGINIA, FRANKFURT, SYDNEY = (38.9, -77.4), (50.1, 8.7), (-33.9, 151.2)

FAR = Backend(
    id="far", region="ap", latitude=SYDNEY[0], longitude=SYDNEY[1], latency_ms=50, throughput_mbps=400
)
NEAR = Backend(id="near", region="us", latitude=VIRGINIA[0], longitude=VIRGINIA[1], latency_ms=50,
               throughput_mbps=400)  # fmt: skip


def chosen_and_others(response: wire.SelectBackendResponse) -> list[str]:
    return [response.backend_id, *(other.backend_id for other in response.alternatives)]


async def in_force(server: World, **fields: Any) -> dict[str, float]:
    explanation = (await server.select(explain=True, **fields)).explanation
    weights: dict[str, float] = wire.read_struct(explanation)["weights"]
    return weights


def close(value: float) -> Any:
    return pytest.approx(value, abs=1e-9)


# --- Factors ---


@pytest.mark.parametrize("size", [1, 1 << 20, 10**9, 5 * 10**12])
async def test_performance_compares_the_expected_time_with_the_reference(size: int) -> None:
    """ref / (ref + t), t the expected milliseconds for this transfer (… starting from the
    profile: latency + size / throughput …), ref = 150 ms + size at 200 Mbit/s"""
    async with world(Backend(id="a", latency_ms=40, throughput_mbps=1000)) as server:
        factors = await server.factors(content_size=size)
    reference_ms = 150 + size * 8 / 200e6 * 1000
    expected_ms = 40 + size * 8 / 1000e6 * 1000
    assert factors["performance"] == pytest.approx(reference_ms / (reference_ms + expected_ms), abs=1e-6)


async def test_performance_counts_the_clients_distance() -> None:
    """… and the client's distance"""
    async with world(NEAR, FAR) as server:
        near = await server.factors(available_backends=["near"], at=(*VIRGINIA, ""))
        far = await server.factors(available_backends=["far"], at=(*VIRGINIA, ""))
    assert near["performance"] > far["performance"]


async def test_performance_learns_from_outcomes() -> None:
    """learned from outcomes"""
    async with world(Backend(id="a"), Backend(id="b")) as server:
        before = await server.factors(available_backends=["a"])
        for _ in range(20):
            await server.record("a", duration_ms=10, content_size=1 << 20)
            await server.record("b", duration_ms=5_000, content_size=1 << 20)
        quick = await server.factors(available_backends=["a"])
        slow = await server.factors(available_backends=["b"])
    assert quick["performance"] > before["performance"] > slow["performance"]


@pytest.mark.parametrize(("months", "reads"), [(None, None), (0, 0), (12, 0), (0, 100), (2.5, 0.5)])
async def test_cost_compares_the_dollars_with_the_reference_price(
    months: float | None, reads: float | None
) -> None:
    """ref / (ref + c), c the dollars for this object: GB × (storage × retention_months +
    egress × expected_reads) + request fee, ref the same object at S3 us-east-1 list price"""
    backend = Backend(
        id="a", storage_usd_per_gb_month=0.004, egress_usd_per_gb=0.01, request_usd_per_1000=0.4
    )
    wishes = {"retention_months": months, "expected_reads": reads}
    async with world(backend) as server:
        factors = await server.factors(
            content_size=3 * 10**9,
            metadata={key: value for key, value in wishes.items() if value is not None},
        )
    m, r = 1 if months is None else months, 1 if reads is None else reads
    usd = 3 * (0.004 * m + 0.01 * r) + 0.4 / 1000
    reference_usd = 3 * (0.023 * m + 0.09 * r) + 0.005 / 1000
    assert factors["cost"] == close(reference_usd / (reference_usd + usd))


async def test_a_free_backend_has_the_best_cost() -> None:
    """All scores lie in [0, 1], higher is better."""
    free = Backend(id="a", storage_usd_per_gb_month=0, egress_usd_per_gb=0, request_usd_per_1000=0)
    async with world(free) as server:
        assert (await server.factors())["cost"] == 1.0


async def test_reliability_is_the_learned_probability_of_success() -> None:
    """the probability that this operation succeeds, learned"""
    async with world(Backend(id="a", success_rate=0.9)) as server:
        prior = (await server.factors())["reliability"]
        for n in range(40):
            await server.record("a", success=n % 2 == 0)
        assert prior == close(0.9)
        assert (await server.factors())["reliability"] == pytest.approx(0.5, abs=0.15)


def great_circle_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    (a, b), (c, d) = (tuple(map(radians, place)) for place in (one, other))
    half = sin((c - a) / 2) ** 2 + cos(a) * cos(c) * sin((d - b) / 2) ** 2
    return 2 * 6371.0088 * asin(sqrt(half))


@pytest.mark.parametrize("client", [VIRGINIA, FRANKFURT, SYDNEY, (90.0, 0.0), (0.1, 180.0)])
async def test_geo_proximity_is_nearness_on_the_globe(client: tuple[float, float]) -> None:
    """1 − great-circle distance / 20,015 km"""
    async with world(NEAR) as server:
        factors = await server.factors(at=(*client, ""))
    # The radius of the earth is not the contract's: a promille of leeway.
    assert factors["geo_proximity"] == pytest.approx(1 - great_circle_km(client, VIRGINIA) / 20_015, abs=1e-3)


@pytest.mark.parametrize(
    ("at", "score"),
    [(None, 0.5), ((0.0, 0.0, "us"), 1.0), ((0.0, 0.0, "eu"), 0.5)],
)
async def test_geo_proximity_without_the_clients_coordinates_goes_by_the_region(
    at: Any, score: float
) -> None:
    """where coordinates are missing, 1 for the same region and 0.5 otherwise …
    0, 0 together with a region means that only the region is known"""
    async with world(NEAR) as server:
        assert (await server.factors(at=at))["geo_proximity"] == score


@pytest.mark.parametrize(("region", "score"), [("us", 1.0), ("eu", 0.5), ("", 0.5)])
async def test_geo_proximity_without_the_backends_coordinates_goes_by_the_region(
    region: str, score: float
) -> None:
    async with world(Backend(id="a", region="us")) as server:
        assert (await server.factors(at=(*VIRGINIA, region)))["geo_proximity"] == score


async def test_a_location_of_zeros_without_a_region_is_unknown() -> None:
    """0, 0 without one means that nothing is known, as in a message that was never filled in"""
    async with world(Backend(id="a", latitude=0.0, longitude=0.0)) as server:
        assert (await server.factors(at=(0.0, 0.0, "")))["geo_proximity"] == 0.5


@pytest.mark.parametrize(
    ("content_type", "score"),
    [("image/png", 0.9), ("image/gif", 0.7), ("text/html", 0.2), ("", 0.2)],
)
async def test_content_affinity_is_the_best_matching_pattern(content_type: str, score: float) -> None:
    """the profile's best matching MIME pattern (exact before `type/*` before `*/*`)"""
    affinity = {"*/*": 0.2, "image/*": 0.7, "image/png": 0.9}
    async with world(Backend(id="a", content_affinity=affinity)) as server:
        assert (await server.factors(content_type=content_type))["content_affinity"] == score


async def test_content_affinity_without_a_pattern_is_a_half() -> None:
    """0.5 without one"""
    async with world(Backend(id="a", content_affinity={"image/*": 0.7}), Backend(id="b")) as server:
        for backend in ("a", "b"):
            factors = await server.factors(content_type="text/html", available_backends=[backend])
            assert factors["content_affinity"] == 0.5


async def test_load_is_what_was_decided_and_not_yet_reported() -> None:
    """1 − in-flight / max_inflight, not below 0, where in-flight is what was decided lately
    and not yet reported; 1 without a limit"""
    async with world(Backend(id="a", max_inflight=4), Backend(id="b")) as server:

        async def load(backend: str, request_id: str = "") -> float:
            return (await server.factors(available_backends=[backend], request_id=request_id))["load"]

        assert [await load("a", f"r-{n}") for n in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
        for n in range(5):
            await server.record("a", request_id=f"r-{n}")
        assert await load("a") == 0.75
        assert [await load("b") for _ in range(3)] == [1.0, 1.0, 1.0]


async def test_an_unknown_size_is_taken_as_1_mib() -> None:
    """Where size is unknown, 1 MiB is assumed. … `content_size` 0 means unknown."""
    async with world(Backend(id="a", throughput_mbps=50, request_usd_per_1000=0.4)) as server:
        assert await server.factors() == await server.factors(content_size=1 << 20)
        assert await server.factors() != await server.factors(content_size=1 << 21)


# --- Weights ---


async def test_the_score_is_the_dot_product_with_the_reported_weights() -> None:
    """`factor_scores` holds every factor's score for the selected backend. `score` is the
    weighted sum … with strategy and priority left empty, `score` equals the dot product of
    `factor_scores` and `GetInsights.factor_weights` to 1e-6"""
    async with world(NEAR, FAR) as server:
        response = await server.select(content_type="image/png", content_size=5_000_000, at=(*FRANKFURT, ""))
        weights = wire.read_struct((await server.insights()).factor_weights)
    factors = wire.read_struct(response.factor_scores)
    assert factors.keys() == weights.keys() == WEIGHTS.keys()
    assert response.score == pytest.approx(sum(factors[name] * weights[name] for name in weights), abs=1e-6)
    assert weights == pytest.approx(WEIGHTS)


@pytest.mark.parametrize("strategy", ["", "hybrid", "optimal", "adaptive", *STRATEGIES])
@pytest.mark.parametrize("priority", ["", "balanced", *PRIORITIES])
async def test_the_score_is_the_weighted_sum_under_the_weights_in_force(strategy: str, priority: str) -> None:
    """`score` is the weighted sum of `factor_scores` under the weights in force"""
    async with world(NEAR, FAR, Backend(id="plain", success_rate=0.8)) as server:
        response = await server.select(
            strategy=strategy, priority=priority, at=(*FRANKFURT, "us"), explain=True
        )
    explanation = wire.read_struct(response.explanation)
    weights, factors = explanation["weights"], wire.read_struct(response.factor_scores)
    assert sum(weights.values()) == pytest.approx(1)
    assert response.score == pytest.approx(sum(factors[name] * weights[name] for name in weights), abs=1e-6)
    assert all(0 <= score <= 1 for score in (response.score, *factors.values()))
    for other in response.alternatives:
        explained = explanation["candidates"][other.backend_id]
        assert other.score == explained["score"]
        assert other.score == pytest.approx(
            sum(explained["factor_scores"][name] * weights[name] for name in weights), abs=1e-6
        )


@pytest.mark.parametrize("strategy", ["", "hybrid", "optimal", "adaptive"])
async def test_hybrid_has_the_default_weights(strategy: str) -> None:
    """`hybrid` (the default weights; also the meaning of an empty string, and of `optimal`)
    … `adaptive` (hybrid's weights …)"""
    async with world(NEAR, weights={"cost": 0.9}) as server:
        weights = wire.read_struct((await server.insights()).factor_weights)
        assert await in_force(server, strategy=strategy) == weights
        assert sum(weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(("strategy", "factor"), STRATEGIES.items())
async def test_a_strategy_puts_most_of_the_weight_on_its_factor(strategy: str, factor: str) -> None:
    """each puts most of the weight on its factor, and keeps at least 0.2 on reliability"""
    async with world(NEAR) as server:
        weights = await in_force(server, strategy=strategy)
    assert weights[factor] > 0.5
    assert weights["reliability"] >= 0.2


@pytest.mark.parametrize("strategy", ["", *STRATEGIES, "adaptive"])
async def test_a_priority_scales_the_weights(strategy: str) -> None:
    """`priority` then scales the weights and renormalises: `balanced` (no change; also the
    empty string), `performance`, `cost`, `reliability`, `geographic`"""
    async with world(NEAR) as server:
        plain = await in_force(server, strategy=strategy)
        assert await in_force(server, strategy=strategy, priority="balanced") == plain
        for priority, factor in PRIORITIES.items():
            scaled = await in_force(server, strategy=strategy, priority=priority)
            assert sum(scaled.values()) == pytest.approx(1)
            assert scaled[factor] > plain[factor]
            rest = [name for name in plain if name != factor]
            assert all(scaled[name] < plain[name] for name in rest)
            ratio = scaled[rest[0]] / plain[rest[0]]
            assert {name: scaled[name] for name in rest} == pytest.approx(
                {name: plain[name] * ratio for name in rest}
            )


@pytest.mark.parametrize(
    ("field", "valid"),
    [
        ("strategy", ["hybrid", "optimal", *STRATEGIES, "adaptive"]),
        ("priority", ["balanced", *PRIORITIES]),
    ],
)
async def test_an_unknown_strategy_or_priority_is_refused_with_the_valid_ones(
    field: str, valid: list[str]
) -> None:
    """An unknown strategy or priority is INVALID_ARGUMENT, and the message lists the valid ones."""
    async with world(NEAR) as server:
        status, message = await status_of(server.select(**{field: "fastest"}))
    assert status == "INVALID_ARGUMENT"
    assert message.startswith(f"{field}: 'fastest' is not valid")
    assert all(word in message for word in valid)


async def test_adaptive_tries_what_is_little_tried() -> None:
    """so that little-tried backends get tried"""
    async with world(Backend(id="known", success_rate=0.97), Backend(id="new", success_rate=0.95)) as server:
        for _ in range(30):
            await server.record("known", duration_ms=190)
        assert {(await server.select()).backend_id for _ in range(100)} == {"known"}
        assert {(await server.select(strategy="adaptive")).backend_id for _ in range(100)} == {"known", "new"}


# --- available_backends ---


async def test_available_backends_restrict_the_choice() -> None:
    """`available_backends` restricts the choice. Empty means every enabled backend."""
    backends = [Backend(id=name) for name in "abcd"] + [Backend(id="off", enabled=False)]
    async with world(*backends) as server:
        assert sorted(chosen_and_others(await server.select())) == ["a", "b", "c", "d"]
        assert sorted(chosen_and_others(await server.select(available_backends=["d", "b"]))) == ["b", "d"]


async def test_an_unknown_name_is_the_clients_word() -> None:
    """A name the server has no profile for is taken as the client's word: it gets a neutral
    profile and is learned from then on"""
    async with world(Backend(id="a")) as server:
        response = await server.select(available_backends=["new"])
        factors = wire.read_struct(response.factor_scores)
        assert response.backend_id == "new"
        assert [factors[name] for name in ("performance", "cost", "geo_proximity", "content_affinity")] == [
            close(0.5)
        ] * 4
        for _ in range(3):
            await server.record("new", success=False)
        learned = await server.factors(available_backends=["new"])
        assert learned["reliability"] < factors["reliability"]
        assert chosen_and_others(await server.select()) == ["a"]


async def test_a_discovered_name_is_a_candidate_only_for_requests_that_name_it_and_labelled() -> None:
    """it is a candidate only for requests that name it, is labelled `discovered`"""
    async with world(Backend(id="bucket-frankfurt", success_rate=0.5)) as server:
        await server.record("bucket-frankfrut", success=True, duration_ms=1)
        assert chosen_and_others(await server.select()) == ["bucket-frankfurt"]
        names = ["bucket-frankfurt", "bucket-frankfrut"]
        response = await server.select(available_backends=names, explain=True)
        candidates = wire.read_struct(response.explanation)["candidates"]
        backends = (await server.metrics(include_backends=True))["backends"]
        for labelled in (candidates, backends):
            assert [labelled[name]["origin"] for name in names] == ["configured", "discovered"]


async def test_the_first_mention_of_a_name_is_one_line_that_names_the_one_it_resembles(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """its first mention is one INFO line that also names the configured backend it resembles"""
    caplog.set_level("INFO", logger="routing.rpc.service")
    async with world(Backend(id="bucket-frankfurt")) as server:
        for _ in range(3):
            await server.record("bucket-frankfrut", success=True)
            await server.select(available_backends=["bucket-frankfrut", "zzz"])
    assert [record.getMessage() for record in caplog.records] == [
        "backend discovered name=bucket-frankfrut resembles=bucket-frankfurt",
        "backend discovered name=zzz resembles=none",
    ]


async def test_without_discovery_the_message_names_the_nearest_known_name() -> None:
    """A server started with `discover = false` answers INVALID_ARGUMENT instead, naming it and
    the nearest known name"""
    async with world(Backend(id="s3"), Backend(id="bucket-frankfurt"), discover=False) as server:
        for call in (
            server.select(available_backends=["bucket-frankfrut"]),
            server.record("bucket-frankfrut", success=True),
        ):
            status, message = await status_of(call)
            assert status == "INVALID_ARGUMENT"
            assert "'bucket-frankfrut'" in message
            assert message.endswith("the nearest is 'bucket-frankfurt'")


async def test_past_the_limit_the_message_names_the_backend_that_the_name_resembles() -> None:
    """past the limit as in SelectBackend (the message names the configured backend that it resembles)"""
    async with world(Backend(id="bucket-frankfurt"), max_backends=1) as server:
        for call in (
            server.select(available_backends=["bucket-frankfrut"]),
            server.record("bucket-frankfrut", success=True),
        ):
            status, message = await status_of(call)
            assert status == "RESOURCE_EXHAUSTED"
            assert message.endswith("it resembles the configured 'bucket-frankfurt'")


async def test_names_past_the_servers_limit_are_refused() -> None:
    """up to the server's limit of backends (RESOURCE_EXHAUSTED past it)"""
    async with world(Backend(id="a"), max_backends=3) as server:
        await server.select(available_backends=["a", "b"])
        status, message = await status_of(server.select(available_backends=["c", "d"]))
        assert status == "RESOURCE_EXHAUSTED"
        assert "3" in message
        assert sorted((await server.metrics(include_backends=True))["backends"]) == ["a", "b"]
        assert (await server.select(available_backends=["c"])).backend_id == "c"
        assert (await status_of(server.record("d")))[0] == "RESOURCE_EXHAUSTED"
        assert (await server.select(available_backends=["a", "b", "c"])).backend_id == "a"


async def test_without_discovery_an_unknown_name_is_refused_and_named() -> None:
    """a server started with `discover = false` answers INVALID_ARGUMENT instead, naming it"""
    async with world(Backend(id="a"), discover=False) as server:
        for call in (server.select(available_backends=["a", "new"]), server.record("new")):
            status, message = await status_of(call)
            assert status == "INVALID_ARGUMENT"
            assert "'new'" in message
        assert (await server.select(available_backends=["a"])).backend_id == "a"
        assert sorted((await server.metrics(include_backends=True))["backends"]) == ["a"]


async def test_a_request_that_is_refused_teaches_no_name() -> None:
    async with world(Backend(id="a")) as server:
        refused = [
            server.select(available_backends=["new"], content_size=-1),
            server.select(available_backends=["new"], metadata={"operation": "delete"}),
            server.record("new", duration_ms=-1),
            server.record("new", ago_s=-301),
        ]
        for call in refused:
            assert (await status_of(call))[0] == "INVALID_ARGUMENT"
        assert sorted((await server.metrics(include_backends=True))["backends"]) == ["a"]


# --- Metadata ---


async def test_metadata_that_is_understood_takes_effect() -> None:
    """`require_tags` (list of strings: only backends bearing all of them), `exclude_backends`"""
    backends = [
        Backend(id="a", tags=frozenset({"us"})),
        Backend(id="b", tags=frozenset({"us", "hot"})),
        Backend(id="c", tags=frozenset({"us", "hot", "eu"})),
    ]
    async with world(*backends) as server:
        for metadata, eligible in [
            ({"require_tags": ["us", "hot"]}, ["b", "c"]),
            ({"require_tags": []}, ["a", "b", "c"]),
            ({"exclude_backends": ["a", "c", "nobody"]}, ["b"]),
            ({"require_tags": ["us"], "exclude_backends": ["b"]}, ["a", "c"]),
        ]:
            assert sorted(chosen_and_others(await server.select(metadata=metadata))) == eligible


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [
        ("operation", "delete", "store, retrieve"),
        ("operation", 1, "store, retrieve"),
        ("operation", None, "store, retrieve"),
        ("retention_months", -1, "0 or more"),
        ("retention_months", "1", "number"),
        ("retention_months", True, "number"),
        ("expected_reads", -0.001, "0 or more"),
        ("expected_reads", None, "number"),
        ("require_tags", "us", "list of strings"),
        ("require_tags", ["us", 1], "strings"),
        ("exclude_backends", {"a": True}, "list of strings"),
        ("exclude_backends", [None], "strings"),
    ],
)
async def test_a_known_key_with_a_wrong_value_is_refused(key: str, value: Any, valid: str) -> None:
    """any other word is INVALID_ARGUMENT … A known key with a value of the wrong type is
    INVALID_ARGUMENT."""
    async with world(Backend(id="a")) as server:
        status, message = await status_of(server.select(metadata={key: value}))
    assert status == "INVALID_ARGUMENT"
    assert message.startswith(f"metadata.{key}: ")
    assert valid in message


@pytest.mark.parametrize("value", [Value(), Value(number_value=float("nan"))])
async def test_a_value_that_json_does_not_have_is_refused_only_under_a_known_key(value: Value) -> None:
    async with world(Backend(id="a")) as server:
        stub = wire.RoutingServiceStub(server.channel)
        for key, expected in [("expected_reads", "INVALID_ARGUMENT"), ("colour", "OK")]:
            message = wire.SelectBackendRequest(metadata=wire.Struct(fields={key: value}))
            assert (await status_of(stub.select_backend(message)))[0] == expected


async def test_other_keys_are_ignored() -> None:
    """Other keys are ignored."""
    async with world(Backend(id="a")) as server:
        odd = {"colour": "red", "Operation": 7, "": None, "nested": {"deep": [[1], {}]}}
        assert (await server.select(metadata=odd)).backend_id == "a"


async def test_an_empty_struct_is_no_metadata() -> None:
    """(JavaScript clients send `metadata` as a plain object, which arrives as an empty Struct.)"""
    async with world(Backend(id="a")) as server:
        assert await server.factors(metadata={}) == await server.factors(metadata=None)


@pytest.mark.parametrize("huge", [1e308, 1.7976931348623157e308, 5e-324])
async def test_the_largest_and_smallest_numbers_give_scores_all_the_same(huge: float) -> None:
    """All scores lie in [0, 1]"""
    async with world(NEAR, Backend(id="free", storage_usd_per_gb_month=0, egress_usd_per_gb=0)) as server:
        for size in (1, 2**63 - 1):
            metadata = {"retention_months": huge, "expected_reads": huge}
            response = await server.select(content_size=size, metadata=metadata)
            scores = [response.score, *wire.read_struct(response.factor_scores).values()]
            assert all(0 <= score <= 1 for score in scores)


# --- Who may be chosen ---


async def test_no_eligible_backend_says_for_each_candidate_why_not() -> None:
    """A backend is eligible if it is enabled, allowed by the request, bears the required
    tags, and takes an object of this size. No eligible backend: FAILED_PRECONDITION, and the
    message says for each candidate why not."""
    backends = [
        Backend(id="off", enabled=False, tags=frozenset({"eu"})),
        Backend(id="small", max_object_bytes=1000, tags=frozenset({"eu"})),
        Backend(id="untagged"),
        Backend(id="excluded", tags=frozenset({"eu"})),
    ]
    wishes = {"require_tags": ["eu"], "exclude_backends": ["excluded"]}
    async with world(*backends) as server:
        status, message = await status_of(server.select(content_size=1001, metadata=wishes))
        assert status == "FAILED_PRECONDITION"
        reasons = dict(part.split(": ", 1) for part in message[message.index("(") + 1 : -1].split("; "))
        assert reasons.keys() == {"off", "small", "untagged", "excluded"}
        assert "disabled" in reasons["off"]
        assert "1,000" in reasons["small"] or "1000" in reasons["small"]
        assert "eu" in reasons["untagged"]
        assert "exclude" in reasons["excluded"]
        fits = await server.select(content_size=1000, metadata={"require_tags": ["eu"]})
        assert sorted(chosen_and_others(fits)) == ["excluded", "small"]


async def test_a_server_without_backends_says_so() -> None:
    async with world() as server:
        assert (await status_of(server.select()))[0] == "FAILED_PRECONDITION"


async def test_a_disabled_backend_is_not_chosen_even_if_it_is_named() -> None:
    async with world(Backend(id="off", enabled=False), Backend(id="a")) as server:
        status, message = await status_of(server.select(available_backends=["off"]))
        assert (status, "off: " in message) == ("FAILED_PRECONDITION", True)


async def test_where_only_holders_may_serve_a_retrieval_others_are_not_eligible() -> None:
    """For "retrieve" with a `content_hash` and no `available_backends`, where successful
    stores of that hash are remembered, only backends that hold it are eligible."""
    retrieve = {"operation": "retrieve"}
    async with world(*(Backend(id=name) for name in "abc")) as server:
        for backend, success in [("b", True), ("c", False)]:
            await server.select(content_hash="h", available_backends=[backend])
            await server.record(backend, success=success, content_hash="h")
        assert chosen_and_others(await server.select(content_hash="h", metadata=retrieve)) == ["b"]
        everybody = ["a", "b", "c"]
        for response in [
            await server.select(content_hash="h", metadata={"operation": "store"}),
            await server.select(content_hash="unheard-of", metadata=retrieve),
            await server.select(metadata=retrieve),
            await server.select(content_hash="h", metadata=retrieve, available_backends=everybody),
        ]:
            assert sorted(chosen_and_others(response)) == everybody
        without = retrieve | {"exclude_backends": ["b"]}
        assert (await status_of(server.select(content_hash="h", metadata=without)))[
            0
        ] == "FAILED_PRECONDITION"


# --- What comes back ---


async def test_alternatives_are_the_others_best_first() -> None:
    """`alternatives` lists the other eligible backends, best first, at most 32."""
    backends = [Backend(id=f"b{n:02}", latency_ms=10 + (n * 7) % 40) for n in range(40)]
    async with world(*backends) as server:
        few = await server.select(available_backends=["b03", "b01", "b02"])
        many = await server.select()
    assert len(few.alternatives) == 2
    assert len(many.alternatives) == 32
    scores = [many.score, *(other.score for other in many.alternatives)]
    assert scores == sorted(scores, reverse=True)
    assert many.backend_id not in {other.backend_id for other in many.alternatives}


@pytest.mark.parametrize("request_id", ["", "r-1", "é" * 128])
async def test_the_request_id_is_echoed_and_the_servers_time_told(request_id: str) -> None:
    """`request_id` is echoed. … Every response carries the server's time in `timestamp`."""
    async with world(Backend(id="a")) as server:
        response = await server.select(request_id=request_id, timestamp=datetime(2001, 1, 1, tzinfo=UTC))
    assert response.request_id == request_id
    assert response.timestamp == datetime.fromtimestamp(NOON, UTC)


INVALID = [
    ({"content_size": -1}, "content_size"),
    ({"at": (90.001, 0.0, "")}, "client_location.latitude"),
    ({"at": (-90.001, 0.0, "")}, "client_location.latitude"),
    ({"at": (float("nan"), 0.0, "")}, "client_location.latitude"),
    ({"at": (float("inf"), 0.0, "eu")}, "client_location.latitude"),
    ({"at": (0.0, 180.001, "")}, "client_location.longitude"),
    ({"at": (0.0, -180.001, "")}, "client_location.longitude"),
    ({"at": (0.0, float("nan"), "")}, "client_location.longitude"),
    ({"at": (0.0, 0.0, "r" * 257)}, "client_location.region"),
    ({"request_id": "r" * 257}, "request_id"),
    ({"content_type": "t" * 256}, "content_type"),
    ({"content_hash": "h" * 1025}, "content_hash"),
    ({"available_backends": ["b" * 257]}, "available_backends"),
    ({"available_backends": [""]}, "available_backends"),
    ({"available_backends": ["a"] * 1025}, "available_backends"),
    ({"metadata": {"require_tags": ["t" * 257]}}, "metadata.require_tags"),
    ({"metadata": {"exclude_backends": ["b" * 257]}}, "metadata.exclude_backends"),
]


@pytest.mark.parametrize(("fields", "named"), INVALID)
async def test_what_the_contract_calls_invalid_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    """INVALID_ARGUMENT: a negative `content_size`; a latitude outside [-90, 90] … a string
    longer than its limit (identifiers 256 bytes, content_type 255, content_hash 1,024); more
    than 1,024 `available_backends`."""
    async with world(Backend(id="a")) as server:
        status, message = await status_of(server.select(**fields))
        assert (status, message.split(": ")[0]) == ("INVALID_ARGUMENT", named)
        assert (await server.metrics())["system"]["decisions_total"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"at": (90.0, 180.0, "r" * 256)},
        {"at": (-90.0, -180.0, "")},
        {"request_id": "r" * 256, "content_type": "t" * 255, "content_hash": "h" * 1024},
        {"available_backends": ["b" * 256]},
        {"content_size": 2**63 - 1},
    ],
)
async def test_the_limits_themselves_are_taken(fields: dict[str, Any]) -> None:
    async with world(Backend(id="a")) as server:
        assert (await status_of(server.select(**fields)))[0] == "OK"


async def test_as_many_names_as_the_limit_are_taken() -> None:
    async with world(Backend(id="a")) as server:
        names = [f"b{n:04}" for n in range(1023)] + ["a"]
        response = await server.select(available_backends=names)
    assert len(response.alternatives) == 32


async def test_equal_inputs_and_equal_state_give_equal_answers() -> None:
    """Equal inputs and equal state give equal answers … except under `adaptive`."""

    async def run(seed: int) -> list[bytes]:
        async with world(NEAR, FAR, Backend(id="plain"), seed=seed) as server:
            answers = []
            for n in range(60):
                response = await server.select(
                    content_type=["image/png", "text/html"][n % 2],
                    content_size=n * 10**6,
                    at=(*[VIRGINIA, SYDNEY][n % 2], ""),
                    strategy=["", "performance", "cost"][n % 3],
                    request_id=f"r-{n}",
                )
                answers.append(bytes(response))
                await server.record(
                    response.backend_id, success=n % 7 != 0, duration_ms=100 + n, request_id=f"r-{n}"
                )
                server.wait(1.5)
            return answers

    assert await run(seed=1) == await run(seed=2)


async def test_ties_break_by_backend_id() -> None:
    """ties break by backend id"""
    async with world(*(Backend(id=name) for name in ("c", "a", "d", "b"))) as server:
        assert chosen_and_others(await server.select()) == ["a", "b", "c", "d"]
