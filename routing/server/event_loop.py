"""Selects the server's event loop: asyncio's, or uvloop where it is installed."""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec

from routing.errors import MissingExtra


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The factory of the loop that the setting `event_loop` names; `auto` is uvloop if installed.

    MissingExtra for `uvloop` if it is not installed.
    """
    installed = find_spec("uvloop") is not None
    if name == "asyncio" or (name == "auto" and not installed):
        return asyncio.new_event_loop
    if not installed:
        raise MissingExtra("event_loop uvloop", "fast")
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
