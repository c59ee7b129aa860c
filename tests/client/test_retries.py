import random
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline
from hypothesis import given
from hypothesis import strategies as st

from routing.client import DeadlineExceeded, NoBackend, RoutingClient, ServerUnavailable
from routing.client.connection import ClientConnection
from routing.client.messages import SELECT
from routing.client.retries import CAP_S, RetryingCaller, backoff_s
from routing.errors import InvalidArgument
from support.scripted_server import UNAVAILABLE, Script, Waits, chosen, client_of, forever, recorded


@given(st.integers(1, 10_000), st.randoms(use_true_random=False))
def test_a_wait_lies_between_nothing_and_its_bound(failures: int, dice: random.Random) -> None:
    assert 0.0 <= backoff_s(failures, dice) <= min(CAP_S, 0.1 * 2 ** min(failures - 1, 20))


def test_an_unavailable_server_is_tried_again_with_growing_bounds() -> None:
    dice, bounds = random.Random(0), []
    dice.uniform = lambda low, high: bounds.append((low, high)) or high  # type: ignore[method-assign,func-returns-value]
    for failures in range(1, 9):
        backoff_s(failures, dice)
    assert bounds == [(0.0, bound) for bound in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0)]


async def test_a_call_goes_through_once_the_server_is_back() -> None:
    script, waits = Script(select=[UNAVAILABLE, UNAVAILABLE, chosen("s3")]), Waits()
    async with client_of(script, sleep=waits) as client:
        assert (await client.select()).backend_id == "s3"
    assert waits.seconds == [0.1, 0.2]


async def test_a_retry_is_the_same_request() -> None:
    script = Script(select=[UNAVAILABLE, chosen()], record=[UNAVAILABLE, recorded()])
    async with client_of(script) as client:
        await client.select()
        await client.record("s3", True, request_id="r1")
    for first, second in script.asked.values():
        assert first == second
        assert first.request_id == second.request_id != ""


async def test_it_is_tried_as_often_as_was_said_and_then_the_error_goes_on() -> None:
    script, waits = Script(select=UNAVAILABLE), Waits()
    async with client_of(script, sleep=waits, retries=2) as client:
        with pytest.raises(ServerUnavailable, match="gone for a moment"):
            await client.select()
    assert len(script.asked["select"]) == 3
    assert len(waits.seconds) == 2


@pytest.mark.parametrize("status", [each for each in Status if each not in (Status.OK, Status.UNAVAILABLE)])
async def test_no_other_status_is_tried_again(status: Status) -> None:
    script = Script(select=GRPCError(status, "no"))
    async with client_of(script) as client:
        with pytest.raises(Exception, match=f"{status.name}: no"):
            await client.select()
    assert len(script.asked["select"]) == 1


async def test_a_refusal_has_its_type_and_its_message() -> None:
    async with client_of(Script(select=GRPCError(Status.FAILED_PRECONDITION, "s3: disabled"))) as client:
        with pytest.raises(NoBackend) as caught:
            await client.select()
    assert (caught.value.status, caught.value.message) == ("FAILED_PRECONDITION", "s3: disabled")


async def test_a_wait_that_would_outlast_the_deadline_is_not_begun() -> None:
    script, waits = Script(select=UNAVAILABLE), Waits()
    async with client_of(script, sleep=waits, retries=20) as client:
        with pytest.raises(ServerUnavailable):
            await client.select(timeout_seconds=3.0)
    assert waits.seconds == [0.1, 0.2, 0.4, 0.8, 1.6]  # and not 3.2


async def test_the_deadline_covers_the_retries() -> None:
    """Each try gets the one deadline, not the whole time again."""
    deadlines: list[Deadline] = []

    class Refusing(ClientConnection):
        async def unary(self, method: Any, message: Any, deadline: Deadline) -> Any:
            deadlines.append(deadline)
            raise ServerUnavailable("no")

    connection = Refusing(Channel, {}, name="nobody", owned=False)
    caller = RetryingCaller(connection, timeout_seconds=60.0, retries=3, sleep=Waits())
    with pytest.raises(ServerUnavailable):
        await caller.unary(SELECT, SELECT.request(), timeout_seconds=30.0)
    assert deadlines == deadlines[:1] * 4
    assert 0.0 < deadlines[0].time_remaining() <= 30.0


async def test_a_server_that_does_not_answer_in_time_is_left() -> None:
    async with client_of(Script(select=forever)) as client:
        with pytest.raises(DeadlineExceeded, match="in time"):
            await client.select(timeout_seconds=0.01)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), 1e8])
async def test_a_timeout_that_no_header_can_carry_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidArgument, match=r"timeout_seconds: .* expected more than 0"):
        RoutingClient(timeout_seconds=seconds)
    async with client_of(Script(select=chosen())) as client:
        with pytest.raises(InvalidArgument, match="timeout_seconds"):
            await client.select(timeout_seconds=seconds)
