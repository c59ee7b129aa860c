"""Memory after ten million outcomes, and the time of GetInsights.

    python benchmarks/insights.py                        # some ten minutes of one core
    python benchmarks/insights.py --outcomes 1000000     # a tenth of it
    python benchmarks/insights.py --types 20 --backends 100

Decisions and outcomes are spread evenly over the retention of a week, and at random over all
backends and content types. With ten million, nearly every outcome has a cell of its own, the
worst case for memory. The windows count all of them, the whole router records the last 200,000:
more do not make the learned state larger, and learning from all would take an hour. Decisions
are replayed as from a journal (`Router.replay_decision`): scoring a thousand candidates ten
million times would take a day.

Printed are the resident memory and the CPU time of questions in milliseconds: `first` with cold
caches, `again` after every thousand further outcomes. The slowest half minute bounds how long
the windows' housekeeping may block the event loop.
"""

import argparse
import gc
import platform
import statistics
import time
from collections.abc import Callable
from random import Random
from typing import Any

from core import CITIES, NOON, make_router

from routing.core.model import Operation, Outcome, Query
from routing.core.report import SystemFacts, insights, metrics
from routing.core.router import Router
from routing.rpc.responses import ReportWriter
from routing.wire.struct_bytes import finished

WEEK_S = 7 * 86_400.0
AGAIN_OUTCOMES = 1_000
TAUGHT_OUTCOMES = 200_000
SLICES = 20_160
"""Half minutes in a week, timed one by one to find slow ones."""


def resident_mib() -> float | None:
    """Resident memory of this process; None on systems without /proc."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


class Traffic:
    """An endless series of decisions and outcomes with distinct names."""

    def __init__(self, router: Router, types: int) -> None:
        self.router = router
        self.now = NOON
        self._names = [backend.id for backend in router.backends]
        self._types = [f"application/type-{number}" for number in range(types)]
        self._dice = Random(1)
        self._number = 0

    def live(self, outcomes: int, span_s: float, *, taught: bool = True) -> None:
        """Decisions with their outcomes, evenly over this time, for the whole router or for its
        windows alone."""
        step_s = span_s / outcomes
        for _ in range(outcomes):
            self.now += step_s
            (self._teach if taught else self._count)(
                self._dice.choice(self._names),
                self._dice.choice(self._types),
                int(self._dice.lognormvariate(13.0, 2.5)) + 1,
                1 + int(self._dice.lognormvariate(5.5, 1.0)),
                self._dice.random() < 0.99,
            )

    def _count(
        self, backend_id: str, content_type: str, size_bytes: int, duration_ms: int, success: bool
    ) -> None:
        windows, now = self.router.windows, self.now
        windows.note_decision(backend_id, content_type, size_bytes, now=now)
        windows.note_outcome(backend_id, content_type, success=success, duration_ms=duration_ms, at=now)

    def _teach(
        self, backend_id: str, content_type: str, size_bytes: int, duration_ms: int, success: bool
    ) -> None:
        self._number += 1
        query = Query(
            content_hash=f"bafybeigdyrzt5sfp7udm7hu76uh7y26nf3{self._number:015}",
            content_type=content_type,
            size_bytes=size_bytes,
            operation=Operation.STORE,
            location=self._dice.choice(CITIES),
            request_id=f"request-{self._number}",
        )
        self.router.replay_decision(query, backend_id, 500.0, probe=False, passed_over=(), now=self.now)
        outcome = Outcome(backend_id, success, duration_ms=duration_ms, request_id=query.request_id)
        self.router.record(outcome, now=self.now)


def fill_plan(outcomes: int, recorded: int) -> list[bool]:
    """For each half minute of the week, whether the whole router records it."""
    taught = min(SLICES, -(-SLICES * recorded // outcomes))
    return [False] * (SLICES - taught) + [True] * taught


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of CPU time."""
    began = time.process_time()
    call()
    return (time.process_time() - began) * 1e3


def questions(router: Router, types: int) -> dict[str, Callable[[float], Any]]:
    """{name: function that asks the question at a given time}."""
    backend, content_type = router.backends[0].id, f"application/type-{types // 2}"
    system = SystemFacts(60.0, 1, "benchmark")

    def ask(**narrowed: Any) -> Callable[[float], Any]:
        return lambda now: insights(router, now=now, **narrowed)

    writer = ReportWriter()

    def written(now: float) -> bytes:
        return finished(writer.insights(insights(router, hours=24, now=now), now=now))

    def stream(**options: Any) -> Callable[[float], Any]:
        return lambda now: metrics(router, sections=(), system=system, now=now, **options)

    return {
        "insights, 24 h": ask(hours=24),
        "insights, 24 h, and its bytes": written,
        "insights, 168 h": ask(hours=168),
        "insights, 96 h": ask(hours=96),
        "insights, 24 h, one backend": ask(hours=24, backend_id=backend),
        "insights, 168 h, one backend": ask(hours=168, backend_id=backend),
        "insights, 24 h, one type": ask(hours=24, content_type=content_type),
        "insights, 168 h, one type": ask(hours=168, content_type=content_type),
        "insights, 168 h, one of each": ask(hours=168, content_type=content_type, backend_id=backend),
        "metrics": stream(include_backends=False, include_content_types=False),
        "metrics, everything": stream(include_backends=True, include_content_types=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and time of GetInsights after many outcomes.")
    parser.add_argument("--outcomes", type=int, default=10_000_000)
    parser.add_argument("--backends", type=int, default=1024)
    parser.add_argument("--types", type=int, default=256)
    parser.add_argument(
        "--taught", type=int, default=TAUGHT_OUTCOMES, help="the last ones, which the whole router records"
    )
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {given.backends:,} backends,",
        end=" ",
    )
    print(f"{given.types} content types, {given.outcomes:,} decisions and as many outcomes in a week")
    traffic = Traffic(make_router(given.backends), given.types)
    report_memory("at the start")
    slowest_ms = 0.0
    began = time.process_time()
    for taught in fill_plan(given.outcomes, given.taught):
        took_ms = timed(
            lambda taught=taught: traffic.live(given.outcomes // SLICES, WEEK_S / SLICES, taught=taught)
        )
        if not taught:
            slowest_ms = max(slowest_ms, took_ms)
    took_s = time.process_time() - began
    print(f"recorded in {took_s:.0f} s; slowest half minute of the windows {slowest_ms:.0f} ms")
    report_memory("after them")
    print(f"{'ms':<32}{'first':>9}{'again: min':>12}{'median':>9}{'max':>9}")
    for name, ask in questions(traffic.router, given.types).items():
        first = timed(lambda ask=ask: ask(traffic.now))
        again = []
        for _ in range(given.rounds):
            traffic.live(AGAIN_OUTCOMES, 30.0)
            again.append(timed(lambda ask=ask: ask(traffic.now)))
        spread = f"{min(again):>12.1f}{statistics.median(again):>9.1f}{max(again):>9.1f}"
        print(f"{name:<32}{first:>9.1f}{spread}", flush=True)
    report_memory("after the questions")


def report_memory(when: str) -> None:
    gc.collect()
    mib = resident_mib()
    print(f"resident {when}: " + ("unknown on this system" if mib is None else f"{mib:.0f} MiB"), flush=True)


if __name__ == "__main__":
    main()
