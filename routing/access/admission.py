"""Admits or refuses calls: authentication, the rate limit, the role."""

from collections.abc import Callable
from dataclasses import dataclass

from routing.access.auth import Identity, Rules, certificate_names, check_role
from routing.access.rate_limit import RateLimit
from routing.errors import TooManyCalls, Unauthenticated
from routing.rpc.caller import Caller, address


@dataclass(frozen=True, slots=True)
class _Authentication:
    """The result of authenticating a caller under `rules`: an identity, or why there is none.

    `account` names the token bucket that its calls are counted in.
    """

    rules: Rules | None
    account: str
    identity: Identity | None = None
    refusal: str = ""


class Admission:
    """Admits a call, or raises why not. `rules` may be replaced at any time; the new ones apply
    to the next call, and to the next message of an open stream.

    Without rules any caller may call any method. `clock` returns monotonic seconds.
    """

    def __init__(self, rules: Rules | None, limit: RateLimit | None, *, clock: Callable[[], float]) -> None:
        self.rules = rules
        self._limit = limit
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Admission {self.rules!r} {self._limit!r}>"

    def __call__(self, path: str, caller: Caller, again: bool) -> None:
        """Raises TooManyCalls, Unauthenticated or PermissionDenied. `again` checks an open stream
        that was admitted before, which does not count as another call.

        Callers that fail authentication are counted by address, so guessing tokens is rate limited.
        """
        authentication = caller.authentication
        if authentication is None or authentication.rules is not self.rules:
            authentication = caller.authentication = self._authenticate(caller)
            caller.identify(authentication.account)
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
            rate = f"more than {limit.per_second:g} calls a second"
            raise TooManyCalls(f"{rate}; the next is accepted in {wait_s:.3f} s", wait_s)
