"""The sockets that the server listens on; why one cannot be had is one line."""

import contextlib
import errno
import socket

from routing.errors import ConfigError

_ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
"""An address of a family that this machine does not have, as ::1 where there is no IPv6."""

_WHY = {
    errno.EADDRINUSE: ("port", "another process listens there; expected a free port, or 0 for any"),
    errno.EACCES: ("port", "no permission; expected a port from 1024 up"),
    errno.EADDRNOTAVAIL: ("host", "expected an address of this machine"),
}


def listen(host: str, port: int) -> list[socket.socket]:
    """Bound sockets, one for each address that the host has here, all on one port.

    Port 0 takes any free one. `::` takes IPv4 too. Raises ConfigError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ConfigError("server", "host", f"{host!r}: expected a host name or address ({why})") from None
    with contextlib.ExitStack() as opened:
        listening: list[socket.socket] = []
        absent = None
        for family, *_, address in dict.fromkeys(found):
            try:
                one = _bound(family, (address[0], port, *address[2:]))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise _refusal(host, port, error) from None
                absent = error
            else:
                listening.append(opened.enter_context(one))
                port = one.getsockname()[1]
        if absent is not None and not listening:
            raise _refusal(host, port, absent) from None
        opened.pop_all()
    return listening


def address_of(listening: socket.socket) -> str:
    """host:port as one would type it, IPv6 in brackets."""
    host, port, *_ = listening.getsockname()
    return f"[{host}]:{port}" if listening.family == socket.AF_INET6 else f"{host}:{port}"


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    # asyncio turns Nagle's delay off only for sockets that say TCP; with it on, an answer waits 40 ms.
    one = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A server that restarts need not wait for the last connections of the one before.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        one.bind(address)
        # Now, and not with the first connection: two servers may bind one port, but not listen on it.
        one.listen()
    except OSError:
        one.close()
        raise
    return one


def _refusal(host: str, port: int, error: OSError) -> ConfigError:
    unknown = ("host", (error.strerror or str(error)).lower())
    key, why = _WHY.get(error.errno or 0, unknown)
    return ConfigError("server", key, f"cannot listen on {host}, port {port}: {why}")
