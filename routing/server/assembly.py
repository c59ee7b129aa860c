"""The server put together from settings, without a socket or a task of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from random import Random

from routing import __version__
from routing.access.policy import Access
from routing.clock import RequestClock, WatchedClock
from routing.config.options import Settings
from routing.contract import FILES_HEALTH, ROUTING_SERVICE, STORE_HEALTH
from routing.core.router import Router
from routing.rpc.calls import Calls, WrappedServable
from routing.rpc.health import Health
from routing.rpc.reflection import Reflection, ReflectionAlpha, compiled_schema
from routing.rpc.service import RoutingService
from routing.store import Store, open_store
from routing.wire import Codec


@dataclass(frozen=True, slots=True)
class Assembly:
    """What a server consists of, wired up; it has no socket and no task of its own."""

    router: Router
    store: Store
    service: RoutingService
    health: Health
    calls: Calls
    servables: tuple[WrappedServable, ...]
    codec: Codec

    async def drain(self) -> None:
        """Health says NOT_SERVING, streams end, new calls are refused; open ones go on."""
        self.health.set_serving(False)
        await self.calls.drain()


def assemble(
    settings: Settings,
    *,
    random: Random,
    clock: Callable[[], float] | None = None,
    access: Access | None = None,
) -> Assembly:
    """The server without its socket, for `serve`, and for tests and clients in one process.

    With a state, whoever assembles it starts the store and closes it.

    `clock` tells the time of day in Unix seconds; without one, the settings say where
    time comes from. Without `access`, everybody may call, whatever the settings say.
    """
    routing = settings.routing
    if clock is None:
        clock = RequestClock() if routing.clock == "request" else WatchedClock()
    router = Router(
        settings.backends,
        random=random,
        weights=routing.weights,
        discover=routing.discover,
        max_backends=routing.max_backends,
        max_content_types=routing.max_content_types,
        retention_hours=routing.retention_hours,
    )
    health = Health(_health_services(settings, access))
    store = _opened(settings, router, clock, health)
    codec = Codec()
    calls = Calls(codec, admit=access.admission if access is not None else None)
    service = RoutingService(router, store, clock=clock, version=__version__)
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


def _opened(settings: Settings, router: Router, clock: Callable[[], float], health: Health) -> Store:
    """The store, once the router knows what it holds."""
    told = isinstance(clock, RequestClock)
    store = open_store(
        settings,
        router,
        latest=(lambda: inf) if told else clock,
        note_health=lambda works: health.set_serving(works, STORE_HEALTH),
    )
    if isinstance(clock, RequestClock):
        clock.advance(router.advance(-inf))  # where the requests had led it before the restart
    return store
