"""A clock that jumps: said once, and survived."""

import logging
import time
from random import Random

import pytest
from edges import in_memory

from routing import wire
from routing.clock import JUMP_SECONDS, WatchedClock
from routing.core.model import Backend
from routing.core.router import Router
from routing.rpc.calls import Calls
from routing.rpc.service import RoutingService
from routing.store import NullStore

NOON = 1_700_000_000.0
DAY = 86_400.0


class Watch:
    """A clock, and the log of who reads it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog
        self.wall, self.passed = NOON, 0.0
        self.clock = WatchedClock(lambda: self.wall, lambda: self.passed)

    def after(self, seconds: float, *, jump: float = 0.0) -> list[str]:
        """What is said at a reading this much later, the clock having jumped as well."""
        self.caplog.clear()
        self.wall += seconds + jump
        self.passed += seconds
        assert self.clock() == self.wall
        return [record.getMessage() for record in self.caplog.records]


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Watch:
    caplog.set_level(logging.INFO)
    return Watch(caplog)


def test_time_that_passes_is_no_jump(watch: Watch) -> None:
    assert watch.after(1.0) == watch.after(30 * DAY) == []


@pytest.mark.parametrize(
    ("jump", "said"), [(DAY, "by_seconds=+86400"), (-7 * DAY, "by_seconds=-604800"), (JUMP_SECONDS, "+60")]
)
def test_a_jump_is_said_once(watch: Watch, jump: float, said: str) -> None:
    (line,) = watch.after(1.0, jump=jump)
    assert line.startswith("clock jumped by_seconds=")
    assert line.endswith(said)
    assert watch.after(1.0) == []


def test_what_is_put_right_little_by_little_is_no_jump(watch: Watch) -> None:
    for _ in range(1000):
        assert watch.after(1.0, jump=0.5) == []


def test_it_tells_the_time() -> None:
    before = time.time()
    assert before <= WatchedClock()() <= time.time()


@pytest.mark.parametrize("jumps", [(DAY, -DAY), (-7 * DAY,), (DAY, -7 * DAY, 6 * DAY), (1e9, -1e9)])
async def test_calls_go_on_and_are_counted_whatever_the_clock_does(jumps: tuple[float, ...]) -> None:
    now = NOON
    router = Router([Backend("a"), Backend("b")], random=Random(0))
    calls = Calls(wire.Codec())
    service = RoutingService(router, NullStore(), clock=lambda: now, version="1")
    async with in_memory(calls, service) as channel:
        stub = wire.RoutingServiceStub(channel)
        for jump in (0.0, *jumps):
            now += jump
            await stub.select_backend(wire.SelectBackendRequest(content_hash="h"))
            answer = await stub.record_outcome(wire.RecordOutcomeRequest(backend_id="a", success=True))
            assert answer.message.startswith("recorded")
            shown = wire.read_struct((await stub.get_insights(wire.GetInsightsRequest())).backend_usage_stats)
            assert shown["a"]["outcome_count"] >= 1
        assert (router.decisions_total, router.outcomes_total) == (len(jumps) + 1, len(jumps) + 1)
