"""Opens the sockets that the server listens on; each failure is one line."""

import contextlib
import errno
import socket

from routing.errors import ConfigError

_UNAVAILABLE_FAMILY = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
"""The errors for an address family that this machine lacks, such as ::1 without IPv6."""

_REASONS = {
    errno.EADDRINUSE: ("port", "another process listens there; expected a free port, or 0 for any"),
    errno.EACCES: ("port", "no permission; expected a port from 1024 up"),
    errno.EADDRNOTAVAIL: ("host", "expected an address of this machine"),
}


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets, one for each address that the host resolves to, all on one port.

    Port 0 takes any free port. `::` accepts IPv4 as well. Raises ConfigError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ConfigError("server", "host", f"{host!r}: expected a host name or address ({why})") from None
    with contextlib.ExitStack() as opened:
        listening: list[socket.socket] = []
        unavailable = None
        for family, *_, address in dict.fromkeys(found):
            try:
                bound = _bound(family, (address[0], port, *address[2:]))
            except OSError as error:
                if error.errno not in _UNAVAILABLE_FAMILY:
                    raise _refusal(host, port, error) from None
                unavailable = error
            else:
                listening.append(opened.enter_context(bound))
                port = bound.getsockname()[1]
        if unavailable is not None and not listening:
            raise _refusal(host, port, unavailable) from None
        opened.pop_all()
    return listening


def address_of(listening: socket.socket) -> str:
    """host:port, with an IPv6 host in brackets."""
    host, port, *_ = listening.getsockname()
    return f"[{host}]:{port}" if listening.family == socket.AF_INET6 else f"{host}:{port}"


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    # asyncio sets TCP_NODELAY only on sockets created with IPPROTO_TCP; otherwise a response waits 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A restart need not wait for connections of the previous process in TIME_WAIT.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        bound.bind(address)
        # At once, to detect a conflict: two processes can bind one port, but only one can listen on it.
        bound.listen()
    except OSError:
        bound.close()
        raise
    return bound


def _refusal(host: str, port: int, error: OSError) -> ConfigError:
    unknown = ("host", (error.strerror or str(error)).lower())
    key, why = _REASONS.get(error.errno or 0, unknown)
    return ConfigError("server", key, f"cannot listen on {host}, port {port}: {why}")
