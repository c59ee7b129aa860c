"""`routing simulate`: plays policies through simulated worlds, and shows their regret."""

import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from random import Random
from statistics import fmean, stdev

from routing.cli.connect import credential, tls
from routing.cli.output.formats import MISSING, duration_text, share_text
from routing.cli.output.screen import Screen
from routing.cli.output.tables import Table, TableRow
from routing.client.sync import RoutingClient
from routing.config.load import load as load_config
from routing.core.model import Backend
from routing.core.scoring import STRATEGIES, Weights, default_weights
from routing.errors import InvalidArgument
from routing.simulation import scenario
from routing.simulation.generate import draw
from routing.simulation.measures import Measures, Recovery, measures
from routing.simulation.play import Play
from routing.simulation.policies import POLICIES, make
from routing.simulation.remote import RemoteStrategy, server_config
from routing.simulation.scenario import Scenario
from routing.simulation.svg import Panel, drawn, panel
from routing.simulation.world import World

FINE = 0

DEFAULT_POLICIES = ("adaptive", "hybrid", "static", "random")
"""The policies without --strategy and --policy: our two, and two that do not learn."""

PICTURES = (".svg", ".html")
"""File name endings of --picture."""

COLUMNS = ("policy", ">regret", ">success", ">mean", ">p99", ">$/1,000", ">left after", ">back after")

AFFECTED = ">affected"
"""A column of scenarios whose disturbances spare some requests."""


def simulate(arguments: Namespace, screen: Screen) -> int:
    """Plays every policy in every scenario for every seed."""
    if arguments.list:
        values = _listing()
        screen.answer(values, *(_named(title, rows) for title, rows in values.items()))
        return FINE
    scenarios = [scenario.load(name) for name in arguments.scenario or scenario.names()]
    if arguments.write_config:
        return _write_config(arguments, scenarios, screen)
    policies = tuple(dict.fromkeys((*(arguments.strategy or ()), *(arguments.policy or ()))))
    policies = policies or (DEFAULT_POLICIES if arguments.target is None else DEFAULT_POLICIES[:1])
    _check_target(arguments, scenarios, policies)
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    backends, weights = _configured(arguments.config)
    total = len(scenarios) * len(policies) * len(seeds) * arguments.requests
    picture = _picture_kind(arguments.picture)
    panels: list[Panel] = []
    found: dict[str, dict[str, list[Measures]]] = {}
    with screen.progress("simulating", total) as advance:
        for one in scenarios:
            rows = found[one.name] = {name: [] for name in policies}
            for seed in seeds:
                world = draw(one, seed=seed, requests=arguments.requests, profiles=backends, weights=weights)
                for name in policies:
                    play = _played(world, name, arguments, advance)
                    rows[name].append(measures(play))
                    if picture and seed == arguments.seed:
                        panels.append(panel(play, name, rows[name][-1].regret))
    if picture:
        _write("--picture", arguments.picture, drawn(panels, page=picture == ".html"))
    titles = {one.name: one for one in scenarios}
    screen.answer(
        {
            name: {policy: list(map(asdict, each)) for policy, each in rows.items()}
            for name, rows in found.items()
        },
        *(_table(titles[name], rows) for name, rows in found.items()),
        *((_means(found),) if len(found) > 1 else ()),
        _heading(arguments),
    )
    return FINE


def _played(world: World, name: str, arguments: Namespace, advance: Callable[[int], object]) -> Play:
    play = Play(world)
    if arguments.target is None:
        policy = make(name, play, Random(f"{world.key}/{name}"))
        return play.run(policy, progress=lambda _: advance(1))
    with RoutingClient(
        arguments.target,
        tls=tls(arguments),
        token=credential(arguments),
        timeout_seconds=arguments.timeout,
    ) as client:
        return play.run(RemoteStrategy(play, client, name), progress=lambda _: advance(1))


def _check_target(arguments: Namespace, scenarios: Sequence[Scenario], policies: Sequence[str]) -> None:
    if arguments.target is None:
        return
    if len(scenarios) > 1 or len(policies) > 1 or arguments.seeds > 1:
        raise InvalidArgument(
            "--target", arguments.target, "one scenario, one strategy and one seed: a server learns from each"
        )
    if policies[0] not in STRATEGIES:
        raise InvalidArgument("--policy", policies[0], "a --strategy, since a server plays no peers")


def _write_config(arguments: Namespace, scenarios: Sequence[Scenario], screen: Screen) -> int:
    if len(scenarios) > 1:
        raise InvalidArgument(
            "--write-config", arguments.write_config, "one scenario: each has a world of its own"
        )
    backends, weights = _configured(arguments.config)
    [one] = scenarios
    world = draw(one, seed=arguments.seed, requests=arguments.requests, profiles=backends, weights=weights)
    _write("--write-config", arguments.write_config, server_config(world))
    screen.say("written", arguments.write_config)
    return FINE


def _picture_kind(path: str | None) -> str:
    """The ending of the picture's file name; empty without a picture."""
    if path is None:
        return ""
    ending = PurePath(path).suffix.lower()
    if ending not in PICTURES:
        raise InvalidArgument("--picture", path, f"a file name that ends in {' or '.join(PICTURES)}")
    return ending


def _write(flag: str, path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(flag, path, f"a file that can be written: {error.strerror}") from None


def _configured(path: str | None) -> tuple[Sequence[Backend], Weights | None]:
    """The backends and weights of the config file; without one, worlds draw their own."""
    if path is None:
        return (), None
    settings = load_config(path=path, environment=os.environ)
    return settings.backends, default_weights(settings.routing.weights)


def _listing() -> Mapping[str, Mapping[str, str]]:
    return {
        "scenarios": {name: scenario.load(name).about for name in scenario.names()},
        "policies": {row.name: row.help for row in POLICIES.values()},
    }


def _named(title: str, rows: Mapping[str, str]) -> Table:
    return Table(title, ("name", "what it is"), tuple(rows.items()))


def _heading(arguments: Namespace) -> TableRow:
    seeds = f"seed {arguments.seed}"
    if arguments.seeds > 1:
        seeds = f"seeds {arguments.seed} to {arguments.seed + arguments.seeds - 1}, mean ± standard deviation"
    meaning = "regret 0 is the clairvoyant, 1 is random"
    return (f"simulated: {arguments.requests:,} requests a run, {seeds}; {meaning}",)


def _table(one: Scenario, rows: Mapping[str, Sequence[Measures]]) -> Table:
    title = f"{one.name}: {one.about}"
    heads: tuple[str, ...] = COLUMNS
    cells: dict[str, tuple[str, ...]] = {name: (name, *_cells(runs)) for name, runs in rows.items()}
    if any(run.affected_regret is not None for runs in rows.values() for run in runs):
        heads = (*heads, AFFECTED)
        cells = {name: (*row, _affected(rows[name])) for name, row in cells.items()}
    return Table(title, heads, tuple(cells.values()))


def _affected(runs: Sequence[Measures]) -> str:
    affected = [one.affected_regret for one in runs if one.affected_regret is not None]
    return spread_text(affected) if affected else MISSING


def _cells(runs: Sequence[Measures]) -> Iterator[str]:
    yield spread_text([one.regret for one in runs])
    yield share_text(fmean(one.success_rate for one in runs))
    yield duration_text(fmean(one.mean_ms for one in runs))
    yield duration_text(fmean(one.p99_ms for one in runs))
    yield f"{fmean(one.usd_per_1000 for one in runs):.2f}"
    yield left_text([count for one in runs for count in one.left])
    yield back_text([back for one in runs for back in one.back])


def spread_text(values: Sequence[float]) -> str:
    """The mean, and of several the standard deviation.

    >>> spread_text([0.071]), spread_text([0.06, 0.08])
    ('0.071', '0.070 ± 0.014')
    """
    mean = f"{fmean(values):.3f}"
    return f"{mean} ± {stdev(values):.3f}" if len(values) > 1 else mean


def left_text(counts: Sequence[int]) -> str:
    """On average, so many more requests went there."""
    return f"{fmean(counts):.1f}" if counts else MISSING


def back_text(backs: Sequence[Recovery]) -> str:
    """On average; at least, where the traffic of one never came back.

    >>> back_text([Recovery(40, True), Recovery(60, True)])
    '50'
    >>> back_text([Recovery(40, True), Recovery(900, False)])
    'over 470'
    """
    if not backs:
        return MISSING
    mean = f"{fmean(back.decisions for back in backs):,.0f}"
    return mean if all(back.returned for back in backs) else f"over {mean}"


def _means(found: Mapping[str, Mapping[str, Sequence[Measures]]]) -> Table:
    """Every policy's regret in every scenario, and their mean."""
    policies = next(iter(found.values()))
    rows = []
    for policy in policies:
        regrets = [fmean(one.regret for one in rows[policy]) for rows in found.values()]
        rows.append((policy, *(f"{regret:.2f}" for regret in regrets), f"{fmean(regrets):.3f}"))
    return Table("regret", ("policy", *(f">{name}" for name in found), ">mean"), tuple(rows))
