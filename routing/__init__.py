"""A routing server: it decides, over gRPC, which storage backend to use, and learns.

>>> from routing.core.model import Backend
>>> Backend(id="s3").enabled
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from routing.client import RoutingClient as RoutingClient

_LAZY = {"RoutingClient": "routing.client"}
"""Public names that live in heavier modules: `routing --help` must not pay for them."""

__all__ = ["RoutingClient", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
