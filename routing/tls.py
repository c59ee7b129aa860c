"""The certificate and key that the server shows, as an SSL context; every mistake is one line."""

import ssl
from pathlib import Path
from typing import Never

from routing.errors import ConfigError

ALPN = ("h2",)
"""gRPC is HTTP/2 only. A client that offers only other protocols agrees on none, and is
then refused on its first bytes; one that offers none at all (an old library) is served."""


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with this certificate chain and its unencrypted key, both PEM files.

    Raises ConfigError naming `ssl_cert` or `ssl_key`. Never asks for a password.
    """
    _require_file("ssl_cert", certificate)
    _require_file("ssl_key", key)
    _require_certificate(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    # A renegotiation costs the server far more than the client, and HTTP/2 forbids it (RFC 9113, 9.2.1).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION

    def refuse_password() -> Never:
        _refuse("ssl_key", key, "an unencrypted private key, not one with a password")

    try:
        context.load_cert_chain(certificate, key, password=refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            _refuse("ssl_key", key, f"the private key of the certificate {certificate}, not of another one")
        if error.reason in {"EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
            _refuse("ssl_cert", certificate, f"a stronger certificate ({error.reason})")
        _refuse("ssl_key", key, "a PEM file with a private key")
    return context


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


def _require_certificate(path: str) -> None:
    """Separates a bad certificate from a bad key, which load_cert_chain reports alike."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        _refuse("ssl_cert", path, "a PEM file with a certificate")
