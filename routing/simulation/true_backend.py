"""The true behaviour of a backend: how long one operation takes, and how often it fails.

Four connections each send a part of the object and wait until it is stored, as in the
derivation of the profiles in examples/clouds.toml. Unlike a profile, the model uses the
network path that was measured between the client's region and the backend's, and the round
trips of TCP slow start.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

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
"""A client uses 4 connections, as rclone does by default; the paths were measured with 64."""

MS_MBPS_PER_MIB = 8388.608
"""Kilobits per MiB: dividing ms/MiB by it gives ms per kilobit, the reciprocal of Mbit/s."""

BYTES_PER_MS_AND_MBPS = 125.0
"""Bytes per millisecond at one megabit per second."""

FIRST_WINDOW_BYTES = CONNECTIONS * 10 * 1460
"""Initial congestion window of all connections together: ten segments each (RFC 6928)."""

UNMEASURED_RTT_MS = 10.0
"""Constant part of a round trip on an unmeasured path; see core/geography.py."""

UNKNOWN_PLACE_RTT_MS = 100.0
"""Round trip to a backend without coordinates: the lower quartile of the measured pairs, since
such services usually answer from a nearby site."""


def slow_start_trips(size_bytes: int, path_bytes: float) -> float:
    """Round trips until the path, which holds `path_bytes`, is full or all bytes are sent: the
    congestion window doubles with each."""
    return math.log2(1.0 + min(float(size_bytes), path_bytes) / FIRST_WINDOW_BYTES)


class NetworkPath(NamedTuple):
    """Round trip and throughput between one client region and one backend."""

    rtt_ms: float
    mbps: float


class TrueBackend(Protocol):
    """A backend as only the simulator knows it.

    `profile` is what policies see; prices and distances come from it. `site` holds the nominal
    speed, and `slower` is a factor on its times. `sigma` is the standard deviation of the
    logarithm of durations, `failure_rate` is in [0, 1]. `slows_at` operations in flight double
    the durations, `workers` operations are served at once while others wait; None: no effect.
    """

    @property
    def id(self) -> str: ...
    @property
    def profile(self) -> Backend: ...
    @property
    def site(self) -> Backend: ...
    @property
    def slower(self) -> float: ...
    @property
    def sigma(self) -> float: ...
    @property
    def failure_rate(self) -> float: ...
    @property
    def slows_at(self) -> float | None: ...
    @property
    def workers(self) -> int | None: ...

    def usual_ms(self, request: Request) -> float:
        """Median duration without disturbances, load and waiting."""

    def with_profile(self, profile: Backend) -> "TrueBackend":
        """The same backend under another profile."""


@dataclass(frozen=True, slots=True)
class CloudBackend:
    """A storage service in a cloud region.

    `profile` is what policies see; prices and distances come from it. `site` holds the nominal
    place and speed, and usually equals `profile`. `slower` is a factor on the site's service
    time, `routes` a factor on all times per client city; `sigma` is the standard deviation of
    the logarithm of durations, `failure_rate` is in [0, 1]. `slows_at` operations in flight
    double the durations; None: load has no effect.
    """

    profile: Backend
    site: Backend
    slower: float
    sigma: float
    failure_rate: float
    routes: Mapping[str, float] = field(default_factory=dict)
    slows_at: float | None = None
    workers: int | None = None
    _paths: dict[tuple[str, Operation], NetworkPath] = field(default_factory=dict, repr=False, compare=False)

    @property
    def id(self) -> str:
        """The backend's name."""
        return self.profile.id

    def usual_ms(self, request: Request) -> float:
        """Median duration of the operation without disturbances."""
        size_bytes = request.query.assumed_bytes
        path = self.path(request.city, request.query.operation)
        bytes_per_ms = path.mbps * BYTES_PER_MS_AND_MBPS
        trips = 1.0 + slow_start_trips(size_bytes, bytes_per_ms * path.rtt_ms)
        served_ms = self.site.latency_ms + size_bytes / bytes_per_ms
        return self.routes.get(request.city, 1.0) * (self.slower * served_ms + path.rtt_ms * trips)

    def with_profile(self, profile: Backend) -> "CloudBackend":
        """The same backend under another profile."""
        return replace(self, profile=profile, _paths={})

    def path(self, city: str, operation: Operation) -> NetworkPath:
        """The network path between client and backend, in the direction of the content."""
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
    """Throughput of the client's connections on this path.

    A profile's throughput is CONNECTIONS / (64 / median path + service); the service's part is
    the same on every path.
    """
    usual = MEASURED_CONNECTIONS / median_throughput_mbps(home)
    service = max(CONNECTIONS / backend.throughput_mbps - usual, 0.0)
    return CONNECTIONS / (MEASURED_CONNECTIONS / link_mbps + service)
