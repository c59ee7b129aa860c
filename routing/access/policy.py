"""What stands between callers and the calls: TLS, rules and limits, as settings and files say them now."""

import asyncio
import ipaddress
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Any, Never

from routing.access.admission import Admission
from routing.access.auth import Rules, read_rules
from routing.access.expiry import expires_at
from routing.access.rate_limit import RateLimit
from routing.access.reload import Reloaded
from routing.access.tls import NewestContext, TlsFiles, server_context
from routing.config.options import ServerSettings

log = logging.getLogger(__name__)

DAY_SECONDS = 86_400.0
SOON_SECONDS = 30 * DAY_SECONDS
"""Before a certificate expires. Those of Let's Encrypt are renewed with 30 days left, so a
renewal that fails shows at once; sooner, and certificates would be complained about that
nobody has reason to renew yet."""


class Access:
    """TLS, rules and limits of one server.

    State: what was read from the files last, and when the certificate's end was last told.
    `monotonic` and `clock` tell seconds: the one for limits and waits, the other of the day.
    """

    def __init__(
        self,
        server: ServerSettings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Reads the files; raises ConfigError for one that cannot be used."""
        self._server = server
        self._monotonic = monotonic
        self._clock = clock
        self._told_at = -inf
        self._expires_at: float | None = None
        self._files: list[Reloaded[Any]] = []
        self.context: NewestContext | None = None
        self.admission: Admission | None = None
        if server.use_ssl:
            self._follow_tls(server)
        self._limit_calls(server)

    def __repr__(self) -> str:
        return f"<Access {self._files!r} {self.admission!r}>"

    @property
    def files(self) -> tuple[Reloaded[Any], ...]:
        """What may change while the server runs."""
        return tuple(self._files)

    def _follow_tls(self, server: ServerSettings) -> None:
        files = TlsFiles(
            server.ssl_cert or "",
            server.ssl_key or "",
            server.ssl_client_ca or "",
            everybody=server.ssl_client_auth == "required",
        )

        def read() -> tuple[ssl.SSLContext, float | None]:
            return server_context(files), expires_at(files.certificate)

        def use(found: tuple[ssl.SSLContext, float | None]) -> None:
            context, self._expires_at = found
            self._told_at = -inf  # another certificate, another end
            if self.context is None:
                self.context = NewestContext(context)
            self.context.newest = context

        self._files.append(Reloaded("tls", files.paths, read, use))

    def _limit_calls(self, server: ServerSettings) -> None:
        limit = None
        if server.rate_limit is not None:
            # Without a burst of its own, a second's worth; less than one call is none.
            limit = RateLimit(server.rate_limit, server.rate_burst or max(server.rate_limit, 1.0))
        if server.auth_file is None and limit is None:
            return
        admission = self.admission = Admission(None, limit, clock=self._monotonic)

        def use(rules: Rules) -> None:
            admission.rules = rules

        if server.auth_file is not None:
            read = partial(read_rules, server.auth_file)
            self._files.append(Reloaded("auth", (server.auth_file,), read, use))

    def doubts(self, hosts: Iterable[str]) -> tuple[str, ...]:
        """What an operator may not have meant, given the addresses that are listened on."""
        server = self._server
        rules = self.admission.rules if self.admission is not None else None
        doubts = []
        if rules is not None and rules.certificates and not server.ssl_client_ca:
            doubts.append(
                "auth_file names certificates, but without ssl_client_ca no client is asked for one"
            )
        asked = server.ssl_client_ca is not None and server.ssl_client_auth == "required"
        lacking = []
        if self.context is None:
            lacking.append(
                "calls are not encrypted" + ", tokens can be read on the way" * (rules is not None)
            )
        if rules is None and not asked:
            lacking.append("anybody may call")
        if lacking and any(map(is_public, hosts)):
            doubts.append(f"the address is public: {', '.join(lacking)}")
        return tuple(doubts)

    async def keep(
        self,
        note_current: Callable[[bool], None],
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> Never:
        """Looks at the files again and again, and tells of a certificate that ends; whether all of
        what is in force is what the files say goes to `note_current`."""
        while True:
            try:
                self.tell_expiry()
                for one in self._files:
                    await one.look()
                note_current(all(one.current for one in self._files))
            # Files are other people's, and parsers of them raise many kinds. Nobody awaits this task:
            # an error that ended it would be seen by nobody, and no certificate renewed again.
            except Exception:
                log.exception("looking after files failed")
            await sleep(self._server.reload_seconds)

    def tell_expiry(self) -> None:
        """One line, once a day, on a certificate that expires soon or has expired."""
        now = self._monotonic()
        if self._expires_at is None or now - self._told_at < DAY_SECONDS:
            return
        self._told_at = now
        left_s = self._expires_at - self._clock()
        said = self._server.ssl_cert, datetime.fromtimestamp(self._expires_at, UTC).isoformat()
        if left_s <= 0:
            log.error("certificate has expired file=%s at=%s", *said)
        elif left_s <= SOON_SECONDS:
            log.warning("certificate expires soon file=%s at=%s days=%.1f", *said, left_s / DAY_SECONDS)


def is_public(host: str) -> bool:
    """Whether others than this machine can reach what listens there.

    >>> [is_public(host) for host in ("0.0.0.0", "192.0.2.1", "::", "127.0.0.1", "::1", "/run/socket")]
    [True, True, True, False, False, False]
    """
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
