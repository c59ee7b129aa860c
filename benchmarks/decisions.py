"""Regret of our strategies and of the peers: the tables of docs/decisions.md.

    python benchmarks/decisions.py            # prints the tables: ten scenarios, seeds 1000 to 1004
    python benchmarks/decisions.py --field    # the same for gray failures, slow traffic, queues, ...
    python benchmarks/decisions.py --write    # and writes it to docs/decisions.md
    python benchmarks/decisions.py --only outage,flapping --seeds 3
    python benchmarks/decisions.py --server --only outage --seeds 1   # through real servers, over gRPC

Every policy meets the same requests with the same luck; the peers were tuned on other seeds.
Needs the extra `peers` for LinUCB. Runs on every core; --server takes minutes a scenario.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import NamedTuple

from routing.client.sync import RoutingClient
from routing.simulation import scenario
from routing.simulation.generate import draw
from routing.simulation.measures import Measures, measures
from routing.simulation.play import Play
from routing.simulation.policies import make
from routing.simulation.remote import RemoteStrategy, server_config
from routing.simulation.world import World

PAGE = Path(__file__).parent.parent / "docs" / "decisions.md"
STRATEGIES = ("adaptive", "hybrid")
PEERS = {
    "regret": ("linucb", "ducb", "ejection", "static", "peak-ewma", "round-robin"),
    "field": ("linucb", "ducb", "ejection", "least-time", "static"),
}
GROUPS = {"regret": scenario.names()[:10], "field": scenario.names()[10:]}
FIRST_SEED = 1000
"""Held out: everything was tuned on seeds 0 to 199."""


class Job(NamedTuple):
    """One world and the policies to play in it."""

    scenario: str
    seed: int
    policies: tuple[str, ...]
    requests: int
    server: bool


def results(job: Job) -> list[tuple[str, Measures]]:
    """Each policy's measures in this world."""
    world = draw(scenario.load(job.scenario), seed=job.seed, requests=job.requests)
    play = served if job.server else in_process
    return [(name, measures(play(world, name))) for name in job.policies]


def in_process(world: World, name: str) -> Play:
    play = Play(world)
    return play.run(make(name, play, Random(f"{world.key}/{name}")))


def served(world: World, name: str) -> Play:
    play = Play(world)
    with server(server_config(world)) as address, RoutingClient(address) as client:
        return play.run(RemoteStrategy(play, client, name))


@contextmanager
def server(config: str) -> Iterator[str]:
    """Starts a server in its own process; yields its address."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "world.toml"
        file.write_text(config)
        command = (sys.executable, "-m", "routing", "serve", "--host", "127.0.0.1", "--port", "0")
        with subprocess.Popen(
            [*command, "--config", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                lines = iter(process.stdout.readline, "")
                yield next(found[1] for line in lines if (found := re.search(r"ready.*?([\d.]+:\d+)", line)))
            finally:
                process.terminate()


def markdown_table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(
    found: dict[tuple[str, str], list[Measures]],
    names: Sequence[str],
    policies: Sequence[str],
    measure: str = "regret",
) -> str:
    """Mean and standard deviation of the regret: a row for each policy, a column for each scenario."""
    rows = []
    for policy in policies:
        runs = [[getattr(one, measure) for one in found[name, policy]] for name in names]
        # The deviation of the seeds' means over all scenarios is the uncertainty of the last column.
        means = [fmean(column) for column in zip(*runs, strict=True)]
        label = f"**{policy}**" if policy in STRATEGIES else policy
        rows.append((label, *map(spread, runs), spread(means)))
    return markdown_table(("policy", *names, "mean"), rows)


def reactions(found: dict[tuple[str, str], list[Measures]], policies: Sequence[str]) -> str:
    """How soon a failing backend is left and used again: mean and maximum."""
    return markdown_table(
        ("policy", "outage: requests until left", "most", "decisions until back", "most", "never back"),
        [
            (
                policy,
                *means([float(count) for one in found["outage", policy] for count in one.left]),
                *means(
                    [
                        float(back.decisions)
                        for one in found["outage", policy]
                        for back in one.back
                        if back.returned
                    ]
                ),
                str(sum(not back.returned for one in found["outage", policy] for back in one.back)),
            )
            for policy in policies
        ],
    )


def waits(found: dict[tuple[str, str], list[Measures]], names: Sequence[str], policies: Sequence[str]) -> str:
    """Mean and 99th percentile of durations in ms, averaged over the seeds."""
    return markdown_table(
        ("policy", *(f"{name}: {of}" for name in names for of in ("mean, ms", "p99, ms"))),
        [
            (
                policy,
                *(
                    f"{fmean(getattr(one, of) for one in found[name, policy]):,.0f}"
                    for name in names
                    for of in ("mean_ms", "p99_ms")
                ),
            )
            for policy in policies
        ],
    )


def means(values: Sequence[float]) -> tuple[str, str]:
    return (f"{fmean(values):.1f}", f"{max(values):.0f}") if values else ("-", "-")


def spread(values: Sequence[float]) -> str:
    digits = f"{fmean(values):.3f}"
    return f"{digits} ± {stdev(values):.3f}" if len(values) > 1 else digits


def write(name: str, text: str) -> None:
    """Writes a table between its markers on the page."""
    page = PAGE.read_text(encoding="utf-8")
    between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    assert between.search(page), f"docs/decisions.md has no place for {name}"
    PAGE.write_text(between.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page), encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, default=5, help="how many worlds of each scenario")
    add("--first-seed", type=int, default=FIRST_SEED)
    add("--requests", type=int, default=5000)
    add("--only", help="these scenarios, with commas (default: the first ten)")
    add("--field", action="store_true", help="the scenarios of the field instead of the first ten")
    add("--policies", help="these policies, with commas")
    add("--processes", type=int, help="how many at a time (default: one for each core)")
    add("--server", action="store_true", help="our strategies through a real server each")
    add("--write", action="store_true", help="put the tables into docs/decisions.md")
    return parser.parse_args()


def played(
    jobs: Sequence[Job], processes: int | None, said: Callable[[str], object]
) -> dict[tuple[str, str], list[Measures]]:
    """{(scenario, policy): measures by seed}."""
    by_job = {}
    with ProcessPoolExecutor(processes) as pool:
        futures = {pool.submit(results, job): job for job in jobs}
        for count, future in enumerate(as_completed(futures), 1):
            by_job[futures[future]] = future.result()
            said(f"\r{count} of {len(jobs)} worlds")
    found: dict[tuple[str, str], list[Measures]] = {}
    for job in jobs:
        for policy, measured in by_job[job]:
            found.setdefault((job.scenario, policy), []).append(measured)
    return found


def main() -> None:
    given = arguments()
    names = given.only.split(",") if given.only else GROUPS["field" if given.field else "regret"]
    policies = (
        tuple(given.policies.split(","))
        if given.policies
        else (*STRATEGIES, *(() if given.server else PEERS["field" if given.field else "regret"]))
    )
    # The largest worlds first, so that no core is left with a long job at the end.
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    ordered = sorted(names, key=lambda name: -scenario.load(name).world.backends)
    jobs = [Job(name, seed, policies, given.requests, given.server) for name in ordered for seed in seeds]
    found = played(jobs, given.processes, lambda text: print(text, end="", file=sys.stderr, flush=True))
    print(file=sys.stderr)
    affected = [name for name in names if found[name, policies[0]][0].affected_regret is not None]
    tables = {"field" if given.field else "regret": table(found, names, policies)}
    if affected:
        tables["affected"] = table(found, affected, policies, "affected_regret")
    queues = [name for name in names if scenario.load(name).world.workers]
    if queues:
        tables["queues"] = waits(found, queues, policies)
    if "outage" in names:
        tables["reactions"] = reactions(found, policies)
    for name, text in tables.items():
        print(f"{name}\n\n{text}\n")
        if given.write:
            write(name, text)


if __name__ == "__main__":
    main()
