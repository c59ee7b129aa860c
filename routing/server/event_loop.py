"""The event loop that a server runs on: asyncio's own, or uvloop where it is installed."""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec

from routing.errors import MissingExtra


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop that `event_loop` names: `auto` is uvloop where it is installed.

    MissingExtra for `uvloop` where it is not.
    """
    installed = find_spec("uvloop") is not None
    if name == "asyncio" or (name == "auto" and not installed):
        return asyncio.new_event_loop
    if not installed:
        raise MissingExtra("event_loop uvloop", "fast")
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
