"""Draws a world from a scenario and a seed; the same two give the same world.

Worlds are equal to the last digit within one version of Python: 3.12 sums floats more exactly
than 3.11.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from random import Random

from routing.core.model import REFERENCE_EGRESS_USD_PER_GB, Backend
from routing.core.scoring import Weights, default_weights
from routing.errors import ConfigError
from routing.simulation.datasets import (
    UNPUBLISHED_SIGMA,
    Region,
    Service,
    median_throughput_mbps,
    regions,
    services,
)
from routing.simulation.events import Disturbance, disturbances, drawn
from routing.simulation.networks import MeasuredBackend, first_slice_profile, measured_network
from routing.simulation.queues import QueueingBackend
from routing.simulation.scenario import EventRules, Scenario, WorldRules
from routing.simulation.true_backend import (
    CONNECTIONS,
    MEASURED_CONNECTIONS,
    MS_MBPS_PER_MIB,
    CloudBackend,
    TrueBackend,
)
from routing.simulation.workload import Request, Workload, workload
from routing.simulation.world import World, mean_stall

PROMISED_SUCCESS = 0.999
"""Success rate in every drawn profile: the uptime of the providers' service level agreements."""

STORAGE_REFERENCE_EGRESS = {"aws": 0.09, "azure": 0.0875, "gcp": 0.12}
"""Egress price of the regions whose storage price is in the table. In other regions the storage
price scales with the egress price, as in examples/clouds.toml."""

SAMPLED_REQUESTS = 400
"""Backends are ranked by this many evenly spread requests."""

MS_PER_S, BITS_PER_MEGABIT = 1e3, 1e6

RANKS = {"favourite": 0, "second": 1, "third": 2}


def draw(
    scenario: Scenario,
    *,
    seed: int,
    requests: int,
    profiles: Sequence[Backend] = (),
    weights: Weights | None = None,
) -> World:
    """The world of this seed, with the given profiles, or with drawn ones if there are none."""
    key = f"{scenario.name}/{seed}"
    given = tuple(one for one in profiles if one.enabled)
    kind = _nodes if scenario.world.network else _queueing if scenario.world.workers else _clouds
    load, truth = kind(scenario, key, requests, given)
    world = World(scenario, seed, load, truth, weights=weights or default_weights())
    drawn_disturbances, newcomers = _events(world, Random(f"{key}/events"))
    mistaken = _unit_mistakes(world, Random(f"{key}/mistakes"))
    return World(
        scenario,
        seed,
        load,
        [
            one.with_profile(
                Backend(one.id, discovered=True) if one.id in newcomers else mistaken.get(one.id, one.profile)
            )
            for one in world.backends.values()
        ],
        disturbances=drawn_disturbances,
        newcomers=newcomers,
        weights=world.weights,
    )


Draw = tuple[Workload, Sequence[TrueBackend]]
"""What a kind of world consists of."""


def _clouds(scenario: Scenario, key: str, requests: int, given: Sequence[Backend]) -> Draw:
    """Storage services in cloud regions, with the network paths of the tables."""
    load = workload(scenario.workload, requests=requests, random=Random(f"{key}/workload"))
    known = given or tuple(drawn_profiles(scenario.world, Random(f"{key}/backends")))
    random = Random(f"{key}/truth")
    return load, [_truth(profile, scenario.world, load.cities, random) for profile in known]


def _nodes(scenario: Scenario, key: str, requests: int, given: Sequence[Backend]) -> Draw:
    """Backends and clients on different nodes of a measured network."""
    rules, random = scenario.world, Random(f"{key}/backends")
    network = measured_network(rules.network, rules.slice_s)
    count = len(given) or rules.backends
    needed = count + scenario.workload.cities
    if len(network.nodes) < needed:
        expected = f"expected at least {needed} nodes for backends and clients, got {len(network.nodes)}"
        raise ConfigError(scenario.name, "world.network", expected)
    nodes = random.sample(network.nodes, len(network.nodes))
    load = workload(
        scenario.workload, requests=requests, random=Random(f"{key}/workload"), places=nodes[count:]
    )
    truth = []
    for node, site in zip(nodes[:count], given or _plain_sites(rules, random), strict=True):
        known = site if given else first_slice_profile(site, node, network, load.cities)
        truth.append(
            MeasuredBackend(
                known,
                site,
                node,
                network,
                slower=math.exp(random.gauss(0.0, rules.speed_error)),
                sigma=_drawn_sigma(known.id, rules, random),
                failure_rate=_failure_rate(rules, random),
            )
        )
    return load, truth


def _queueing(scenario: Scenario, key: str, requests: int, given: Sequence[Backend]) -> Draw:
    """Backends with queues, at the utilisation that the scenario asks for."""
    rules, random = scenario.world, Random(f"{key}/backends")
    assert rules.workers is not None, "the scenario has workers"
    truth = [
        QueueingBackend(
            site,
            site,
            slower=math.exp(random.gauss(0.0, rules.speed_error)),
            sigma=_drawn_sigma(site.id, rules, random),
            failure_rate=_failure_rate(rules, random),
            workers=round(drawn(rules.workers, random)),
        )
        for site in given or _plain_sites(rules, random)
    ]
    spread = math.exp(rules.client_spread**2 / 2.0) * mean_stall(rules)
    capacity_per_s = sum(
        one.workers / (one.slower * one.site.latency_ms / 1e3 * math.exp(one.sigma**2 / 2.0) * spread)
        for one in truth
    )
    utilisation = scenario.workload.utilisation
    rate_per_s = None if utilisation is None else capacity_per_s * drawn(utilisation, random)
    load = workload(
        scenario.workload, requests=requests, random=Random(f"{key}/workload"), rate_per_s=rate_per_s
    )
    return load, truth


def _plain_sites(rules: WorldRules, random: Random) -> Sequence[Backend]:
    """Backends without coordinates, at the reference prices."""
    low, high = map(math.log, rules.rate_mbps)
    return [
        Backend(
            f"backend-{number + 1}",
            latency_ms=round(drawn(rules.latency_ms, random), 1),
            throughput_mbps=round(math.exp(random.uniform(low, high)), 1),
            success_rate=PROMISED_SUCCESS,
        )
        for number in range(rules.backends)
    ]


def drawn_profiles(rules: WorldRules, random: Random) -> Iterator[Backend]:
    """Draws pairs of service and region, each at most `copies` times."""
    everywhere = [
        (service, region)
        for service in services().values()
        for region in regions().values()
        if service.name in rules.services and service.offered_in(region.name)
    ]
    taken: Counter[str] = Counter()
    for service, region in random.sample(everywhere, rules.backends, counts=[rules.copies] * len(everywhere)):
        known = profile(service, region, max_inflight=round(drawn(rules.max_inflight, random)))
        taken[known.id] += 1
        number = taken[known.id]
        yield known if number == 1 else replace(known, id=f"{known.id}-{number}")


def profile(service: Service, region: Region, *, max_inflight: int | None = None) -> Backend:
    """The profile that the tables imply for this service, derived as in examples/clouds.toml."""
    provider, _, name = region.name.partition(":")
    egress = region.egress_usd_per_gb if service.egress_usd_per_gb is None else service.egress_usd_per_gb
    egress = REFERENCE_EGRESS_USD_PER_GB if egress is None else egress
    scale = egress / STORAGE_REFERENCE_EGRESS[provider] if service.egress_usd_per_gb is None else 1.0
    link = MEASURED_CONNECTIONS / median_throughput_mbps(region.name)
    return Backend(
        f"{service.name}-{name}",
        region=name,
        latitude=region.latitude,
        longitude=region.longitude,
        storage_usd_per_gb_month=round(service.storage_usd_per_gb_month * scale, 5),
        egress_usd_per_gb=egress,
        request_usd_per_1000=service.request_usd_per_1000,
        latency_ms=service.base_ms,
        throughput_mbps=round(CONNECTIONS / (link + service.ms_per_mib / MS_MBPS_PER_MIB), 1),
        success_rate=PROMISED_SUCCESS,
        max_inflight=max_inflight,
        content_affinity=service.affinity,
    )


def _truth(known: Backend, rules: WorldRules, cities: Sequence[str], random: Random) -> TrueBackend:
    slows_at = None if rules.slows_at is None else drawn(rules.slows_at, random)
    return CloudBackend(
        known,
        known,
        slower=math.exp(random.gauss(0.0, rules.speed_error)),
        sigma=_drawn_sigma(known.id, rules, random),
        failure_rate=_failure_rate(rules, random),
        routes={city: math.exp(random.gauss(0.0, rules.route_error)) for city in cities},
        slows_at=slows_at,
    )


def _failure_rate(rules: WorldRules, random: Random) -> float:
    least, most = (math.log(max(rate, 1e-9)) for rate in rules.failure_rate)
    return math.exp(random.uniform(least, most))


def _drawn_sigma(backend_id: str, rules: WorldRules, random: Random) -> float:
    return _sigma(backend_id) if rules.sigma is None else drawn(rules.sigma, random)


def _sigma(backend_id: str) -> float:
    """The log-spread of the service with the longest name that is a prefix of the backend's."""
    names = {**{name: name for name in services()}, "aws": "s3", "gcp": "gcs"}
    fitting = [name for name in names if backend_id.startswith(name)]
    return services()[names[max(fitting, key=len)]].sigma if fitting else UNPUBLISHED_SIGMA


def _unit_mistakes(world: World, random: Random) -> dict[str, Backend]:
    """{backend: its profile with a wrong unit}, for backends other than the best."""
    count = world.scenario.world.unit_mistakes
    _, *others = _best_for(world) if count else [""]
    mistaken = {}
    for name in random.sample(others, min(count, len(others))):
        profile = world.backends[name].profile
        # One mistake hurts small objects, the other large ones.
        mistaken[name] = replace(
            profile,
            latency_ms=profile.latency_ms / MS_PER_S,
            throughput_mbps=profile.throughput_mbps * BITS_PER_MEGABIT,
        )
    return mistaken


def _events(world: World, random: Random) -> tuple[list[Disturbance], dict[str, int]]:
    best_for = _best_for(world)
    ranked = list(best_for)
    drawn_disturbances: list[Disturbance] = []
    newcomers: dict[str, int] = {}
    for rules in world.scenario.events:
        for name in _who(rules, ranked, random):
            found = list(
                disturbances(rules, world.scenario.title, name, world.workload, best_for[name], random)
            )
            if rules.newcomer:
                newcomers[name] = found[0].first if found else 0
            drawn_disturbances += (one for one in found if not one.harmless)
    return drawn_disturbances, newcomers


def _best_for(world: World) -> dict[str, list[Request]]:
    """{backend: the sampled requests that it is best for without disturbances}, most first."""
    requests = world.workload.requests
    wins = dict.fromkeys(world.backends, 0.0)
    best_for: dict[str, list[Request]] = {name: [] for name in world.backends}
    for request in islice(requests, 0, None, max(len(requests) // SAMPLED_REQUESTS, 1)):
        prospects = world.prospects(request)
        best = max(prospects.utilities, default=0.0)
        for name, utility in zip(prospects.names, prospects.utilities, strict=True):
            # Breaks ties between backends that are best for no request.
            wins[name] += (utility == best) + 1e-6 * utility
            if utility == best:
                best_for[name].append(request)
    return {name: best_for[name] for name in sorted(wins, key=lambda name: (-wins[name], name))}


def _who(rules: EventRules, ranked: Sequence[str], random: Random) -> Sequence[str]:
    if rules.who == "all":
        return ranked
    if rules.who == "any":
        return random.sample(ranked, min(rules.count, len(ranked)))
    return ranked[RANKS[rules.who] : RANKS[rules.who] + 1]
