"""Runs the server until a signal, then drains it."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import TextIO

from routing import __version__
from routing.access.policy import Access
from routing.config.options import Settings
from routing.contract import FILES_HEALTH
from routing.http2 import Listener
from routing.http2.private_names import fast_path_possible
from routing.rpc.health import Health
from routing.server import logs
from routing.server.assembly import Assembly, assemble
from routing.server.sockets import address_of, listen

log = logging.getLogger(__name__)


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve(settings: Settings, *, log_output: TextIO | None = sys.stderr) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal kills the process at once.
    SIGHUP is ignored: it comes with the end of a terminal, and from tools that mean a reload.

    Raises ConfigError for an invalid certificate, key, host or port.
    """
    server = settings.server
    logs.configure(server.log_level, server.log_format, log_output)
    fast_path = fast_path_possible() and server.fast_path
    access = Access(server)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(server.workers, "worker"))
    with contextlib.ExitStack() as resources:
        resources.callback(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN))
        listening = [resources.enter_context(each) for each in listen(server.host, server.port)]
        stop_signal = resources.enter_context(_stop_signal())
        facts = (
            ",".join(map(address_of, listening)),
            "on" if access.context else "off",
            len(settings.backends),
        )
        log.info("server starting address=%s tls=%s backends=%d version=%s", *facts, __version__)
        hosts = [each.getsockname()[0] for each in listening]
        for warning in (*settings.warnings, *access.warnings(hosts)):
            log.warning("setting in doubt reason=%s", warning)
        assembly = assemble(settings, random=Random(), access=access)  # noqa: S311 - decisions, not secrets
        assembly.store.start()
        limits = replace(settings.http2, fast_path=fast_path)
        listener = Listener(assembly.servables, assembly.codec, limits)
        asyncio.get_running_loop().set_exception_handler(listener.note_fault)
        await listener.start(listening, access.context)
        running = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        log.info(
            "server ready address=%s tls=%s backends=%d version=%s loop=%s", *facts, __version__, running
        )
        async with _watched_files(access, assembly.health):
            signal_name = await stop_signal
        await _drain(assembly, listener, signal_name, server.grace_period_seconds)


@contextlib.asynccontextmanager
async def _watched_files(access: Access, health: Health) -> AsyncIterator[None]:
    """Inside, changed files are reloaded, and a certificate that expires is logged."""

    def note_current(current: bool) -> None:
        if access.files:
            health.set_serving(current, FILES_HEALTH)

    watching = asyncio.create_task(access.watch(note_current), name="access")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _drain(assembly: Assembly, listener: Listener, signal_name: str, grace_s: float) -> None:
    """Stops accepting connections, then announces the end to load balancers and clients, then waits
    for open calls to finish."""
    calls = assembly.calls
    log.info("server draining signal=%s open_calls=%d grace_s=%s", signal_name, calls.open, grace_s)
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
def _stop_signal() -> Iterator[asyncio.Future[str]]:
    """A future of the first stop signal's name. After it the default handlers are restored, so a
    second signal kills the process whatever it is doing."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[str] = loop.create_future()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def stop(number: signal.Signals) -> None:
        if received.done():  # both signals were pending: this is the second
            signal.raise_signal(number)
            return
        received.set_result(number.name)
        for each in STOP_SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        yield received
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
