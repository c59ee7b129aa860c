"""Every private name of grpclib, h2, hpack and hyperframe that `routing` touches, and why.

A release of these libraries may drop one of them without notice. So the server looks for each
when it starts: without the names that `vital` marks it cannot answer and does not start; without
any other it runs on the plain path, which needs none of them. `tests/` scans all of `routing`
for touches that are not in this list.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from types import FunctionType
from typing import NamedTuple

from grpclib import client, protocol, server
from grpclib.encoding.base import CodecBase
from h2.connection import H2Connection
from hpack import Decoder

from routing.errors import IncompatibleLibrary, listed

log = logging.getLogger(__name__)


class PrivateName(NamedTuple):
    """One private name, the class of the library that has it, and the modules that touch it."""

    owner: type
    name: str
    touched_in: tuple[str, ...]
    reason: str
    vital: bool = False
    in_server: bool = True

    @property
    def path(self) -> str:
        return f"{self.owner.__module__}.{self.owner.__name__}.{self.name}"

    @property
    def library(self) -> str:
        return self.owner.__module__.partition(".")[0]

    @property
    def present(self) -> bool:
        """Whether the class has this name, declares it, or uses it in its constructor."""
        return hasattr(self.owner, self.name) or self.name in set(_instance_names(self.owner))


def _instance_names(owner: type) -> Iterator[str]:
    for base in owner.__mro__:
        yield from vars(base).get("__annotations__", ())
        constructor = vars(base).get("__init__")
        if isinstance(constructor, FunctionType):
            yield from constructor.__code__.co_names


PRIVATE_NAMES = (
    PrivateName(
        H2Connection,
        "_closed_streams",
        ("http2.session",),
        "h2 tells late frames from wrong ones by it: calls of the fast path, which h2 never sees, go in here",
    ),
    PrivateName(
        H2Connection,
        "_inbound_flow_control_window_manager",
        ("http2.session",),
        "the bytes of a request on the fast path count in the connection's window; h2 asks for a stream",
    ),
    PrivateName(
        H2Connection,
        "_stream_is_closed_by_reset",
        ("http2.session",),
        "overridden: counts frames on streams that have ended, which h2 answers with a reset each",
    ),
    PrivateName(
        H2Connection,
        "_handle_data_on_closed_stream",
        ("http2.session",),
        "overridden: counts DATA on streams that have ended, which h2 answers with a reset each",
    ),
    PrivateName(
        Decoder,
        "_update_encoding_context",
        ("http2.hpack_cache",),
        "overridden: counts the table size updates of one header block, which hpack does not limit",
    ),
    PrivateName(
        server.Stream,
        "_stream",
        ("rpc.exchange",),
        "the HTTP/2 stream: messages are read with a size limit, and trailers may begin with grpc-",
        vital=True,
    ),
    PrivateName(
        server.Stream,
        "_send_trailing_metadata_done",
        ("rpc.exchange",),
        "set, so that grpclib does not send a second end of the response",
        vital=True,
    ),
    PrivateName(
        protocol.Stream,
        "__ended__",
        ("http2.streams",),
        "overridden: grpclib calls it at the end of a request",
        vital=True,
    ),
    PrivateName(
        server.Server,
        "__mapping__",
        ("http2.listener", "rpc.calls", "rpc.reflection"),
        "the handlers of a generated service base, by method path: how grpclib's own server asks for them",
        vital=True,
    ),
    PrivateName(
        CodecBase,
        "__content_subtype__",
        ("wire.codec",),
        "what every codec must define",
        vital=True,
    ),
    PrivateName(
        client.Stream,
        "_stream",
        ("client.connection",),
        "grpclib's client drops trailers that begin with grpc-, such as the wait before another try",
        in_server=False,
    ),
)


def fast_path_possible(names: Iterable[PrivateName] = PRIVATE_NAMES) -> bool:
    """Whether the libraries have every name that the server touches; logs one WARNING if not.

    Raises IncompatibleLibrary where the server cannot answer without it.
    """
    missing = [name for name in names if name.in_server and not name.present]
    vital = [name for name in missing if name.vital]
    if vital:
        raise IncompatibleLibrary(f"{_versions(vital)}: {_paths(vital)} is missing")
    if missing:
        log.warning("fast path is off libraries=%s missing=%s", _versions(missing), _paths(missing))
    return not missing


def _paths(names: Sequence[PrivateName]) -> str:
    return listed(name.path for name in names)


def _versions(names: Sequence[PrivateName]) -> str:
    return listed(f"{library} {version(library)}" for library in sorted({name.library for name in names}))
