"""Plays a strategy of a running server over gRPC."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from routing.client.messages import metadata_of
from routing.client.sync import RoutingClient
from routing.core.model import Backend
from routing.errors import RoutingError, shown
from routing.simulation.play import Play, Report
from routing.simulation.workload import Request
from routing.simulation.world import World

SAME_TIME_S = 1.0
"""Tolerance between the time sent and the time answered. A server with clock = "request" answers
with the request's time to the microsecond; one with its own clock is off by far more."""


class UnusableServer(RoutingError):
    """The server cannot be used for a simulation."""


class RemoteStrategy:
    """Selects and records at simulated times. Raises UnusableServer if the server has other
    backends, has decided before, or uses its own clock."""

    def __init__(self, play: Play, client: RoutingClient, strategy: str) -> None:
        self._client = client
        self._strategy = strategy
        self._names_matter = bool(play.world.newcomers)
        _check(play.world, client)

    def choose(self, request: Request, names: Sequence[str]) -> str:
        query = request.query
        selection = self._client.select(
            content_type=query.content_type,
            size_bytes=query.size_bytes,
            metadata=metadata_of(query),
            strategy=self._strategy,
            available_backends=tuple(names) if self._names_matter else (),
            location=query.location,
            request_id=query.request_id,
            at=_moment(request.at),
        )
        if abs(selection.at.timestamp() - request.at) > SAME_TIME_S:
            raise UnusableServer(
                f"the server uses its own clock ({selection.at:%Y-%m-%d %H:%M}); "
                'restart it with clock = "request" under [routing]'
            )
        return selection.backend_id

    def learn(self, report: Report) -> None:
        self._client.record(
            report.backend_id,
            report.success,
            duration_ms=report.duration_ms,
            request_id=report.request.query.request_id,
            at=_moment(report.ended_at),
        )


def server_config(world: World) -> str:
    """The config file of a server for this world."""
    tables = [
        "# Profiles of a simulated world, for: routing simulate --target\n"
        '[routing]\nclock = "request"\nmax_backends = 1024\n'
    ]
    tables += ("\n".join(_profile(one)) for one in world.profiles)
    return "\n".join(tables)


def _profile(backend: Backend) -> Iterator[str]:
    yield "[[backends]]"
    for key in (
        *("id", "region", "latitude", "longitude", "storage_usd_per_gb_month", "egress_usd_per_gb"),
        *("request_usd_per_1000", "latency_ms", "throughput_mbps", "success_rate", "max_object_bytes"),
        "max_inflight",
    ):
        value = getattr(backend, key)
        if value is not None:
            yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
    affinities = (f"{json.dumps(name)} = {score}" for name, score in backend.content_affinity.items())
    yield f"content_affinity = {{ {', '.join(affinities)} }}\n"


def _check(world: World, client: RoutingClient) -> None:
    insights = client.insights(hours=1)
    if any(usage.request_count for usage in insights.backend_usage_stats.values()):
        raise UnusableServer("the server has already made decisions; start a fresh one")
    expected = {one.id for one in world.profiles}
    others = sorted(expected ^ set(insights.backend_scores))
    if others:
        raise UnusableServer(
            f"the server's backends are not those of this world, for example {shown(others[0])}; "
            "start it with the file that --write-config writes, or with the one that --config names"
        )


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
