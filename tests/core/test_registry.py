"""Who is known, who may serve a query, and why the others may not."""

import pytest

from routing.core.model import Backend, Location, Operation, Query
from routing.core.registry import Registry
from routing.errors import InvalidArgument, LimitReached, NoEligibleBackend
from support.makers import NOON, candidate, router

A = Backend("a", tags=frozenset({"eu", "hot"}), max_object_bytes=1000, latitude=0.0, longitude=0.0)
B = Backend("b", tags=frozenset({"us"}), latitude=0.0, longitude=180.0)
OFF = Backend("off", enabled=False, latitude=1.0)


def registry(*, discover: bool = True, max_backends: int = 8) -> Registry:
    return Registry([A, B, OFF], discover=discover, max_backends=max_backends)


def eligible(query: Query, holders: tuple[str, ...] = (), of: Registry | None = None) -> list[str]:
    may, _ = (of or registry()).eligible(query, holders)
    return [backend.id for backend in may]


def reason(query: Query, backend_id: str, holders: tuple[str, ...] = ()) -> str:
    _, why_not = registry().eligible(query, holders)
    return why_not[backend_id]


# --- who is known ---


def test_the_configured_backends_are_known_in_their_order() -> None:
    assert registry().backends == (A, B, OFF)
    assert registry().find("a") is A
    assert registry().find("nobody") is None
    assert repr(registry()) == "Registry(backends=3, discovered=0)"


def test_two_backends_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="backends: 'a' is not valid"):
        Registry([A, A], discover=True, max_backends=8)


def test_a_name_that_only_a_client_used_gets_a_neutral_profile() -> None:
    subject = registry()
    subject.admit("available_backends", ("new", "a", "new"))
    assert subject.find("new") == Backend("new", discovered=True)
    assert repr(subject) == "Registry(backends=4, discovered=1)"
    assert subject.snapshot() == ["new"]


def test_a_neutral_profile_speaks_neither_for_nor_against_a_backend() -> None:
    chosen = router(["a"]).select(Query(size_bytes=10**9, content_type="text/plain"), now=NOON).chosen
    performance, cost, reliability, geo, affinity, load = chosen.factor_scores
    assert (performance, cost, geo, affinity) == pytest.approx((0.5,) * 4)
    assert (reliability, load) == (0.95, 1.0)
    assert chosen.estimate == candidate(expected_ms=40_150.0).estimate


def test_with_discovery_off_an_unknown_name_is_refused_and_named() -> None:
    subject = registry(discover=False)
    with pytest.raises(InvalidArgument, match="available_backends: 'new' is not valid") as caught:
        subject.admit("available_backends", ("a", "new"))
    assert caught.value.field == "available_backends"
    assert subject.find("new") is None
    subject.admit("available_backends", ("a", "off"))


def test_the_limit_of_backends_is_reached_exactly() -> None:
    subject = registry(max_backends=5)
    subject.admit("available_backends", ("x", "y"))
    with pytest.raises(LimitReached, match=r"'z' is not known, and the limit of 5 backends"):
        subject.admit("available_backends", ("z",))
    subject.admit("available_backends", ("a", "x", "y"))
    assert len(subject.backends) == 5


def test_names_are_admitted_together_or_not_at_all() -> None:
    subject = registry(max_backends=5)
    with pytest.raises(LimitReached, match="leaves room for 2 of 3 new ones"):
        subject.admit("available_backends", ("x", "y", "z"))
    assert len(subject.backends) == 3


def test_a_name_given_twice_takes_one_place() -> None:
    subject = registry(max_backends=4)
    subject.admit("available_backends", ("x", "x", "x"))
    assert len(subject.backends) == 4


def test_names_from_a_snapshot_are_added_as_far_as_there_is_room() -> None:
    subject = registry(max_backends=4)
    subject.merge(["a", "x", "y"])
    assert [backend.id for backend in subject.backends] == ["a", "b", "off", "x"]
    assert subject.find("a") is A


# --- who may serve ---


def test_without_wishes_every_enabled_backend_may_serve() -> None:
    assert eligible(Query()) == ["a", "b"]
    assert reason(Query(), "off") == "disabled"


def test_available_backends_restrict_the_choice_and_name_each_once() -> None:
    assert eligible(Query(available_backends=("b", "off", "b"))) == ["b"]
    _, why_not = registry().eligible(Query(available_backends=("b", "off")), ())
    assert why_not == {"off": "disabled"}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [({"eu"}, ["a"]), ({"eu", "hot"}, ["a"]), ({"us"}, ["b"]), ({"eu", "us"}, []), (set(), ["a", "b"])],
)
def test_only_backends_with_all_required_tags_may_serve(tags: set[str], expected: list[str]) -> None:
    assert eligible(Query(require_tags=frozenset(tags))) == expected


def test_the_reason_names_the_missing_tags_but_not_thousands() -> None:
    assert reason(Query(require_tags=frozenset({"eu", "us"})), "a") == "lacks the tags us"
    eight, nine = (frozenset(f"t{number}" for number in range(most)) for most in (8, 9))
    assert reason(Query(require_tags=eight), "a") == "lacks the tags t0, t1, t2, t3, t4, t5, t6, t7"
    assert reason(Query(require_tags=nine), "a") == "lacks some of the 9 tags asked for"


def test_an_excluded_backend_may_not_serve_even_if_it_is_available() -> None:
    query = Query(available_backends=("a", "b"), exclude_backends=frozenset({"a", "nobody"}))
    assert eligible(query) == ["b"]
    assert reason(query, "a") == "excluded by the request"


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [(0, ["a", "b"]), (1, ["a", "b"]), (1000, ["a", "b"]), (1001, ["b"]), (2**63 - 1, ["b"])],
)
def test_an_object_must_fit(size_bytes: int, expected: list[str]) -> None:
    assert eligible(Query(size_bytes=size_bytes)) == expected


def test_the_reason_says_what_would_fit() -> None:
    why = reason(Query(size_bytes=2**63 - 1), "a")
    assert why == "takes objects of at most 1,000 bytes, not 9,223,372,036,854,775,807"


def test_a_retrieval_goes_to_holders_only() -> None:
    query = Query(content_hash="h", operation=Operation.RETRIEVE)
    assert eligible(query, ("b", "gone")) == ["b"]
    assert reason(query, "a", ("b",)) == "is not known to hold the content"
    assert eligible(query, ()) == ["a", "b"]


def test_holders_do_not_matter_to_a_store_or_where_the_client_says_what_is_available() -> None:
    assert eligible(Query(content_hash="h"), ("b",)) == ["a", "b"]
    query = Query(content_hash="h", operation=Operation.RETRIEVE, available_backends=("a",))
    assert eligible(query, ("b",)) == ["a"]


def test_when_nobody_may_serve_every_candidate_is_named_with_its_reason() -> None:
    subject = router([A, B, OFF])
    query = Query(size_bytes=5000, require_tags=frozenset({"eu"}))
    with pytest.raises(NoEligibleBackend) as caught:
        subject.select(query, now=NOON)
    assert caught.value.message == (
        "no eligible backend (a: takes objects of at most 1,000 bytes, not 5,000;"
        " b: lacks the tags eu; off: disabled)"
    )
    with pytest.raises(NoEligibleBackend, match=r"\(a: excluded by the request\)"):
        subject.select(Query(available_backends=("a",), exclude_backends=frozenset("a")), now=NOON)


def test_when_no_backend_is_known_the_message_says_so() -> None:
    with pytest.raises(NoEligibleBackend, match="no backend is known"):
        router([]).select(Query(), now=NOON)


# --- distances ---


def test_a_distance_needs_both_places() -> None:
    subject = registry()
    assert subject.distances_km(Location(0.0, 0.0), [A, B, OFF]) == pytest.approx([0.0, 20_015.0, None])
    for nowhere in (None, Location(region="eu"), Location(1.0, None), Location(None, 1.0)):
        assert subject.distances_km(nowhere, [A, B]) == [None, None]


def test_a_discovered_backend_is_nowhere() -> None:
    subject = registry()
    subject.admit("backend_id", ("new",))
    new = subject.find("new")
    assert new is not None
    assert subject.distances_km(Location(0.0, 0.0), [new]) == [None]
