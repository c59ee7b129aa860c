"""The server's access policy: TLS, rules and rate limits, kept up to date with their files."""

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
from routing.access.reload import WatchedFiles
from routing.access.tls import NewestContext, TlsFiles, server_context
from routing.config.options import ServerSettings

log = logging.getLogger(__name__)

DAY_SECONDS = 86_400.0
EXPIRY_WARNING_SECONDS = 30 * DAY_SECONDS
"""How long before a certificate expires the log warns. Those of Let's Encrypt are renewed with 30
days left, so a failed renewal shows at once; earlier warnings would be about certificates that
are not due for renewal."""


class Access:
    """TLS, rules and limits of one server.

    State: the values last read from the files, and when the expiry was last logged. `monotonic`
    returns seconds for limits and intervals, `clock` returns Unix seconds.
    """

    def __init__(
        self,
        server: ServerSettings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Reads the files; raises ConfigError for an invalid one."""
        self._server = server
        self._monotonic = monotonic
        self._clock = clock
        self._expiry_logged_at = -inf
        self._expires_at: float | None = None
        self._files: list[WatchedFiles[Any]] = []
        self.context: NewestContext | None = None
        self.admission: Admission | None = None
        if server.use_ssl:
            self._follow_tls(server)
        self._limit_calls(server)

    def __repr__(self) -> str:
        return f"<Access {self._files!r} {self.admission!r}>"

    @property
    def files(self) -> tuple[WatchedFiles[Any], ...]:
        """The files that may change while the server runs."""
        return tuple(self._files)

    def _follow_tls(self, server: ServerSettings) -> None:
        files = TlsFiles(
            server.ssl_cert or "",
            server.ssl_key or "",
            server.ssl_client_ca or "",
            require_client_certificate=server.ssl_client_auth == "required",
        )

        def read() -> tuple[ssl.SSLContext, float | None]:
            return server_context(files), expires_at(files.certificate)

        def use(found: tuple[ssl.SSLContext, float | None]) -> None:
            context, self._expires_at = found
            self._expiry_logged_at = -inf  # a new certificate has another expiry
            if self.context is None:
                self.context = NewestContext(context)
            self.context.newest = context

        self._files.append(WatchedFiles("tls", files.paths, read, use))

    def _limit_calls(self, server: ServerSettings) -> None:
        limit = None
        if server.rate_limit is not None:
            # The default burst is one second's calls, and at least 1: a smaller bucket would admit no call.
            limit = RateLimit(server.rate_limit, server.rate_burst or max(server.rate_limit, 1.0))
        if server.auth_file is None and limit is None:
            return
        admission = self.admission = Admission(None, limit, clock=self._monotonic)

        def use(rules: Rules) -> None:
            admission.rules = rules

        if server.auth_file is not None:
            read = partial(read_rules, server.auth_file)
            self._files.append(WatchedFiles("auth", (server.auth_file,), read, use))

    def warnings(self, hosts: Iterable[str]) -> tuple[str, ...]:
        """Settings that are probably mistakes, given the addresses that the server listens on."""
        server = self._server
        rules = self.admission.rules if self.admission is not None else None
        warnings = []
        if rules is not None and rules.certificates and not server.ssl_client_ca:
            warnings.append(
                "auth_file names certificates, but without ssl_client_ca no client is asked for one"
            )
        certificate_required = server.ssl_client_ca is not None and server.ssl_client_auth == "required"
        risks = []
        if self.context is None:
            risks.append("calls are not encrypted")
            if rules is not None:
                risks.append("tokens are sent in the clear")
        if rules is None and not certificate_required:
            risks.append("any client may call")
        if risks and any(map(is_public, hosts)):
            warnings.append(f"the address is public: {', '.join(risks)}")
        return tuple(warnings)

    async def watch(
        self,
        note_current: Callable[[bool], None],
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> Never:
        """Checks the files periodically, and logs a certificate that expires. `note_current`
        receives whether all values in force are those of the files."""
        while True:
            try:
                self.log_expiry()
                for each in self._files:
                    await each.check()
                note_current(all(each.current for each in self._files))
            except Exception:
                # Parsers of files raise many types, and this task is not awaited: an error that ended it
                # would go unnoticed, and no renewed certificate would be loaded again.
                log.exception("checking files failed")
            await sleep(self._server.reload_seconds)

    def log_expiry(self) -> None:
        """Logs a certificate that expires soon or has expired, once a day."""
        now = self._monotonic()
        if self._expires_at is None or now - self._expiry_logged_at < DAY_SECONDS:
            return
        self._expiry_logged_at = now
        left_s = self._expires_at - self._clock()
        facts = self._server.ssl_cert, datetime.fromtimestamp(self._expires_at, UTC).isoformat()
        if left_s <= 0:
            log.error("certificate has expired file=%s at=%s", *facts)
        elif left_s <= EXPIRY_WARNING_SECONDS:
            log.warning("certificate expires soon file=%s at=%s days=%.1f", *facts, left_s / DAY_SECONDS)


def is_public(host: str) -> bool:
    """Whether a server on this address is reachable from other machines.

    >>> [is_public(host) for host in ("0.0.0.0", "192.0.2.1", "::", "127.0.0.1", "::1", "/run/socket")]
    [True, True, True, False, False, False]
    """
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
