"""SelectBackend: a backend that keeps failing is suspended, probed, and comes back."""

import hashlib
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from routing.core.limits import Limits
from routing.core.model import Backend, Query
from routing.rpc.caller import Caller
from support.contract_world import World, world

GOOD, BAD = Backend(id="good", latency_ms=200), Backend(id="bad", latency_ms=20)
"""`bad` is the better one until it fails."""


async def eligible(server: World, **fields: object) -> list[str]:
    response = await server.select(**fields)  # type: ignore[arg-type]
    return sorted([response.backend_id, *(other.backend_id for other in response.alternatives)])


async def outcomes(server: World, pattern: str, backend: str = "bad") -> None:
    """One outcome a letter: S for success, F for failure."""
    for letter in pattern:
        await server.record(backend, success=letter == "S")


async def choices(server: World, count: int, strategy: str = "hybrid") -> list[str]:
    """Many decisions, for which the wire would be slow: all but the last are made in the core."""
    query = Query(strategy=strategy)
    chosen = [server.router.select(query, now=server.now).chosen.backend_id for _ in range(count - 1)]
    return [*chosen, (await server.select(strategy=strategy)).backend_id]


@pytest.mark.parametrize(
    ("pattern", "state"),
    [
        ("FFFF", "ok"),
        ("FFFFF", "suspended"),
        ("FFFFSFFFF", "ok"),
        ("FFFFSFFFFS", "suspended"),
        ("FFFFSFFFFSFFFF", "suspended"),
        ("SSSSSSSSSSFFFF", "ok"),
        ("SSSSSSSSSSFFFFF", "suspended"),
        ("SFSFSFSFSFSFSFSSSSSS", "ok"),
    ],
)
async def test_a_backend_that_keeps_failing_is_suspended(pattern: str, state: str) -> None:
    """*suspended*: after 5 failures in a row, or when its learned probability of success is
    below 0.5 on at least 10 outcomes … `state` in StreamMetrics tells: `ok`, `suspended`"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, pattern)
        assert await server.state("bad") == state
        assert await eligible(server) == (["good"] if state == "suspended" else ["bad", "good"])


async def test_a_disabled_backend_is_told_as_disabled() -> None:
    """`state` in StreamMetrics tells: … `disabled`"""
    async with world(GOOD, Backend(id="off", enabled=False)) as server:
        assert [await server.state("good"), await server.state("off")] == ["ok", "disabled"]


@pytest.mark.parametrize(
    "strategy",
    ["hybrid", "performance", "cost", "reliability", "geographic", "content_type", "adaptive"],
)
async def test_a_suspended_backend_is_not_eligible_under_any_strategy(strategy: str) -> None:
    """A suspended backend is not eligible, under any strategy, while another eligible one is
    not suspended"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        for _ in range(5):
            assert await eligible(server, strategy=strategy) == ["good"]


async def test_where_all_are_suspended_all_stay_eligible() -> None:
    """if all are, all stay eligible"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        await outcomes(server, "FFFFF", "good")
        assert await eligible(server) == ["bad", "good"]
        assert await eligible(server, available_backends=["bad"]) == ["bad"]


async def test_a_suspended_backend_is_chosen_where_no_other_may_be() -> None:
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        assert await eligible(server, available_backends=["bad"]) == ["bad"]
        assert await eligible(server, metadata={"exclude_backends": ["good"]}) == ["bad"]


async def until_probe(server: World, *, every_s: float = 0.0, **fields: Any) -> tuple[int, str]:
    """How many decisions pass before one is a probe, and of which backend. All are made in the core,
    for which the wire would be slow."""
    for passed in range(1000):
        server.wait(every_s)
        decision = server.router.select(Query(**fields), now=server.now)
        if decision.probe:
            return passed, decision.chosen.backend_id
    raise AssertionError("no probe")


async def probe(server: World, success: bool, backend: str = "bad") -> None:
    """The next probe and its outcome, linked through the server."""
    server.wait(600)
    for number in range(60):
        answer = await server.select(explain=True, request_id=f"{server.now}-{number}")
        if answer.explanation.fields["probe"].bool_value:
            assert answer.backend_id == backend
            await server.record(backend, success=success, request_id=answer.request_id)
            return
    raise AssertionError("no probe")


async def test_the_first_probe_comes_after_20_decisions_and_30_seconds() -> None:
    """for at least 20 and its wait has passed: 30 seconds"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        server.wait(29.9)
        assert await choices(server, 30) == ["good"] * 30
        server.wait(0.2)
        assert await choices(server, 3) == ["bad", "good", "good"]
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        assert await until_probe(server, every_s=600.0) == (20, "bad")


async def test_or_after_200_decisions_and_a_second() -> None:
    """when it would have been eligible for at least 200 decisions since its last probe and at least
    1 second has passed"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        server.wait(1)
        for _ in range(300):  # it would not have been eligible for these
            await server.select(available_backends=["good"])
        assert "bad" not in await choices(server, 199)
        assert (await choices(server, 2)).count("bad") == 1
        assert "bad" not in await choices(server, 300)  # not yet a second
        server.wait(1)
        assert await choices(server, 1) == ["bad"]


@pytest.mark.parametrize("strategy", ["hybrid", "adaptive"])
async def test_waits_double_with_each_failed_probe_up_to_10_minutes(strategy: str) -> None:
    """doubling with each failed probe up to 10 minutes, 30 again after a successful one … The same
    under every strategy."""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        for wait_s in (30, 60, 120, 240, 480, 600, 600):
            assert "bad" not in await choices(server, 20, strategy)
            server.wait(wait_s - 0.1)
            assert await choices(server, 2, strategy) == ["good"] * 2
            server.wait(0.2)
            assert await choices(server, 1, strategy) == ["bad"]
            await outcomes(server, "F")


@pytest.mark.parametrize("dead", [1, 19])
async def test_at_most_one_decision_in_20_is_a_probe(dead: int) -> None:
    """At least 19 decisions that had suspended candidates lie between two probes, of whichever
    backends; of several due the one that waited longest goes first."""
    names = [f"dead-{number:02}" for number in range(dead)]
    async with world(GOOD, *(Backend(id=name, latency_ms=1) for name in names)) as server:
        for name in names:
            server.wait(1)
            await outcomes(server, "FFFFF", name)
        found = [await until_probe(server, every_s=600.0) for _ in range(dead)]
        assert [name for _, name in found] == names
        assert {passed for passed, _ in found[1:]} <= {19}


async def test_probes_go_on_when_all_are_suspended() -> None:
    """also when all are"""
    async with world(GOOD, BAD) as server:
        for name in ("bad", "good"):
            await outcomes(server, "FFFFF", name)
        chosen = []
        for number in range(120):
            server.wait(1)
            answer = await server.select(request_id=f"r{number}", available_backends=["bad", "good"])
            chosen.append(answer.backend_id)
            await server.record(
                answer.backend_id, success=answer.backend_id == "good", request_id=f"r{number}"
            )
        assert chosen[0] == "bad"
        assert set(chosen[100:]) == {"good"}
        assert (await server.state("good"), await server.state("bad")) == ("ok", "suspended")


async def test_a_probe_says_that_it_is_one() -> None:
    """(the schema: whether the choice re-checks a backend that is suspended)"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        await choices(server, 20)
        server.wait(31)
        probe, after = await server.select(explain=True), await server.select(explain=True)
    assert (probe.backend_id, after.backend_id) == ("bad", "good")
    assert probe.explanation.fields["probe"].bool_value is True
    assert after.explanation.fields["probe"].bool_value is False
    assert "suspended" in after.explanation.fields["ineligible"].struct_value.fields["bad"].string_value


async def test_three_successes_in_a_row_lift_the_suspension() -> None:
    """After a successful probe the next is due after 20 such decisions; 3 successes in a row of
    operations that were decided after the suspension began lift it"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        for success in (True, True, False, True, True):
            await probe(server, success)
            assert await server.state("bad") == "suspended"
            if success:
                assert (await until_probe(server)) == (20, "bad")
        await probe(server, True)
        assert await server.state("bad") == "ok"
        assert await eligible(server) == ["bad", "good"]


async def test_a_transfer_that_was_decided_before_the_suspension_does_not_lift_it() -> None:
    async with world(GOOD, BAD) as server:
        for number in range(3):
            await server.select(request_id=f"r{number}")
        server.wait(60)
        await outcomes(server, "FFFFF")
        server.wait(1)
        for number in range(3):
            await server.record("bad", request_id=f"r{number}")
        assert await server.state("bad") == "suspended"


async def test_clients_that_never_link_can_still_lift() -> None:
    """(where no decision is remembered, the outcome's time less its duration stands for the
    decision's)"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "FFFFF")
        server.wait(60)
        for _ in range(3):
            await server.record("bad", duration_ms=61_000)
        assert await server.state("bad") == "suspended"
        for _ in range(3):
            await server.record("bad", duration_ms=59_000)
        assert await server.state("bad") == "ok"


async def test_the_record_from_before_does_not_suspend_again() -> None:
    """and the record from before does not suspend again without new failures"""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "F" * 400)
        server.wait(1)
        await outcomes(server, "SSS")
        for _ in range(20):
            assert await server.state("bad") == "ok"
            server.wait(1)
            await outcomes(server, "S")


async def test_a_kind_that_fails_alone_does_not_suspend_while_another_succeeds() -> None:
    """Where the last five failures are all of one … operation and content type, they suspend only
    if no other … operation or type, has succeeded there within 10 minutes and later than that …
    kind's, own last success"""
    async with world(GOOD, BAD) as server:
        for _ in range(10):
            await server.record("bad", content_type="image/png")
        for _ in range(50):
            await server.record("bad", success=False, content_type="video/mp4")
        assert await server.state("bad") == "ok"
        server.wait(601)
        await server.record("bad", success=False, content_type="video/mp4")
        assert await server.state("bad") == "suspended"


async def test_a_client_that_fails_alone_does_not_suspend_while_another_succeeds() -> None:
    """(by authenticated name, else by address) … yet a backend that is really dead is suspended:
    later than that caller's … own last success"""
    async with world(GOOD, BAD, admit=by_name) as server:
        for _ in range(100):
            await server.record("bad", caller="well")
        for _ in range(50):
            await server.record("bad", success=False, caller="broken")
        assert await server.state("bad") == "ok"
        await server.record("bad", caller="broken")
        for _ in range(5):
            await server.record("bad", success=False, caller="broken")
        assert await server.state("bad") == "suspended"
        assert set(server.router.suspension("bad").failures.callers) == {
            hashlib.blake2b(name.encode(), digest_size=8).hexdigest() for name in ("name well", "name broken")
        }


def by_name(_path: str, caller: Caller, _again: bool) -> None:
    caller.identify(f"name {caller.authorization}")


async def test_limits_rule_out_by_the_mean_and_a_request_s_do_not_give_way() -> None:
    """`max_cost_usd` …, `max_ms` and `min_success` rule out candidates by the mean belief about this
    operation, never by a draw … a request's … do not: FAILED_PRECONDITION."""
    dear = Backend(id="dear", latency_ms=20, egress_usd_per_gb=90, success_rate=0.99)
    slow = Backend(id="slow", latency_ms=5000, success_rate=0.9)
    async with world(dear, slow) as server:
        for strategy in ("hybrid", "adaptive"):
            cases: list[tuple[dict[str, float], list[str]]] = [
                ({"max_cost_usd": 0.01}, ["slow"]),
                ({"max_ms": 1000}, ["dear"]),
                ({"min_success": 0.95}, ["dear"]),
                ({"max_ms": 1000, "min_success": 0.95, "max_cost_usd": 10}, ["dear"]),
            ]
            for limits, names in cases:
                for _ in range(5):
                    assert await eligible(server, metadata=limits, strategy=strategy) == names
        with pytest.raises(GRPCError) as caught:
            await server.select(metadata={"max_ms": 1000, "max_cost_usd": 0.01})
        assert caught.value.status is Status.FAILED_PRECONDITION
        assert caught.value.message == (
            "no eligible backend (dear: costs $0.094401, more than max_cost_usd 0.01;"
            " slow: is expected to take 5,042 ms, more than max_ms 1000)"
        )


async def test_the_server_s_own_limits_give_way_where_no_candidate_meets_them() -> None:
    """Where no candidate meets the server's own limits (`[routing]`), these give way, and the
    explanation says so"""
    async with world(GOOD, BAD, limits=Limits(max_ms=100)) as server:
        answer = await server.select(explain=True)
        assert answer.backend_id == "bad"
        assert answer.explanation.fields["limits_gave_way"].bool_value is False
        reason = answer.explanation.fields["ineligible"].struct_value.fields["good"].string_value
        assert reason == "is expected to take 242 ms, more than max_ms 100"
        answer = await server.select(explain=True, available_backends=["good"])
        assert answer.backend_id == "good"
        assert answer.explanation.fields["limits_gave_way"].bool_value is True


async def test_a_backend_that_only_min_success_rules_out_is_probed() -> None:
    """They do not apply to probes; a backend that only `min_success` or `max_ms` rules out is
    re-checked as a suspended one is."""
    async with world(GOOD, BAD) as server:
        await outcomes(server, "S" * 20 + "FFFF", "bad")
        limits: dict[str, Any] = {"min_success": 0.94}
        assert await eligible(server, metadata=limits) == ["good"]
        assert await until_probe(server, every_s=5.0, **limits) == (19, "bad")
        assert await eligible(server, metadata=limits) == ["good"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("max_ms", -1), ("max_cost_usd", "1"), ("min_success", 1.1), ("min_success", True), ("max_ms", None)],
)
async def test_a_limit_of_the_wrong_type_is_refused(key: str, value: object) -> None:
    """A known key with a value of the wrong type is INVALID_ARGUMENT."""
    async with world(GOOD) as server:
        with pytest.raises(GRPCError) as caught:
            await server.select(metadata={key: value})
        assert caught.value.status is Status.INVALID_ARGUMENT
        assert f"metadata.{key}" in str(caught.value.message)
