"""A strategy of a running server, asked over gRPC: the same play, with everything in between."""

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
"""A server that goes by the requests' time answers with it, to the microsecond."""


class UnusableServer(RoutingError):
    """A server that would not play by the rules of the simulation."""


class RemoteStrategy:
    """Asks and reports at simulated times. UnusableServer where the server knows other backends,
    has decided before, or goes by a clock of its own."""

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
                f"the server goes by a clock of its own ({selection.at:%Y-%m-%d %H:%M}); "
                'start it anew with clock = "request" under [routing]'
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
    """The config file of a server that this world can be played against."""
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
        raise UnusableServer("the server has decided before, and what it learned would count; start it anew")
    expected = {one.id for one in world.profiles}
    others = sorted(expected ^ set(insights.backend_scores))
    if others:
        raise UnusableServer(
            f"the server's backends are not those of this world, for example {shown(others[0])}; "
            "start it with the file that --write-config writes, or with the one that --config names"
        )


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
