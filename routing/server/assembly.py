"""Assembles the server from settings, without sockets and tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from random import Random

from routing import __version__
from routing.access.policy import Access
from routing.clock import RequestClock, SystemClock
from routing.config.options import Settings
from routing.contract import FILES_HEALTH, ROUTING_SERVICE, STORE_HEALTH
from routing.core.limits import Limits
from routing.core.router import Router
from routing.rpc.calls import Calls, WrappedServable
from routing.rpc.health import Health
from routing.rpc.reflection import Reflection, ReflectionAlpha, compiled_schema
from routing.rpc.service import RoutingService
from routing.store import Store, open_store
from routing.wire import Codec


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of a server, connected with each other."""

    router: Router
    store: Store
    service: RoutingService
    health: Health
    calls: Calls
    servables: tuple[WrappedServable, ...]
    codec: Codec

    async def drain(self) -> None:
        """Sets health to NOT_SERVING, ends streams and refuses new calls; open calls continue."""
        self.health.set_serving(False)
        await self.calls.drain()


def assemble(
    settings: Settings,
    *,
    random: Random,
    clock: Callable[[], float] | None = None,
    access: Access | None = None,
) -> Assembly:
    """The server without its sockets, for `serve`, tests and in-process clients.

    The caller starts and closes its store. `clock` returns Unix seconds; the default follows the
    setting `routing.clock`. Without `access` any caller may call, whatever the settings say.
    """
    routing = settings.routing
    if clock is None:
        clock = RequestClock() if routing.clock == "request" else SystemClock()
    router = Router(
        settings.backends,
        random=random,
        weights=routing.weights,
        discover=routing.discover,
        max_backends=routing.max_backends,
        max_content_types=routing.max_content_types,
        retention_hours=routing.retention_hours,
        suspension=settings.suspension,
        limits=Limits(routing.max_cost_usd, routing.max_ms, routing.min_success),
        max_pending=routing.max_pending,
    )
    health = Health(_health_services(settings, access))
    store = _open_store(settings, router, clock, health)
    codec = Codec()
    calls = Calls(codec, admit=access.admission if access is not None else None)
    service = RoutingService(router, store, clock=clock, version=__version__, caller_key=store.caller_key)
    schema = compiled_schema()
    servables = (
        calls.wrap(service, on_fast_path=("SelectBackend", "RecordOutcome")),
        calls.wrap(health, even_draining=True, open_to_all=True),
        calls.wrap(Reflection(schema)),
        calls.wrap(ReflectionAlpha(schema)),
    )
    return Assembly(router, store, service, health, calls, servables, codec)


def _health_services(settings: Settings, access: Access | None) -> list[str]:
    services = [ROUTING_SERVICE]
    if settings.server.state:
        services.append(STORE_HEALTH)
    if access is not None and access.files:
        services.append(FILES_HEALTH)
    return services


def _open_store(settings: Settings, router: Router, clock: Callable[[], float], health: Health) -> Store:
    """The opened store; the router's state is restored, and a request clock continues from it."""

    def note_health(works: bool) -> None:
        health.set_serving(works, STORE_HEALTH)

    if not isinstance(clock, RequestClock):
        system = clock if isinstance(clock, SystemClock) else None
        return open_store(settings, router, latest=clock, note_health=note_health, clock=system)
    # The clock is still at 0, so it cannot bound the times of stored events.
    store = open_store(settings, router, latest=lambda: inf, note_health=note_health)
    clock.advance(router.advance(-inf))  # the latest time in the restored state
    return store
