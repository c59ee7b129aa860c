"""A server that says when to come again is heeded, whatever it refused."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from grpclib.testing import ChannelFor
from hypothesis import given, settings
from hypothesis import strategies as st

from routing import wire
from routing.client import Overloaded, RoutingClient
from routing.client.connection import read_pushback_s
from routing.client.errors import call_error
from routing.client.retries import CAP_S, retry_wait_s
from routing.errors import TooManyCalls
from routing.rpc.caller import Caller
from routing.rpc.calls import Calls
from support.scripted_server import Highest, Script, Waits, chosen, number, update


@asynccontextmanager
async def refused(
    script: Script, *waits_s: float, **options: Any
) -> AsyncIterator[tuple[RoutingClient, Waits]]:
    """A client of a server that refuses as many calls as there are waits, saying each."""
    told: Iterator[float] = iter(waits_s)

    def admit(_path: str, _caller: Caller, again: bool) -> None:
        wait_s = None if again else next(told, None)
        if wait_s is not None:
            raise TooManyCalls("slower, please", wait_s)

    waits = Waits()
    servable = Calls(wire.Codec(), admit=admit).wrap(script)
    async with (
        ChannelFor([servable], codec=wire.Codec()) as channel,
        RoutingClient(channel, sleep=waits, dice=Highest(), **options) as client,
    ):
        yield client, waits


async def test_a_call_is_made_again_after_what_was_said_and_some_more() -> None:
    async with refused(Script(select=chosen("s3")), 0.25, 3.0) as (client, waits):
        assert (await client.select()).backend_id == "s3"
    assert waits.seconds == [pytest.approx(0.25 + 0.1), pytest.approx(3.0 + 0.2)]


async def test_it_is_made_again_as_often_as_was_said_and_no_more() -> None:
    async with refused(Script(select=chosen()), *[0.1] * 9, retries=2) as (client, waits):
        with pytest.raises(Overloaded, match="slower, please") as caught:
            await client.select()
    assert len(waits.seconds) == 2
    assert caught.value.pushback_s == 0.1


async def test_a_wait_past_the_deadline_is_not_begun() -> None:
    async with refused(Script(select=chosen()), 5.0) as (client, waits):
        with pytest.raises(Overloaded):
            await client.select(timeout_seconds=4.0)
    assert waits.seconds == []


async def test_a_stream_begins_when_it_may() -> None:
    async with (
        refused(Script(metrics=[[update(0.5)]]), 0.25) as (client, waits),
        aclosing(client.metrics()) as updates,
    ):
        assert number(await anext(updates)) == 0.5
    assert waits.seconds == [pytest.approx(0.25 + 0.1)]


@pytest.mark.parametrize(
    ("said", "wait_s"), [("0", 0.0), ("1500", 1.5), ("-1", -0.001), ("soon", -1.0), ("", -1.0), ("1.5", -1.0)]
)
def test_what_is_no_time_asks_for_no_other_try(said: str, wait_s: float) -> None:
    assert read_pushback_s([("grpc-status", "8"), ("grpc-retry-pushback-ms", said)]) == wait_s
    assert read_pushback_s([("grpc-status", "8")]) is None


STATUSES = st.sampled_from(["UNAVAILABLE", "RESOURCE_EXHAUSTED"])


@settings(deadline=None)
@given(STATUSES, st.floats(0, 1e6), st.integers(1, 100), st.randoms(use_true_random=False))
def test_the_wait_is_what_was_said_and_no_longer_than_without_it_more(
    status: str, pushback_s: float, failures: int, dice: random.Random
) -> None:
    wait_s = retry_wait_s(call_error(status, "", pushback_s), failures, dice)
    assert wait_s is not None
    assert pushback_s <= wait_s <= pushback_s + CAP_S


@pytest.mark.parametrize(
    ("status", "pushback_s", "again"),
    [
        ("UNAVAILABLE", None, True),
        ("UNAVAILABLE", -1.0, False),
        ("RESOURCE_EXHAUSTED", None, False),
        ("RESOURCE_EXHAUSTED", -1.0, False),
        ("RESOURCE_EXHAUSTED", 0.0, True),
    ],
)
def test_no_other_try_is_made_where_none_would_help(
    status: str, pushback_s: float | None, again: bool
) -> None:
    wait_s = retry_wait_s(call_error(status, "", pushback_s), 1, Highest())
    assert (wait_s is not None) is again
