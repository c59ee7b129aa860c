"""Names that are not configured: who may use them, what they hold, and when they end."""

import json
from typing import Any

import pytest

from routing.core.events import apply_event, decision_event, discovery_event, outcome_event
from routing.core.model import Backend, Operation, Outcome
from routing.core.report import status
from routing.errors import NoEligibleBackend
from support.makers import NOON, Clock, router


def retrieved_from(clock: Clock, **fields: Any) -> list[str]:
    decision = clock.select(content_hash="h", operation=Operation.RETRIEVE, **fields)
    return sorted([decision.chosen.backend_id, *(one.backend_id for one in decision.others)])


def restarted(clock: Clock, *names: str) -> Clock:
    fresh = router(names)
    fresh.merge(json.loads(json.dumps(clock.snapshot())), now=clock.now)
    return Clock(fresh, now=clock.now)


def test_a_mistyped_name_serves_only_requests_that_name_it() -> None:
    clock = Clock(router(["bucket-frankfurt"]))
    clock.succeed("bucket-frankfrut", times=50, duration_ms=1)
    for _ in range(20):
        assert clock.select().chosen.backend_id == "bucket-frankfurt"
        assert clock.select().others == ()
    decision = clock.select(available_backends=("bucket-frankfrut", "bucket-frankfurt"))
    assert decision.discovered == {"bucket-frankfrut"}
    assert clock.select().discovered == frozenset()


def test_the_first_mention_names_the_configured_backend_that_it_resembles() -> None:
    subject = router(["bucket-frankfurt"])
    for _ in range(2):
        subject.record(Outcome("bucket-frankfrut", True), now=NOON)
        subject.record(Outcome("zzz", True), now=NOON)
    assert [*map(tuple, subject.mentions)] == [("bucket-frankfrut", "bucket-frankfurt"), ("zzz", None)]


def test_where_only_discovered_names_are_known_a_request_must_name_one() -> None:
    clock = Clock(router([]))
    clock.succeed("new")
    with pytest.raises(NoEligibleBackend, match="no backend is known"):
        clock.select()
    assert clock.select(available_backends=("new",)).chosen.backend_id == "new"


def test_a_name_that_is_not_configured_any_more_is_no_candidate_even_after_a_straggler() -> None:
    clock = Clock(router(["old", "kept"]))
    clock.succeed("old", times=50, duration_ms=1)
    after = restarted(clock, "kept")
    after.succeed("old", request_id="straggler")
    assert {after.select().chosen.backend_id for _ in range(20)} == {"kept"}
    after.fail("old", times=10)
    assert after.select(available_backends=("old",)).discovered == {"old"}


def test_a_renamed_backend_s_holdings_end_with_its_name() -> None:
    clock = Clock(router(["old", "kept"]))
    clock.succeed("old", content_hash="h")
    after = restarted(clock, "new", "kept")
    assert retrieved_from(after) == ["kept", "new"]
    after.succeed("old", request_id="straggler")
    assert retrieved_from(after) == ["kept", "new"]
    assert retrieved_from(after, available_backends=("old", "new")) == ["new", "old"]


def test_a_discovered_holder_does_not_keep_others_from_serving() -> None:
    clock = Clock(router(["a", "b"]))
    clock.succeed("cellar", content_hash="h")
    assert retrieved_from(clock) == ["a", "b"]
    chosen = clock.select(
        content_hash="h", operation=Operation.RETRIEVE, available_backends=("a", "cellar")
    ).chosen
    assert chosen.backend_id == "cellar"


def test_a_journal_about_a_backend_that_is_gone_leaves_no_holder() -> None:
    one, fresh = router(["old", "kept"]), router(["kept"])
    clock = Clock(one)
    decision = clock.select(content_hash="h", available_backends=("old",))
    rows = [
        discovery_event(()),
        decision_event(decision),
        outcome_event(Outcome("old", True, request_id="request-1"), now=NOON),
    ]
    for row in rows:
        apply_event(fresh, row, latest=NOON)
    assert retrieved_from(Clock(fresh)) == ["kept"]


def test_only_configured_and_enabled_backends_make_a_status() -> None:
    clock = Clock(router(["a", Backend("off", enabled=False)]))
    for name in ("typo", "off"):
        clock.fail(name, times=20)
    assert status(clock.router, now=clock.now).name == "NORMAL"
    clock.fail("a", times=20)
    assert status(clock.router, now=clock.now).name == "CRITICAL"
