"""Measured networks: round-trip times between nodes over time, and backends that are nodes."""

import csv
import gzip
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import median
from types import MappingProxyType

from routing.config.toml import place
from routing.core.model import Backend
from routing.errors import ConfigError
from routing.simulation.true_backend import BYTES_PER_MS_AND_MBPS, slow_start_trips
from routing.simulation.workload import START_AT, Request

HANDSHAKE_TRIPS = 3.0
"""Round trips before the content flows: the TCP handshake, TLS 1.3, and the request."""


@dataclass(frozen=True, slots=True)
class MeasuredNetwork:
    """Round-trip times in ms from node to node, one for each slice; `starts_s` are the slices'
    starts, in seconds from the first."""

    nodes: tuple[str, ...]
    starts_s: tuple[float, ...]
    rtts_ms: Mapping[tuple[str, str], tuple[float, ...]]

    def rtt_ms(self, client: str, server: str, at: float) -> float:
        """The round trip at this time; before the first slice that of the first, after the last
        that of the last."""
        index = max(bisect(self.starts_s, at - START_AT) - 1, 0)
        return self.rtts_ms[client, server][index]


@dataclass(frozen=True, slots=True)
class MeasuredBackend:
    """A backend on a node of a measured network.

    `site.latency_ms` is its own time for an operation, without the network, and
    `site.throughput_mbps` the rate at which content flows; `slower` is a factor on the first.
    """

    profile: Backend
    site: Backend
    node: str
    network: MeasuredNetwork
    slower: float
    sigma: float
    failure_rate: float
    slows_at: float | None = None
    workers: int | None = None

    @property
    def id(self) -> str:
        """The backend's name."""
        return self.profile.id

    def usual_ms(self, request: Request) -> float:
        """Median duration: own time, round trips and size over rate."""
        rtt_ms = self.network.rtt_ms(request.city, self.node, request.at)
        bytes_per_ms = self.site.throughput_mbps * BYTES_PER_MS_AND_MBPS
        size_bytes = request.query.assumed_bytes
        trips = HANDSHAKE_TRIPS + slow_start_trips(size_bytes, bytes_per_ms * rtt_ms)
        return self.slower * self.site.latency_ms + trips * rtt_ms + size_bytes / bytes_per_ms

    def with_profile(self, profile: Backend) -> "MeasuredBackend":
        """The same backend under another profile."""
        return replace(self, profile=profile)


def first_slice_profile(
    site: Backend, node: str, network: MeasuredNetwork, clients: Sequence[str]
) -> Backend:
    """The profile that an operator could measure in the first slice, for the median client."""
    rtt_ms = median(network.rtts_ms[client, node][0] for client in clients)
    return replace(site, latency_ms=round(site.latency_ms + HANDSHAKE_TRIPS * rtt_ms, 1))


@cache
def measured_network(named: str, slice_s: float) -> MeasuredNetwork:
    """Reads a table of this package by name, or a .csv or .csv.gz file by path.

    Rows are `from,to,s0,s1,…`; the column `sN` begins at N × slice_s. A missing round trip is
    the previous one of the pair, or the next; a pair without any has those of the opposite
    direction, or else the median of all.
    """
    head, *rows = csv.reader(_lines(named))
    try:
        starts = tuple(int(cell.removeprefix("s")) * slice_s for cell in head[2:])
        cells = {(one, other): [float(cell) if cell else None for cell in row] for one, other, *row in rows}
    except ValueError as error:
        raise ConfigError(place(named), "", f"expected rows of from,to,s0,s1,...: {error}") from None
    nodes = tuple(sorted({name for pair in cells for name in pair}))
    usual = median(cell for row in cells.values() for cell in row if cell is not None)
    filled = {pair: _filled(row) for pair, row in cells.items()}
    everything = {
        (one, other): filled.get((one, other)) or filled.get((other, one)) or (usual,) * len(starts)
        for one in nodes
        for other in nodes
    }
    return MeasuredNetwork(nodes, starts, MappingProxyType(everything))


def _filled(row: Sequence[float | None]) -> tuple[float, ...]:
    """Each missing value replaced by the one before, or by the first; empty if all are missing."""
    last = next((cell for cell in row if cell is not None), None)
    values = []
    for cell in row:
        last = last if cell is None else cell
        if last is not None:
            values.append(last)
    return tuple(values)


def _lines(named: str) -> Iterable[str]:
    shipped = files("routing.simulation").joinpath("data", f"rtt_{named}.csv")
    if shipped.is_file():
        return shipped.read_text(encoding="utf-8").splitlines()
    try:
        data = Path(named).read_bytes()
        return (gzip.decompress(data) if named.endswith(".gz") else data).decode().splitlines()
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(place(named), "", f"expected planetlab, seattle or a CSV file: {error}") from None
