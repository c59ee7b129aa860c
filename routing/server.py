"""The server: put together from settings, run until a signal, drained."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import inf
from random import Random
from typing import TextIO

from routing import __version__, logs
from routing.access import Access
from routing.calls import Calls, Wrapped
from routing.clock import WatchedClock
from routing.core.router import Router
from routing.health import Health
from routing.http2 import Listener
from routing.options import Settings
from routing.reflection import Reflection, ReflectionAlpha, compiled_schema
from routing.service import RequestClock, RoutingService
from routing.sockets import address_of, listen
from routing.store import Store, open_store
from routing.wire import Codec

log = logging.getLogger(__name__)

SERVICE = "ipfs_kit_py.routing.RoutingService"
STORE = "ipfs_kit_py.routing.Store"
"""In health: whether what is learned gets onto the disk. Named where there is a state."""

FILES = "ipfs_kit_py.routing.Files"
"""In health: whether the certificates and the auth file in force are those on the disk. Named
where there are any."""

STOPPING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Assembly:
    """What a server consists of, wired up; it has no socket and no task of its own."""

    router: Router
    store: Store
    service: RoutingService
    health: Health
    calls: Calls
    servables: tuple[Wrapped, ...]
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
    followed = access is not None and access.files
    health = Health((SERVICE, *[STORE] * bool(settings.server.state), *[FILES] * bool(followed)))
    store = _opened(settings, router, clock, health)
    codec = Codec()
    calls = Calls(codec, admit=access.admission if access is not None else None)
    service = RoutingService(router, store, clock=clock, version=__version__)
    schema = compiled_schema()
    servables = (
        calls.wrap(
            service,
            prompt=("SelectBackend", "RecordOutcome"),
            encoded=service.encoded,
        ),
        calls.wrap(health, even_draining=True, open_to_all=True),
        calls.wrap(Reflection(schema)),
        calls.wrap(ReflectionAlpha(schema)),
    )
    return Assembly(router, store, service, health, calls, servables, codec)


def _opened(settings: Settings, router: Router, clock: Callable[[], float], health: Health) -> Store:
    """The store, once the router knows what it holds."""
    told = isinstance(clock, RequestClock)
    store = open_store(
        settings,
        router,
        latest=(lambda: inf) if told else clock,
        note_health=lambda works: health.set_serving(works, STORE),
    )
    if isinstance(clock, RequestClock):
        clock.advance(router.advance(-inf))  # where the requests had led it before the restart
    return store


async def serve(settings: Settings, *, log_output: TextIO | None = sys.stderr) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal ends the process at once.

    Raises ConfigError for a certificate, key, host or port that cannot be used.
    """
    server = settings.server
    logs.configure(server.log_level, server.log_format, log_output)
    access = Access(server)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(server.workers, "worker"))
    with contextlib.ExitStack() as opened:
        listening = [opened.enter_context(one) for one in listen(server.host, server.port)]
        stopped = opened.enter_context(_stopped())
        facts = (
            ",".join(map(address_of, listening)),
            "on" if access.context else "off",
            len(settings.backends),
        )
        log.info("server starting address=%s tls=%s backends=%d version=%s", *facts, __version__)
        hosts = [one.getsockname()[0] for one in listening]
        for warning in (*settings.warnings, *access.doubts(hosts)):
            log.warning("setting in doubt reason=%s", warning)
        assembly = assemble(settings, random=Random(), access=access)  # noqa: S311 - decisions, not secrets
        assembly.store.start()
        limits = replace(settings.http2, fast=server.fast_path)
        listener = Listener(assembly.servables, assembly.codec, limits)
        asyncio.get_running_loop().set_exception_handler(listener.note_fault)
        await listener.start(listening, access.context)
        running = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        log.info(
            "server ready address=%s tls=%s backends=%d version=%s loop=%s", *facts, __version__, running
        )
        async with _kept(access, assembly.health):
            why = await stopped
        await _drain(assembly, listener, why, server.grace_period_seconds)


@contextlib.asynccontextmanager
async def _kept(access: Access, health: Health) -> AsyncIterator[None]:
    """Meanwhile, files that change are read again, and a certificate that ends is told of."""

    def note_current(current: bool) -> None:
        if access.files:
            health.set_serving(current, FILES)

    keeping = asyncio.create_task(access.keep(note_current), name="access")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


async def _drain(assembly: Assembly, listener: Listener, why: str, grace_s: float) -> None:
    """In this order: nobody new gets in; balancers and clients are told; what has begun finishes."""
    calls = assembly.calls
    log.info("server draining signal=%s open_calls=%d grace_s=%s", why, calls.open, grace_s)
    listener.drain()
    await assembly.drain()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            await calls.wait_idle()
    cut = calls.open
    await listener.close()
    await assembly.store.close()
    log.info("server ended cut_calls=%d answered=%d", cut, sum(calls.counts.values()))


@contextlib.contextmanager
def _stopped() -> Iterator[asyncio.Future[str]]:
    """The name of the first signal, once it came. The second is the kernel's: it ends the
    process whatever state that is in."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[str] = loop.create_future()
    before = {number: signal.getsignal(number) for number in STOPPING}

    def stop(number: signal.Signals) -> None:
        stopped.set_result(number.name)
        for each in STOPPING:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for number in STOPPING:
        loop.add_signal_handler(number, stop, number)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
