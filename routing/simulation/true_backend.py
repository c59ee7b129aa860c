"""What a backend is really like, and how long one operation on it takes.

The model is of four connections that each send a part and wait until it is stored, as
the profiles of examples/clouds.toml are reckoned; but with the link that was measured
between this very client's region and the backend's, and with the round trips that a
connection needs before it is at full speed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from routing.core.geography import ROUND_TRIP_MS_PER_KM, distance_km, place
from routing.core.model import Backend, Operation
from routing.simulation.datasets import (
    Region,
    median_throughput_mbps,
    nearest_region,
    regions,
    rtt_ms,
    throughput_mbps,
)
from routing.simulation.workload import Request

CONNECTIONS = 4
MEASURED_CONNECTIONS = 64
"""A client has 4 connections at work, as rclone has by default; the links were measured with 64."""

MS_MBPS_PER_MIB = 8388.608
"""ms/MiB times this reciprocal is the time per megabit: 2²⁰ × 8 bits in thousands."""

BYTES_PER_MS_AND_MBPS = 125.0
"""What one megabit per second brings in a millisecond."""

FIRST_WINDOW_BYTES = CONNECTIONS * 10 * 1460
"""What all connections send before the first acknowledgement: ten segments each (RFC 6928)."""

UNMEASURED_RTT_MS = 10.0
"""The constant part of a round trip where no link was measured; see core/geography.py."""

UNKNOWN_PLACE_RTT_MS = 100.0
"""To a backend that has no place: the lower quartile of the measured pairs, since such
services answer from somewhere near."""


class NetworkPath(NamedTuple):
    """Between one client's region and one backend."""

    rtt_ms: float
    mbps: float


@dataclass(frozen=True, slots=True)
class TrueBackend:
    """A backend as only the simulation knows it.

    `profile` is what everybody knows, and what prices and nearness are reckoned by; `site`
    is where and how fast it is meant to be, mostly the same. `slower` multiplies the
    times that the site promises, `routes` those of the clients in a city; `sigma` is the
    spread of their logarithm, `failure_rate` in [0, 1]. `slows_at` operations in flight
    double its times; None means that it minds none.
    """

    profile: Backend
    site: Backend
    slower: float
    sigma: float
    failure_rate: float
    routes: Mapping[str, float] = field(default_factory=dict)
    slows_at: float | None = None
    _paths: dict[tuple[str, Operation], NetworkPath] = field(default_factory=dict, repr=False, compare=False)

    @property
    def id(self) -> str:
        """The name in requests."""
        return self.profile.id

    def usual_ms(self, request: Request) -> float:
        """What the operation takes undisturbed: the median over its spread."""
        size_bytes = request.query.assumed_bytes
        path = self.path(request.city, request.query.operation)
        bytes_per_ms = path.mbps * BYTES_PER_MS_AND_MBPS
        # The window doubles with each round trip, until the link is full or all is sent.
        to_fill = min(float(size_bytes), bytes_per_ms * path.rtt_ms)
        trips = 1.0 + math.log2(1.0 + to_fill / FIRST_WINDOW_BYTES)
        served_ms = self.site.latency_ms + size_bytes / bytes_per_ms
        return self.routes.get(request.city, 1.0) * (self.slower * served_ms + path.rtt_ms * trips)

    def unannounced(self) -> "TrueBackend":
        """The same store, of which nothing but its name is known."""
        return replace(self, profile=Backend(self.id, discovered=True), _paths={})

    def path(self, city: str, operation: Operation) -> NetworkPath:
        """The way between the client and the backend, in the direction of the content."""
        known = self._paths.get((city, operation))
        if known is None:
            known = self._paths[city, operation] = _network_path(regions()[city], self.site, operation)
        return known


def _network_path(city: Region, backend: Backend, operation: Operation) -> NetworkPath:
    if backend.latitude is None or backend.longitude is None:
        return NetworkPath(UNKNOWN_PLACE_RTT_MS, backend.throughput_mbps)
    home = nearest_region(backend.latitude, backend.longitude)
    km = distance_km(city.place, place(backend.latitude, backend.longitude))
    estimated_ms = UNMEASURED_RTT_MS + ROUND_TRIP_MS_PER_KM * km
    if home is None:
        return NetworkPath(estimated_ms, backend.throughput_mbps)
    ends = (city.name, home) if operation is Operation.STORE else (home, city.name)
    measured_ms, measured_mbps = rtt_ms(*ends), throughput_mbps(*ends)
    return NetworkPath(
        measured_ms or estimated_ms,
        backend.throughput_mbps if measured_mbps is None else _shared(backend, home, measured_mbps),
    )


def _shared(backend: Backend, home: str, link_mbps: float) -> float:
    """What the client's connections get of this link.

    A profile's throughput T is CONNECTIONS / (64 / median link + service), of which the
    service's part is the same on every link.
    """
    usual = MEASURED_CONNECTIONS / median_throughput_mbps(home)
    service = max(CONNECTIONS / backend.throughput_mbps - usual, 0.0)
    return CONNECTIONS / (MEASURED_CONNECTIONS / link_mbps + service)
