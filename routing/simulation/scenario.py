"""A scenario: what is drawn for each seed, from which ranges, and what happens when.

A file is TOML: a title and a line about it, the tables `[world]` and `[workload]`, and any
number of `[[events]]`. What it leaves out keeps the default. A range is two numbers,
or one for both ends; each seed draws its own value from it, so that no policy can be
tuned to a fixed instant or strength.
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

TARGETS = ("favourite", "second", "third", "any", "all")

Range = tuple[float, float]
"""The two ends between which a seed draws."""


def span(low: float, high: float) -> Validator:
    """Two numbers, the smaller first, or one that stands for both."""
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
    """A row: what the key holds where the file leaves it out, what it may hold, what it means."""
    return field(default=default, metadata={"validator": validator, "help": about})


SHARE = span(0, 1)
FACTOR = span(0.01, 1000)


@dataclass(frozen=True, slots=True)
class WorldRules:
    """`[world]`: which backends there are, and how far the truth is from their profiles."""

    backends: int = _key(8, whole(2, 100), "how many are drawn from the tables; not used with --config")
    services: frozenset[str] = _key(
        frozenset({"s3", "azure", "gcs"}),
        names_of(16, 64),
        "the services of data/services.csv that are drawn from",
    )
    speed_error: float = _key(
        0.8, number(0, 3), "how far true speeds are from the profiles: the spread of their logarithm"
    )
    route_error: float = _key(
        0.3, number(0, 3), "likewise, how far a backend's speed from one city is from what the tables say"
    )
    client_spread: float = _key(
        0.3, number(0, 3), "how the clients' own networks differ from request to request, likewise"
    )
    failure_rate: Range = _key(
        (0.001, 0.1), span(0, 1), "share of operations that fail on a backend, whatever its profile says"
    )
    stalls: float = _key(0.003, number(0, 1), "share of transfers that hang, for 3 to 20 times as long")
    max_inflight: Range = _key(
        (200, 1000), span(1, 1_000_000), "the limit in a drawn backend's profile; not used with --config"
    )
    slows_at: Range | None = _key(
        None,
        span(0.1, 1_000_000),
        "operations in flight with which one takes twice as long; never if left out",
    )


@dataclass(frozen=True, slots=True)
class WorkloadRules:
    """`[workload]`: who asks for what, how often."""

    hours: float = _key(24.0, number(0.01, 1000), "how long the requests take to arrive, on average")
    cities: int = _key(12, whole(1, 63), "regions where the clients are")
    retrieve: float = _key(0.4, number(0, 1), "share of requests that read")
    unreported: float = _key(0.02, number(0, 1), "share of operations whose outcome nobody reports")


@dataclass(frozen=True, slots=True)
class EventRules:
    """`[[events]]`: what happens to whom, when, how much. Shares are of the run's requests."""

    who: str = _key(
        "favourite",
        one_of(*TARGETS),
        "the backend that is best for most requests, the second or third, `count` others, or all",
    )
    count: int = _key(1, whole(1, 100), "how many, where `who` is any")
    starts: Range = _key((0.0, 0.0), SHARE, "when it begins")
    lasts: Range = _key((1.0, 1.0), SHARE, "how long it goes on")
    pauses: Range | None = _key(None, SHARE, "it comes again after such a pause; once if left out")
    slower: Range = _key((1.0, 1.0), FACTOR, "transfers take so many times as long")
    fails: Range = _key((0.0, 0.0), SHARE, "so many of the operations fail that would have succeeded")
    gradually: bool = _key(False, switch(), "grows from nothing to its end")
    cities: Range = _key((1.0, 1.0), SHARE, "it concerns clients in so many of the cities")
    types: int = _key(0, whole(0, 8), "it concerns so many of the content types; 0 means all")
    newcomer: bool = _key(
        False, switch(), "the backend is not there before, and the policies have no profile of it"
    )


@dataclass(frozen=True, slots=True)
class Scenario:
    """One file. `name` is that of the file without its ending."""

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
    """The scenarios that ship with the package, by the number that their files begin with."""
    return tuple(map(_named, _shipped()))


def load(named: str) -> Scenario:
    """A scenario by its name, or by the path of a file of one's own.

    ConfigError names the file, the key and what was expected.
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
    """The scenario that these tables of a TOML file describe."""
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
        expected = f"no store stands for it; expected some of {listed(services())}"
        raise ConfigError(where, "world.services", expected)
    sites = sum(
        service.name in world.services and service.stands_in(region)
        for service in services().values()
        for region in regions()
    )
    if world.backends > sites:
        expected = f"expected at most {sites}, which is where these services stand, got {world.backends}"
        raise ConfigError(where, "world.backends", expected)


def _shipped() -> list[str]:
    entries = files("routing").joinpath(FOLDER).iterdir()
    return sorted(entry.name for entry in entries if entry.name.endswith(".toml"))


def _named(file: str) -> str:
    """ "04-outage.toml" is the scenario outage."""
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
