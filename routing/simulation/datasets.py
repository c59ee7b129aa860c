"""Reads the tables that ship with the simulator: regions, network paths, storage services."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import median
from types import MappingProxyType

from routing.core.geography import Place, distance_km, place

SAME_REGION_RTT_MS = 1.0
SAME_REGION_MBPS = 10_000.0
"""A path within a region, which the tables do not contain: metropolitan fibre."""

UNPUBLISHED_SIGMA = 0.29
"""Log-spread of services without a published one: that of S3, the median of the published ones."""

NEAR_KM = 200.0
"""A backend within this distance of a region uses the region's network paths: regions of different
providers in one city are about 50 km apart, cities on one backbone about 300 km."""


@dataclass(frozen=True, slots=True)
class Region:
    """A cloud region; `egress_usd_per_gb` None: price unknown."""

    name: str
    latitude: float
    longitude: float
    egress_usd_per_gb: float | None

    @property
    def place(self) -> Place:
        """The region's position."""
        return place(self.latitude, self.longitude)


@dataclass(frozen=True, slots=True)
class Service:
    """A storage service: storing an object from within its region takes `base_ms + ms_per_mib ×
    size`, times a lognormal of `sigma`. `egress_usd_per_gb` None: the region's price."""

    name: str
    regions: tuple[str, ...]
    base_ms: float
    ms_per_mib: float
    sigma: float
    storage_usd_per_gb_month: float
    egress_usd_per_gb: float | None
    request_usd_per_1000: float
    affinity: Mapping[str, float]

    def offered_in(self, region: str) -> bool:
        """Whether the region has the service."""
        return any(region.startswith(name) if name.endswith(":") else region == name for name in self.regions)


@cache
def regions() -> Mapping[str, Region]:
    """{name: region}, in the order of the table."""
    return MappingProxyType(
        {
            row["region"]: Region(
                row["region"],
                float(row["latitude"]),
                float(row["longitude"]),
                _number(row["egress_usd_per_gb"]),
            )
            for row in _rows("regions.csv")
        }
    )


@cache
def services() -> Mapping[str, Service]:
    """{name: service}, in the order of the table."""
    return MappingProxyType({row["service"]: _service(row) for row in _rows("services.csv")})


def rtt_ms(one: str, other: str) -> float | None:
    """Measured round trip between two regions, falling back to the reverse direction; None: unmeasured."""
    if one == other:
        return SAME_REGION_RTT_MS
    table = _matrix("rtt_ms.csv")
    return table[one][other] or table[other][one]


def throughput_mbps(source: str, target: str) -> float | None:
    """Measured total throughput of 64 connections."""
    if source == target:
        return SAME_REGION_MBPS
    return _matrix("throughput_mbps.csv")[source][target]


@cache
def median_throughput_mbps(target: str) -> float:
    """Median throughput of all paths into the region, which is what a profile can state."""
    table = _matrix("throughput_mbps.csv")
    return median(
        speed for source, row in table.items() if source != target and (speed := row[target]) is not None
    )


@cache
def nearest_region(latitude: float, longitude: float) -> str | None:
    """The nearest region of the tables, if it is within NEAR_KM."""
    here = place(latitude, longitude)
    distance, name = min((distance_km(here, one.place), one.name) for one in regions().values())
    return name if distance <= NEAR_KM else None


def _service(row: Mapping[str, str]) -> Service:
    pairs = (pair.split("=") for pair in row["affinity"].split())
    return Service(
        row["service"],
        tuple(row["regions"].split()),
        float(row["put_base_ms"]),
        float(row["put_ms_per_mib"]),
        _number(row["sigma"]) or UNPUBLISHED_SIGMA,
        float(row["storage_usd_per_gb_month"]),
        _number(row["egress_usd_per_gb"]),
        float(row["put_usd_per_1000"]),
        MappingProxyType({pattern: float(score) for pattern, score in pairs}),
    )


@cache
def _matrix(name: str) -> Mapping[str, Mapping[str, float | None]]:
    return {
        row.pop("src\\dst"): {region: _number(cell) for region, cell in row.items()} for row in _rows(name)
    }


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = files("routing.simulation").joinpath("data", name).read_text(encoding="utf-8")
    return csv.DictReader(text.splitlines())


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
