"""Scenario files: which ranges a world is drawn from, and which events disturb it.

A scenario is a TOML file with a title, a one-line description, the tables `[world]` and
`[workload]`, and any number of `[[events]]`. Missing keys keep their defaults. A range is two
numbers, or one for both ends. Each seed draws its own value from the range, so no policy can
be tuned to a fixed instant or strength.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from routing.config.toml import check_keys, place, read_file, read_shipped, suggestion, table
from routing.config.validators import Mismatch, Validator, described, number, one_of, switch, text, whole
from routing.config.validators import names as names_of
from routing.errors import ConfigError, listed
from routing.simulation.datasets import regions, services

FOLDER = "simulation/scenarios"

LOCATIONS = ("coordinates", "region", "both", "none")
"""What a request says about its client's place: coordinates, the region's name, both or neither."""

TARGETS = ("favourite", "second", "third", "any", "all")
"""Which backends an event disturbs; the first three by the requests that they are best for."""

Range = tuple[float, float]
"""Low and high end; each seed draws a value between them."""


def span(low: float, high: float) -> Validator:
    """Validates a range: two numbers, the smaller first, or one number for both ends."""
    one = number(low, high)
    expected = f"two numbers from {low:,} to {high:,}, the smaller first, or one"

    def read(value: object) -> Range:
        ends = value if isinstance(value, list) else [value, value]
        try:
            first, last = (one.read(end) for end in ends)
        except (Mismatch, ValueError):
            raise Mismatch(expected, value) from None
        if first > last:
            raise Mismatch(expected, value)
        return first, last

    return Validator(expected, read)


def _key(default: Any, validator: Validator, about: str) -> Any:
    """A key of the file: its default, its validator and its documentation."""
    return field(default=default, metadata={"validator": validator, "help": about})


SHARE = span(0, 1)
FACTOR = span(0.01, 1000)


@dataclass(frozen=True, slots=True)
class WorldRules:
    """`[world]`: the backends, and how far their true behaviour is from their profiles."""

    backends: int = _key(8, whole(2, 1000), "number of backends; not used with --config")
    copies: int = _key(1, whole(1, 100), "how often a service can be drawn in the same region")
    network: str = _key(
        "",
        text(0, 4096),
        "backends and clients are nodes of planetlab, seattle, or a .csv; without it, regions",
    )
    slice_s: float = _key(
        60.0, number(0.001, 10**9), "seconds from one time slice of the network to the next"
    )
    workers: Range | None = _key(
        None,
        span(1, 10_000),
        "operations that a backend serves at once while others wait; without it there are no queues",
    )
    latency_ms: Range = _key(
        (20.0, 80.0), span(0.001, 10**6), "own time of backends with workers, or of a network"
    )
    rate_mbps: Range = _key((50.0, 1000.0), span(0.001, 10**6), "transfer rates of backends of a network")
    sigma: Range | None = _key(
        None, span(0, 3), "spread of the logarithm of durations; without it that of each service"
    )
    services: frozenset[str] = _key(
        frozenset({"s3", "azure", "gcs"}),
        names_of(16, 64),
        "the services of data/services.csv that are drawn from",
    )
    speed_error: float = _key(
        0.8, number(0, 3), "how far true speeds are from the profiles: standard deviation of their logarithm"
    )
    route_error: float = _key(
        0.3, number(0, 3), "the same for the speed from one city to one backend, relative to the tables"
    )
    client_spread: float = _key(
        0.3, number(0, 3), "the same for the clients' own networks, from request to request"
    )
    failure_rate: Range = _key(
        (0.001, 0.1), span(0, 1), "share of operations that fail on a backend, independent of its profile"
    )
    stalls: float = _key(0.003, number(0, 1), "share of transfers that stall and take 3 to 20 times as long")
    unit_mistakes: int = _key(
        0,
        whole(0, 100),
        "backends, not the best, whose profiles are in wrong units: seconds for ms, bit/s for Mbit/s",
    )
    max_inflight: Range = _key(
        (200, 1000), span(1, 1_000_000), "the limit in a drawn backend's profile; not used with --config"
    )
    tail: Range | None = _key(
        None,
        span(1.05, 100),
        "exponent of a Pareto tail of durations; without it they are spread as a lognormal",
    )
    slows_at: Range | None = _key(
        None,
        span(0.1, 1_000_000),
        "operations in flight that double a backend's times; without it load has no effect",
    )


@dataclass(frozen=True, slots=True)
class WorkloadRules:
    """`[workload]`: which requests arrive, from where, how often."""

    hours: float = _key(24.0, number(0.01, 1000), "expected time until the last request arrives")
    interval_s: Range | None = _key(
        None, span(0.001, 86_400), "mean time between requests; with it `hours` has no effect"
    )
    cities: int = _key(12, whole(1, 63), "regions with clients")
    utilisation: Range | None = _key(
        None, span(0.01, 2), "share of all workers that the traffic keeps busy; with it `hours` has no effect"
    )
    size_bytes: Range | None = _key(
        None, span(1, 10**13), "sizes of objects of every type; without it each type has its own"
    )
    location: str = _key(
        "coordinates",
        one_of(*LOCATIONS),
        "what requests say about the client: coordinates, its region's name",
    )
    retrieve: float = _key(0.4, number(0, 1), "share of requests that read")
    unreported: float = _key(0.02, number(0, 1), "share of operations whose outcome is never reported")


@dataclass(frozen=True, slots=True)
class EventRules:
    """`[[events]]`: which backends are disturbed, when and how. Times are shares of the run's requests."""

    who: str = _key(
        "favourite",
        one_of(*TARGETS),
        "the backend that is best for most requests, the second or third, `count` others, or all",
    )
    count: int = _key(1, whole(1, 100), "how many, where `who` is any")
    starts: Range = _key((0.0, 0.0), SHARE, "when the event begins")
    lasts: Range = _key((1.0, 1.0), SHARE, "how long it lasts")
    pauses: Range | None = _key(
        None, SHARE, "it repeats after such a pause; without it the event happens once"
    )
    slower: Range = _key((1.0, 1.0), FACTOR, "factor on the duration of operations")
    fails: Range = _key((0.0, 0.0), SHARE, "share of otherwise successful operations that fail")
    adds_ms: Range = _key((0.0, 0.0), span(0, 10_000_000), "delay that is added to each operation")
    gradually: bool = _key(False, switch(), "the effect grows from none to full strength")
    cities: Range = _key((1.0, 1.0), SHARE, "share of the cities whose clients are affected")
    types: int = _key(0, whole(0, 8), "number of content types that are affected; 0 means all")
    operation: str = _key(
        "any", one_of("any", "store", "retrieve"), "only operations of this kind are affected"
    )
    min_bytes: Range = _key((0.0, 0.0), span(0, 10**13), "only objects of at least this size are affected")
    where_best: bool = _key(
        False,
        switch(),
        "cities and types are drawn from those with the most requests for which the backend is best",
    )
    newcomer: bool = _key(
        False, switch(), "the backend joins when the event begins, and policies have no profile of it"
    )


@dataclass(frozen=True, slots=True)
class Scenario:
    """A parsed scenario file. `name` is the file name without number and extension."""

    name: str
    title: str
    about: str
    world: WorldRules = WorldRules()
    workload: WorkloadRules = WorkloadRules()
    events: tuple[EventRules, ...] = ()


TABLES: Mapping[str, type] = MappingProxyType(
    {"world": WorldRules, "workload": WorkloadRules, "events": EventRules}
)


def names() -> tuple[str, ...]:
    """Names of the shipped scenarios, ordered by the number at the start of their file names."""
    return tuple(map(_named, _shipped()))


def load(named: str) -> Scenario:
    """Loads a shipped scenario by name, or a TOML file by path.

    Raises ConfigError, which names the file, the key and the expectation.
    """
    for name in _shipped():
        if _named(name) == named:
            return read(named, read_shipped(f"{FOLDER}/{name}"), name)
    if named.endswith(".toml"):
        return read(PurePath(named).stem, read_file(named), place(named))
    raise ConfigError(
        place(named), "", f"no such scenario; {suggestion(named, names())}, or a file that ends in .toml"
    )


def read(name: str, tables: Mapping[str, Any], where: str) -> Scenario:
    """Validates the tables of a TOML file."""
    check_keys(tables, ("title", "about", *TABLES), where)
    sentence = text(1, 300)
    title, about = (_value(sentence, tables.get(key), where, key) for key in ("title", "about"))
    events = tables.get("events", [])
    if not isinstance(events, list):
        raise ConfigError(where, "events", f"expected [[events]] tables, got {described(events)}")
    world = _rules(WorldRules, tables.get("world", {}), where, "world")
    _check_services(world, where)
    return Scenario(
        name,
        title,
        about,
        world,
        _rules(WorkloadRules, tables.get("workload", {}), where, "workload"),
        tuple(_rules(EventRules, event, where, f"events[{index}]") for index, event in enumerate(events)),
    )


def _check_services(world: WorldRules, where: str) -> None:
    unknown = world.services - set(services())
    if unknown or not world.services:
        expected = f"unknown service; expected some of {listed(services())}"
        raise ConfigError(where, "world.services", expected)
    sites = sum(
        service.name in world.services and service.offered_in(region)
        for service in services().values()
        for region in regions()
    )
    sites *= world.copies
    if world.backends > sites:
        expected = (
            f"expected at most {sites}, the number of regions with these services, got {world.backends}"
        )
        raise ConfigError(where, "world.backends", expected)


def _shipped() -> list[str]:
    entries = files("routing").joinpath(FOLDER).iterdir()
    return sorted(entry.name for entry in entries if entry.name.endswith(".toml"))


def _named(file: str) -> str:
    """The scenario of a file name: "outage" for "04-outage.toml"."""
    return file.removesuffix(".toml").partition("-")[2]


def _rules(kind: type, given: object, where: str, key: str) -> Any:
    values = table(given, where, key)
    rows = {one.name: one.metadata["validator"] for one in fields(kind)}
    check_keys(values, rows, where, key)
    return kind(**{one: _value(rows[one], value, where, f"{key}.{one}") for one, value in values.items()})


def _value(validator: Validator, value: object, where: str, key: str) -> Any:
    if value is None:
        raise ConfigError(where, key, f"expected {validator.expected}, got nothing")
    try:
        return validator.read(value)
    except Mismatch as mismatch:
        raise ConfigError(where, key, str(mismatch)) from None
