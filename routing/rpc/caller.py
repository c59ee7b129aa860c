"""Who makes a call, as far as its headers and its connection tell."""

import hashlib
import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `routing token` reads auth rules, and would wait for the gRPC library
    from grpclib import protocol


_NETWORK_BITS = 64
"""An IPv6 address counts as its /64 network, the least that one customer is assigned (RFC 6177):
otherwise one caller could use 2⁶⁴ addresses, each with a rate limit of its own."""


class Peer:
    """The other end of a connection. Asks the transport for each property when it is read:
    most calls read none, and reading them costs more than the rest of a short call."""

    __slots__ = ("_connection",)

    def __init__(self, connection: "protocol.Peer") -> None:
        self._connection = connection

    def __str__(self) -> str:
        """host:port; empty for a connection without an address, as in memory."""
        address = self._address
        return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address or "")

    def __repr__(self) -> str:
        return f"<Peer {self}>"

    @property
    def host(self) -> str:
        """The address without the port, or empty."""
        return str(self._address[0]) if isinstance(self._address, tuple) else ""

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The client's certificate as `SSLSocket.getpeercert` gives it, once TLS has verified it;
        None without one."""
        return self._connection.cert() or None

    @property
    def _address(self) -> Any:  # grpclib's type leaves out IPv6 and sockets of a path
        return self._connection.addr()


class Caller:
    """Who makes a call. Made once for all calls of a connection whose header blocks are the
    same bytes, so that what is found out about one of them holds for all.

    `authorization` is the value of that header, None without one; of several, all, so that
    they match nothing. `authentication` is the note of whoever decides about the caller.
    """

    __slots__ = ("_account", "_digest", "authentication", "authorization", "peer")

    def __init__(self, headers: Iterable[tuple[str, str | bytes]], peer: Peer) -> None:
        said = [value for name, value in headers if name == "authorization" and isinstance(value, str)]
        self.authorization = ",".join(said) if said else None
        self.peer = peer
        self.authentication: Any = None
        self._account = self._digest = ""

    def __repr__(self) -> str:
        return f"<Caller at {self.peer}>"  # without the header, which is a secret

    def identify(self, account: str) -> None:
        """Sets who calls, once that is authenticated; until then it is the caller's address."""
        self._account, self._digest = account, ""

    def digest(self, key: bytes) -> str:
        """Identifies the caller without naming it: a keyed hash of 64 bits, as hexadecimal digits."""
        if not self._digest:
            account = self._account or address(self.peer)
            self._digest = hashlib.blake2b(account.encode(), digest_size=8, key=key).hexdigest()
        return self._digest


def address(peer: Peer) -> str:
    """The account of a caller that is known by its address only."""
    try:
        found = ipaddress.ip_address(peer.host)
    except ValueError:  # in memory, or over a Unix socket: the caller is on this machine
        return "address"
    if isinstance(found, ipaddress.IPv6Address):
        # A dual-stack socket reports IPv4 as ::ffff:192.0.2.1, and those share one /64.
        if found.ipv4_mapped is not None:
            return f"address {found.ipv4_mapped}"
        return f"address {ipaddress.IPv6Network((int(found), _NETWORK_BITS), strict=False)}"
    return f"address {found}"
