"""Builds the server's SSL context; each error in its files is one line."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

from routing.errors import ConfigError

ALPN = ("h2",)
"""gRPC is HTTP/2 only. With a client that offers only other protocols, none is negotiated, and its
first bytes are refused; one that sends no ALPN (an old library) is served."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the server's certificate chain, its unencrypted key, and the authorities that
    sign clients' certificates; empty if clients are not asked for one. Without
    `require_client_certificate`, a client may send a token instead."""

    certificate: str
    key: str
    client_ca: str = ""
    require_client_certificate: bool = True

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that are given."""
        return tuple(filter(None, (self.certificate, self.key, self.client_ca)))


class NewestContext(ssl.SSLContext):
    """A context that starts each new connection with its `newest` context.

    asyncio keeps the context that a socket was first served with. In that one a certificate can be
    replaced, but authorities can only be added. A new context also refuses to resume the sessions
    of clients whose authority was removed.
    """

    newest: ssl.SSLContext

    def __new__(cls, first: ssl.SSLContext) -> "NewestContext":
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context.newest = first
        return context

    def wrap_bio(self, *buffers: Any, **how: Any) -> ssl.SSLObject:
        return self.newest.wrap_bio(*buffers, **how)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A context for TLS 1.2 and 1.3 with these files.

    Raises ConfigError naming `ssl_cert`, `ssl_key` or `ssl_client_ca`. Never prompts for a
    password.
    """
    _require_certificates("ssl_cert", files.certificate)
    _require_file("ssl_key", files.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    # A renegotiation costs the server far more than the client, and HTTP/2 forbids it (RFC 9113, 9.2.1).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _load_pair(context, files)
    if files.client_ca:
        _require_certificates("ssl_client_ca", files.client_ca)
        context.load_verify_locations(files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if files.require_client_certificate else ssl.CERT_OPTIONAL
    return context


def _load_pair(context: ssl.SSLContext, files: TlsFiles) -> None:
    def refuse_password() -> Never:
        _refuse("ssl_key", files.key, "an unencrypted private key, not one with a password")

    try:
        context.load_cert_chain(files.certificate, files.key, password=refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            expected = f"the private key of the certificate {files.certificate}, not of another one"
            _refuse("ssl_key", files.key, expected)
        if error.reason in {"EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
            _refuse("ssl_cert", files.certificate, f"a stronger certificate ({error.reason})")
        _refuse("ssl_key", files.key, "a PEM file with a private key")


def _refuse(setting: str, path: str, expected: str) -> Never:
    raise ConfigError("server", setting, f"{path!r}: expected {expected}") from None


def _require_file(setting: str, path: str) -> None:
    if not path:
        _refuse(setting, path, "the path of a PEM file, which use_ssl needs")
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        _refuse(setting, path, f"a readable PEM file ({(error.strerror or str(error)).lower()})")


def _require_certificates(setting: str, path: str) -> None:
    """Tells a bad certificate from a bad key, for which load_cert_chain raises the same error."""
    _require_file(setting, path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        _refuse(setting, path, "a PEM file with a certificate")
