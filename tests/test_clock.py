"""A clock that jumps: logged once, and as if it had not jumped."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from routing import clock as clocks
from routing import wire
from routing.clock import JUMP_SECONDS, SystemClock
from routing.config.options import ServerSettings, Settings
from routing.core.model import Backend
from routing.core.router import Router
from routing.rpc.calls import Calls
from routing.rpc.service import RoutingService
from routing.server.assembly import Assembly, assemble
from routing.store import NullStore
from support.grpc_calls import in_memory

NOON = 1_700_000_000.0
DAY = 86_400.0
JUMPS = [(DAY, -DAY), (-7 * DAY,), (DAY, -7 * DAY, 6 * DAY), (1e9, -1e9)]


class Watch:
    """A wall clock that can be set, and the router's clock beside it."""

    def __init__(self) -> None:
        self.wall, self.passed = NOON, 0.0
        self.clock = self.another()

    def another(self) -> SystemClock:
        """The clock of a process that starts now."""
        return SystemClock(lambda: self.wall, lambda: self.passed)

    def wait(self, seconds: float, *, jump: float = 0.0) -> None:
        self.wall += seconds + jump
        self.passed += seconds


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Watch:
    caplog.set_level(logging.INFO)
    return Watch()


def logged(caplog: pytest.LogCaptureFixture, watch: Watch) -> list[str]:
    """What is logged at a reading."""
    caplog.clear()
    watch.clock()
    return [record.getMessage() for record in caplog.records]


def test_time_that_passes_is_no_jump(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    for seconds in (1.0, 30 * DAY):
        watch.wait(seconds)
        assert logged(caplog, watch) == []
    assert watch.clock() == watch.wall


@pytest.mark.parametrize(
    ("jump", "said"), [(DAY, "by_seconds=+86400"), (-7 * DAY, "by_seconds=-604800"), (JUMP_SECONDS, "+60")]
)
def test_a_jump_is_logged_once_and_time_goes_on_evenly(
    watch: Watch, caplog: pytest.LogCaptureFixture, jump: float, said: str
) -> None:
    watch.wait(1.0, jump=jump)
    (line,) = logged(caplog, watch)
    assert line.startswith("clock jumped by_seconds=")
    assert line.endswith(said)
    watch.wait(1.0)
    assert logged(caplog, watch) == []
    assert watch.clock() == NOON + 2.0
    assert watch.clock.ahead_s == jump


def test_small_corrections_are_no_jump(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(1000):
        watch.wait(1.0, jump=0.5)
        assert logged(caplog, watch) == []
    assert watch.clock() == NOON + 1000.0
    assert repr(watch.clock) == "<SystemClock ahead_s=500>"


def test_it_starts_with_the_time_of_day_and_counts_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.time()
    assert before - 1e-3 <= SystemClock()() <= time.time() + 1e-3
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert clocks._elapsed_clock()() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=1.0)
        monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert clocks._elapsed_clock() is time.monotonic


def test_a_clock_that_resumes_goes_on_in_the_time_of_the_state(watch: Watch) -> None:
    watch.wait(10.0, jump=DAY)
    watch.clock()
    watch.wait(50.0)
    later = watch.another()
    later.resume(watch.clock.ahead_s)
    assert later() == NOON + 60.0
    assert later.ahead_s == DAY


@pytest.mark.parametrize("jumps", JUMPS)
async def test_calls_with_any_clock_continue_and_are_counted_whatever_it_does(
    jumps: tuple[float, ...],
) -> None:
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


# --- as if it had not jumped, through a server ---


class Server:
    """A server whose wall clock jumps, and its client."""

    def __init__(self, watch: Watch, assembly: Assembly, stub: wire.RoutingServiceStub) -> None:
        self.watch, self.router, self.stub = watch, assembly.router, stub

    async def report(self, *, success: bool, stamped: bool = True, ago_s: float = 0.0) -> None:
        """An outcome with the client's time, whose clock is right: it jumps as the server's does."""
        timestamp = wire.write_time(self.watch.wall - ago_s) if stamped else None
        answer = await self.stub.record_outcome(
            wire.RecordOutcomeRequest(backend_id="a", success=success, timestamp=timestamp)
        )
        assert answer.success
        assert answer.timestamp == wire.write_time(self.watch.wall)

    async def select(self) -> str:
        answer = await self.stub.select_backend(wire.SelectBackendRequest(content_size=1))
        assert answer.timestamp == wire.write_time(self.watch.wall)
        return answer.backend_id

    async def counted(self, hours: int = 1) -> int:
        answer = await self.stub.get_insights(wire.GetInsightsRequest(time_window_hours=hours))
        assert answer.timestamp == wire.write_time(self.watch.wall)
        usage = wire.read_struct(answer.backend_usage_stats)
        return int(usage.get("a", {}).get("outcome_count", 0))


@asynccontextmanager
async def served(watch: Watch, state: Path | None = None) -> AsyncIterator[Server]:
    backends = Backend("a"), Backend("b", success_rate=0.9)
    server = ServerSettings() if state is None else ServerSettings(state=f"sqlite:///{state}")
    assembly = assemble(Settings(server=server, backends=backends), random=Random(0), clock=watch.clock)
    assembly.store.start()
    try:
        async with in_memory(assembly.calls, assembly.service) as channel:
            yield Server(watch, assembly, wire.RoutingServiceStub(channel))
    finally:
        await assembly.store.close()


@pytest.mark.parametrize("jumps", JUMPS)
@pytest.mark.parametrize("stamped", [False, True])
async def test_failures_suspend_as_if_the_clock_had_not_jumped(
    watch: Watch, jumps: tuple[float, ...], stamped: bool
) -> None:
    """time in the router goes on evenly, by a clock that counts sleep, stamps are read relative
    to the clock of the day"""
    async with served(watch) as server:
        await server.report(success=True, stamped=stamped)
        for jump in jumps:
            watch.wait(60.0, jump=jump)
        for number in range(5):
            assert server.router.state("a").value == "ok"
            watch.wait(1.0)
            await server.report(success=False, stamped=stamped)
            assert await server.counted() == 2 + number
        assert server.router.state("a").value == "suspended"
        assert await server.select() == "b"


async def test_a_stamp_that_a_jump_has_overtaken_is_read_by_the_clock_as_it_is(watch: Watch) -> None:
    async with served(watch) as server:
        watch.wait(60.0, jump=DAY)
        await server.report(success=False, ago_s=20.0)
        assert server.router.suspension("a").failures.failures[0].at == pytest.approx(NOON + 40.0)
        status = await server.stub.record_outcome(
            wire.RecordOutcomeRequest(backend_id="a", timestamp=wire.write_time(watch.wall - 200 * 3600.0))
        )
        assert not status.success


@pytest.mark.parametrize("jumps", JUMPS)
async def test_a_state_is_as_old_as_it_is_whenever_the_clock_has_jumped(
    watch: Watch, jumps: tuple[float, ...], tmp_path: Path
) -> None:
    """what a state holds is moved by the difference that it was written under"""
    state = tmp_path / "state.db"
    async with served(watch, state) as server:
        await server.report(success=True)
        for jump in jumps:
            watch.wait(60.0, jump=jump)
            await server.report(success=False, stamped=False)
    for _ in range(2):
        watch.wait(600.0)
        watch.clock = watch.another()
        async with served(watch, state) as server:
            assert await server.counted() == 1 + len(jumps)
            assert watch.clock() == pytest.approx(NOON + watch.passed)
    watch.wait(3600.0)
    watch.clock = watch.another()
    async with served(watch, state) as server:
        assert await server.counted() == 0
        assert await server.counted(hours=3) == 1 + len(jumps)


async def test_a_jump_that_no_event_followed_is_stored_at_the_end(watch: Watch, tmp_path: Path) -> None:
    state = tmp_path / "state.db"
    async with served(watch, state) as server:
        await server.report(success=True)
        watch.wait(60.0, jump=DAY)
        assert await server.counted() == 1
    watch.clock = watch.another()
    async with served(watch, state) as server:
        assert await server.counted() == 1
