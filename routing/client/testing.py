"""A client with a complete server in memory, for tests of programs that use the client."""

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

from grpclib.testing import ChannelFor

from routing.client.client import RoutingClient
from routing.config.load import load
from routing.core.model import Backend
from routing.server.assembly import assemble


@asynccontextmanager
async def in_process(
    backends: Iterable[Backend] | None = None,
    *,
    config: str | None = None,
    clock: Callable[[], float] | None = None,
    seed: int = 0,
) -> AsyncIterator[RoutingClient]:
    """A client of its own server: the real one, without a socket and without the environment.

    `backends` replaces the profiles of the config file, or of the defaults; `clock`
    is the server's time in Unix seconds; the same `seed` and the same calls give the
    same answers.

    >>> import asyncio
    >>> async def choose() -> str:
    ...     async with in_process([Backend(id="s3"), Backend(id="tape", latency_ms=60_000)]) as client:
    ...         return (await client.select(content_type="image/png")).backend_id
    >>> asyncio.run(choose())
    's3'
    """
    settings = load(path=config)
    if backends is not None:
        settings = replace(settings, backends=tuple(backends))
    dice = random.Random(seed)  # noqa: S311 (explores backends, keeps no secret)
    assembly = assemble(settings, random=dice, clock=clock)
    async with (
        ChannelFor(assembly.servables, codec=assembly.codec) as channel,
        RoutingClient(channel) as client,
    ):
        yield client
