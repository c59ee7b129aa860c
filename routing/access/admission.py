"""Whether a call is let in: who calls, how often they do, and whether they may."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from routing.access.auth import Identity, Rules, certificate_names, check_role
from routing.access.rate_limit import RateLimit
from routing.errors import TooManyCalls, Unauthenticated
from routing.rpc.caller import Caller, Peer

_NETWORK_BITS = 64
"""An IPv6 address counts as its network: that is the least that one customer is given
(RFC 6177), and 2⁶⁴ addresses are no 2⁶⁴ callers."""


@dataclass(frozen=True, slots=True)
class _Authentication:
    """What was found out about a caller under certain rules; `account` is whose calls are counted."""

    rules: Rules | None
    account: str
    identity: Identity | None = None
    refusal: str = ""


class Admission:
    """Lets calls in, or raises why not. `rules` may be replaced at any time, and hold from
    the next call, and the next message of an open stream, on.

    Without rules everybody may call everything. `clock` tells monotonic seconds.
    """

    def __init__(self, rules: Rules | None, limit: RateLimit | None, *, clock: Callable[[], float]) -> None:
        self.rules = rules
        self._limit = limit
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Admission {self.rules!r} {self._limit!r}>"

    def __call__(self, path: str, caller: Caller, again: bool) -> None:
        """Raises TooManyCalls, Unauthenticated or PermissionDenied. With `again` it is about a
        stream that was let in, which costs its caller no call more.

        Also strangers have an account, that of their address: who tries tokens is slowed down.
        """
        authentication = caller.authentication
        if authentication is None or authentication.rules is not self.rules:
            authentication = caller.authentication = self._authenticate(caller)
        if self._limit is not None and not again:
            self._count(authentication.account, self._limit)
        if self.rules is not None:
            if authentication.identity is None:
                raise Unauthenticated(authentication.refusal)
            check_role(path, authentication.identity)

    def _authenticate(self, caller: Caller) -> _Authentication:
        if self.rules is None:
            certificate = caller.peer.certificate if self._limit is not None else None
            names = certificate_names(certificate) if certificate else ()
            return _Authentication(None, f"certificate {' '.join(names)}" if names else address(caller.peer))
        try:
            identity = self.rules.identify(caller)
        except Unauthenticated as error:
            return _Authentication(self.rules, address(caller.peer), refusal=error.message)
        return _Authentication(self.rules, f"name {identity.name}", identity)

    def _count(self, account: str, limit: RateLimit) -> None:
        wait_s = limit.take(account, now=self._clock())
        if wait_s:
            often = f"more than {limit.per_second:g} calls a second"
            raise TooManyCalls(f"{often}; the next is taken in {wait_s:.3f} s", wait_s)


def address(peer: Peer) -> str:
    """The account of whoever calls from there."""
    try:
        found = ipaddress.ip_address(peer.host)
    except ValueError:  # in memory, or by a Unix socket: whoever can is on this machine
        return "address"
    if isinstance(found, ipaddress.IPv6Address):
        # On a socket that takes both, IPv4 comes as ::ffff:192.0.2.1, all in one network.
        if found.ipv4_mapped is not None:
            return f"address {found.ipv4_mapped}"
        return f"address {ipaddress.IPv6Network((int(found), _NETWORK_BITS), strict=False)}"
    return f"address {found}"
