"""How well the router's stated numbers fit the truth: expected times, intervals, probabilities.

    python benchmarks/calibration.py                     # five scenarios, seeds 1000 to 1002
    python benchmarks/calibration.py --only heavy-tails --seeds 1 --requests 2000

Everything is simulated and compared with the true arithmetic mean of the operation at that
moment, in worlds whose truth is known (routing/simulation/). Printed for each scenario and
strategy, over all seeds:

- error: the median of |expected_ms − true mean| ÷ true mean, of the chosen backend (`chosen`,
  over the last half of the run) and of all candidates (`all`), and of the chosen one in the first
  hundred decisions (`early`);
- bias: the mean of ln(expected_ms ÷ true mean) of the chosen backend over the last half, by size
  of the object;
- actual ÷ stated: all durations of successes ÷ the expected_ms of the same decisions;
- coverage: how many intervals, which state 90 %, hold the truth. `decisions`: that of the chosen
  backend's expected time, for this very request, over the last half. `times` and `success`: those
  in the section `learned`, at every tenth of the run, for backends with outcomes; their truth is
  the mean over the run's clients and types with objects of 64 KiB or 1 GiB.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from random import Random
from statistics import fmean, median
from typing import NamedTuple

from decisions import FIRST_SEED, STRATEGIES, markdown_table

from routing.core.beliefs import SIZES, SPREADS_OF_90_PERCENT, learned
from routing.core.geography import distance_km as distance_between
from routing.core.geography import place
from routing.core.learning.context import context_of
from routing.core.router import Router
from routing.simulation import scenario
from routing.simulation.generate import draw
from routing.simulation.play import Play, Report
from routing.simulation.policies import LocalStrategy
from routing.simulation.workload import Request
from routing.simulation.world import World

SCENARIOS = ("stationary", "priors-wrong", "archive", "measured-networks", "heavy-tails")
"""Worlds in which nothing changes, so that an error is one of the estimate and not of its delay."""

BANDS = (("< 10 kB", 0, 10_000), ("< 100 kB", 10_000, 100_000), ("< 10 MB", 100_000, 10_000_000))
"""Below the connections' first window, in slow start, and mostly past it; then what is larger."""

LARGEST = "≥ 10 MB"
SAMPLED = 200
"""Requests whose mean is the truth of an interval."""

EARLY = 100
LOOKS = 10


class Job(NamedTuple):
    """One world to be played by one strategy."""

    scenario: str
    strategy: str
    seed: int
    requests: int


@dataclass(slots=True)
class Figures:
    """What one or several plays come to; lists grow with the decisions."""

    early: list[float] = field(default_factory=list)
    chosen: list[float] = field(default_factory=list)
    all: list[float] = field(default_factory=list)
    bias: dict[str, list[float]] = field(default_factory=dict)
    actual_ms: float = 0.0
    stated_ms: float = 0.0
    decisions_covered: list[bool] = field(default_factory=list)
    times_covered: list[bool] = field(default_factory=list)
    success_covered: list[bool] = field(default_factory=list)

    def add(self, other: "Figures") -> None:
        self.early += other.early
        self.chosen += other.chosen
        self.all += other.all
        for band, values in other.bias.items():
            self.bias.setdefault(band, []).extend(values)
        self.actual_ms += other.actual_ms
        self.stated_ms += other.stated_ms
        self.decisions_covered += other.decisions_covered
        self.times_covered += other.times_covered
        self.success_covered += other.success_covered


class Observed:
    """A strategy whose stated numbers are compared with the truth at each decision."""

    def __init__(self, play: Play, random: Random, strategy: str) -> None:
        self.figures = Figures()
        self._world = play.world
        self._strategy = LocalStrategy(play, random, strategy)
        self._stated_ms: dict[int, float] = {}
        self._requests = len(play.world.workload.requests)
        self._sample = play.world.workload.requests[:: max(self._requests // SAMPLED, 1)]

    def choose(self, request: Request, names: Sequence[str]) -> str:
        chosen = self._strategy.choose(request, names)
        decision = self._strategy.decision
        assert decision is not None
        prospects = self._world.prospects(request)
        truth = {
            name: one.estimate.expected_ms
            for name, one in zip(prospects.names, prospects.candidates, strict=True)
        }
        expected_ms = decision.chosen.estimate.expected_ms
        self._stated_ms[request.index] = expected_ms
        ratio = expected_ms / truth[chosen]
        if request.index < EARLY:
            self.figures.early.append(abs(ratio - 1.0))
        if 2 * request.index >= self._requests:
            self.figures.chosen.append(abs(ratio - 1.0))
            factor = interval_factor(self._strategy.router, request, chosen)
            self.figures.decisions_covered.append(1.0 / factor <= ratio <= factor)
            self.figures.bias.setdefault(band(request.query.size_bytes), []).append(math.log(ratio))
            self.figures.all += (
                abs(one.estimate.expected_ms / truth[one.backend_id] - 1.0)
                for one in (decision.chosen, *decision.others)
            )
        if request.index % max(self._requests // LOOKS, 1) == max(self._requests // LOOKS, 1) - 1:
            self._look(request)
        return chosen

    def learn(self, report: Report) -> None:
        self._strategy.learn(report)
        if report.success:
            self.figures.actual_ms += report.duration_ms
            self.figures.stated_ms += self._stated_ms.pop(report.request.index)

    def _look(self, now: Request) -> None:
        """Whether each stated interval holds the truth."""
        believed = learned(self._strategy.router, now=now.at)
        for size, size_bytes in SIZES.items():
            means = true_means(self._world, self._sample, size_bytes, now)
            for name, (true_ms, true_success) in means.items():
                row = believed[name]
                if row["outcomes"]:
                    inside = row[f"{size}_low_ms"] <= true_ms <= row[f"{size}_high_ms"]
                    self.figures.times_covered.append(inside)
                    if size == "small":
                        inside = row["success_low"] <= true_success <= row["success_high"]
                        self.figures.success_covered.append(inside)


def interval_factor(router: Router, request: Request, backend_id: str) -> float:
    """The stated interval reaches from the expected time ÷ this to the expected time × this."""
    (backend,) = (one for one in router.backends if one.id == backend_id)
    query, here, distance_km = request.query, request.query.location, None
    if None not in (here and here.latitude, here and here.longitude, backend.latitude, backend.longitude):
        distance_km = distance_between(
            place(here.latitude, here.longitude), place(backend.latitude, backend.longitude)
        )
    log_spread, _ = router.learning.uncertainty(
        backend,
        context_of(query.operation, here, query.content_type, query.size_bytes),
        query.assumed_bytes,
        distance_km,
        now=request.at,
    )
    return math.exp(SPREADS_OF_90_PERCENT * log_spread)


def true_means(
    world: World, sample: Sequence[Request], size_bytes: int, now: Request
) -> dict[str, tuple[float, float]]:
    """{backend: true mean ms and success} over these clients and types, with objects of this size, now."""
    found: dict[str, list[tuple[float, float]]] = {}
    for one in sample:
        query = one.query._replace(size_bytes=size_bytes)
        prospects = world.compute_prospects(replace(one, index=now.index, at=now.at, query=query))
        for name, candidate in zip(prospects.names, prospects.candidates, strict=True):
            truth = candidate.estimate.expected_ms, candidate.estimate.success_probability
            found.setdefault(name, []).append(truth)
    return {
        name: (fmean(ms for ms, _ in truths), fmean(success for _, success in truths))
        for name, truths in found.items()
    }


def band(size_bytes: int) -> str:
    return next((name for name, low, high in BANDS if low <= size_bytes < high), LARGEST)


def figures(job: Job) -> Figures:
    world = draw(scenario.load(job.scenario), seed=job.seed, requests=job.requests)
    play = Play(world)
    policy = Observed(play, Random(f"{world.key}/{job.strategy}"), job.strategy)
    play.run(policy)
    return policy.figures


def row(name: str, strategy: str, found: Figures) -> tuple[str, ...]:
    bands = [*(name for name, *_ in BANDS), LARGEST]
    return (
        name,
        strategy,
        *(f"{median(values):.0%}" if values else "-" for values in (found.early, found.chosen, found.all)),
        *(f"{fmean(found.bias[one]):+.2f}" if one in found.bias else "-" for one in bands),
        f"{found.actual_ms / found.stated_ms:.2f}" if found.stated_ms else "-",
        *(
            f"{fmean(values):.0%}" if values else "-"
            for values in (found.decisions_covered, found.times_covered, found.success_covered)
        ),
    )


HEADS = (
    *("scenario", "strategy", "error: early", "chosen", "all"),
    *(f"bias {name}" for name, *_ in BANDS),
    *(f"bias {LARGEST}", "actual ÷ stated", "coverage: decisions", "times", "success"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, default=3, help="how many worlds of each scenario")
    add("--first-seed", type=int, default=FIRST_SEED)
    add("--requests", type=int, default=10_000)
    add("--only", default=",".join(SCENARIOS), help="these scenarios, with commas")
    add("--strategies", default=",".join(STRATEGIES), help="these strategies, with commas")
    add("--processes", type=int, help="how many at a time (default: one for each core)")
    given = parser.parse_args()
    jobs = [
        Job(name, strategy, seed, given.requests)
        for name in given.only.split(",")
        for strategy in given.strategies.split(",")
        for seed in range(given.first_seed, given.first_seed + given.seeds)
    ]
    found: dict[tuple[str, str], Figures] = {(job.scenario, job.strategy): Figures() for job in jobs}
    with ProcessPoolExecutor(given.processes) as pool:
        futures = {pool.submit(figures, job): job for job in jobs}
        for count, future in enumerate(as_completed(futures), 1):
            job = futures[future]
            found[job.scenario, job.strategy].add(future.result())
            print(f"\r{count} of {len(jobs)} worlds", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(markdown_table(HEADS, [row(*key, one) for key, one in found.items()]))


if __name__ == "__main__":
    main()
