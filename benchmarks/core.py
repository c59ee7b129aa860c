"""Time in the core: a decision, an outcome, the insights after a million outcomes.

    python benchmarks/core.py            # a minute or two
    python benchmarks/core.py --quick    # a few seconds, with a smaller history

Each round times all cases once, so that a busy moment of the machine affects all of them.
Printed are the fastest, the median and the slowest round in microseconds per call. The fastest
says most about the code, the distance to the slowest most about the machine.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random

from routing.core.model import Backend, Location, Operation, Outcome, Query
from routing.core.report import insights
from routing.core.router import Router

NOON = 1_700_000_000.0
CONTENT_TYPES = ("image/png", "video/mp4", "text/html", "application/zip", "")
CITIES = (
    Location(50.1, 8.7, "eu"),
    Location(40.7, -74.0, "us"),
    Location(-33.9, 151.2, "au"),
    Location(35.7, 139.7, "jp"),
)


def make_router(backends: int) -> Router:
    """Backends around the globe with complete profiles."""
    dice = Random(0)
    return Router(
        [
            Backend(
                id=f"backend-{number:03}",
                region=dice.choice(["eu", "us", "au", "jp"]),
                latitude=dice.uniform(-60.0, 60.0),
                longitude=dice.uniform(-180.0, 180.0),
                storage_usd_per_gb_month=dice.uniform(0.001, 0.05),
                egress_usd_per_gb=dice.uniform(0.0, 0.12),
                latency_ms=dice.uniform(20.0, 400.0),
                throughput_mbps=dice.uniform(50.0, 800.0),
                success_rate=dice.uniform(0.97, 0.9999),
                max_object_bytes=5 * 10**12,
                max_inflight=1000,
                tags=frozenset({"hot"}),
                content_affinity={"image/*": 0.9, "video/mp4": 0.7, "*/*": 0.5},
            )
            for number in range(backends)
        ],
        random=Random(0),
    )


@dataclass(slots=True)
class World:
    """A router, its clock, and an endless series of distinct requests."""

    router: Router
    now: float = NOON
    dice: Random = field(default_factory=lambda: Random(1))
    numbers: Iterator[int] = field(default_factory=count)

    def query(self, strategy: str) -> Query:
        number = next(self.numbers)
        return Query(
            content_hash=f"bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3{number:015}",
            content_type=self.dice.choice(CONTENT_TYPES),
            size_bytes=int(self.dice.lognormvariate(13.0, 2.5)) + 1,
            operation=Operation.STORE,
            strategy=strategy,
            location=self.dice.choice(CITIES),
            request_id=f"request-{number}",
        )

    def outcome(self, query: Query) -> Outcome:
        backend = self.dice.choice(self.router.backends)
        return Outcome(
            backend.id,
            self.dice.random() < 0.99,
            duration_ms=1 + int(self.dice.lognormvariate(5.5, 1.0)),
            request_id=query.request_id,
        )

    def live(self, outcomes: int, *, decide_every: int) -> None:
        """Records outcomes over a week, which fills every interval of the windows."""
        step_s = 7 * 86_400.0 / outcomes
        for number in range(outcomes):
            self.now += step_s
            query = self.query("hybrid")
            if number % decide_every == 0:
                self.router.select(query, now=self.now)
            self.router.record(self.outcome(query), now=self.now)


@dataclass(frozen=True, slots=True)
class Case:
    """A case to time: `prepared` sets up the calls of one round, outside of the measured time."""

    name: str
    prepared: Callable[[], Callable[[], None]]
    calls: int


def selecting(world: World, strategy: str, calls: int) -> Callable[[], Callable[[], None]]:
    def prepared() -> Callable[[], None]:
        queries = [world.query(strategy) for _ in range(calls)]

        def run() -> None:
            for query in queries:
                world.now += 0.001
                world.router.select(query, now=world.now)

        return run

    return prepared


def recording(world: World, calls: int) -> Callable[[], Callable[[], None]]:
    """Each outcome links to its own decision."""

    def prepared() -> Callable[[], None]:
        queries = [world.query("hybrid") for _ in range(calls)]
        for query in queries:
            world.router.select(query, now=world.now)
        outcomes = [world.outcome(query) for query in queries]

        def run() -> None:
            for outcome in outcomes:
                world.now += 0.001
                world.router.record(outcome, now=world.now)

        return run

    return prepared


def asking(world: World, hours: int, calls: int) -> Callable[[], Callable[[], None]]:
    def run() -> None:
        for _ in range(calls):
            insights(world.router, hours=hours, now=world.now)

    return lambda: run


def cases(*, history: int) -> Iterator[Case]:
    """All cases, on routers with a short history and with a full one."""
    for backends, calls in ((3, 500), (100, 50)):
        fresh, full = World(make_router(backends)), World(make_router(backends))
        fresh.live(1000, decide_every=1)
        full.live(history, decide_every=20)
        for strategy in ("hybrid", "adaptive"):
            yield Case(f"select, {backends} backends, {strategy}", selecting(fresh, strategy, calls), calls)
        after = f"after {history:,} outcomes"
        yield Case(f"select, {backends} backends, hybrid, {after}", selecting(full, "hybrid", calls), calls)
        yield Case(f"record, {backends} backends", recording(fresh, calls), calls)
        yield Case(f"record, {backends} backends, {after}", recording(full, calls), calls)
        for hours in (24, 168):
            yield Case(f"insights, {backends} backends, {hours} h, {after}", asking(full, hours, 1), 1)


def timed(every: list[Case], rounds: int) -> dict[str, list[float]]:
    """{case: microseconds per call, by round}, after one warm-up round."""
    rows: dict[str, list[float]] = {case.name: [] for case in every}
    for number in range(rounds + 1):
        for case in every:
            run = case.prepared()
            began = time.perf_counter()
            run()
            took_us = (time.perf_counter() - began) * 1e6 / case.calls
            if number:
                rows[case.name].append(took_us)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Time in the core.")
    parser.add_argument("--quick", action="store_true", help="a few rounds on a history of 20,000 outcomes")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each case is timed")
    options = parser.parse_args()
    history = 20_000 if options.quick else 1_000_000
    rounds = options.rounds or (5 if options.quick else 31)
    print(f"{platform.python_implementation()} {platform.python_version()}, {rounds} rounds, µs for one call")
    print(f"{'':<56}{'min':>10}{'median':>10}{'max':>10}")
    for name, row in timed(list(cases(history=history)), rounds).items():
        print(f"{name:<56}{min(row):>10.1f}{statistics.median(row):>10.1f}{max(row):>10.1f}")


if __name__ == "__main__":
    main()
