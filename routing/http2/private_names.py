"""Every private name of grpclib, h2, hpack and hyperframe that `routing` touches, and why.

A release of these libraries may remove one without notice, so the server looks for its names
at start. If a name marked `vital` is missing, the server does not start; if another one is
missing, it runs on the plain path, which needs none of them. A test scans all of `routing`
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
    """A private name, the library's class that has it, and the modules that touch it.

    `vital` means that the server cannot answer without it. `in_server` is False for the
    client's names. A client does not look for them at start: only a refused call reads them,
    a successful one works without. `setup.cfg` bounds the libraries' versions, and a test
    looks for these names in the installed ones.
    """

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
        "h2 uses it to tell late frames from invalid ones; calls of the fast path are recorded here",
    ),
    PrivateName(
        H2Connection,
        "_inbound_flow_control_window_manager",
        ("http2.session",),
        "counts request bytes of the fast path in the connection's window; h2's method needs a stream",
    ),
    PrivateName(
        H2Connection,
        "_stream_is_closed_by_reset",
        ("http2.session",),
        "overridden: counts frames on ended streams; h2 answers each with a reset",
    ),
    PrivateName(
        H2Connection,
        "_handle_data_on_closed_stream",
        ("http2.session",),
        "overridden: counts DATA on ended streams; h2 answers each with a reset",
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
        "the handlers of a generated service base by method path; grpclib's own server calls it too",
        vital=True,
    ),
    PrivateName(
        CodecBase,
        "__content_subtype__",
        ("wire.codec",),
        "every codec must define it",
        vital=True,
    ),
    PrivateName(
        client.Stream,
        "_stream",
        ("client.connection",),
        "grpclib's client drops trailers that begin with grpc-, such as the retry delay",
        in_server=False,
    ),
)


def fast_path_possible(names: Iterable[PrivateName] = PRIVATE_NAMES) -> bool:
    """Whether the libraries have every name that the server touches; logs one WARNING if not.

    Raises IncompatibleLibrary if a vital name is missing.
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
