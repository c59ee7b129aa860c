"""The server's address and TLS settings, as a grpclib channel."""

import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Never

from grpclib.client import Channel

from routing.contract import DEFAULT_PORT, MAX_PORT
from routing.errors import ConfigError, InvalidArgument
from routing.wire import Codec


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for a TLS connection.

    `ca` has the trusted authorities; empty means those of the system. `certificate` and `key`
    are for servers that require a client certificate.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""


Tls = bool | ssl.SSLContext | TlsFiles


def opener(target: str, tls: Tls) -> Callable[[], Channel]:
    """A function that opens a channel to the target; the address and the TLS files are checked here."""
    host, port = address(target)
    context = _context(tls)
    # The client trusts its server, so the limit on fields, which protects servers, is off.
    return lambda: Channel(host, port, codec=Codec(max_fields=sys.maxsize), ssl=context)


def address(target: str) -> tuple[str, int]:
    """Host and port; the port may be left out.

    >>> address("router.example:443"), address("[::1]:50051"), address("localhost")
    (('router.example', 443), ('::1', 50051), ('localhost', 50051))
    """
    host, colon, port = target.rpartition(":")
    if not colon or target.endswith("]"):
        host, port = target, str(DEFAULT_PORT)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""  # an IPv6 address without brackets: its port is ambiguous
    if not host or not _is_port(port):
        raise InvalidArgument("target", target, "HOST:PORT, HOST or [IPv6]:PORT")
    return host, int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PORT)) and 0 < int(text) <= MAX_PORT


def _context(tls: Tls) -> ssl.SSLContext | None:
    if tls is False:
        return None
    context = tls if isinstance(tls, ssl.SSLContext) else ssl.create_default_context()
    if isinstance(tls, TlsFiles):
        _load(context, tls)
    context.set_alpn_protocols(["h2"])
    return context


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    def refuse_password() -> Never:  # otherwise OpenSSL prompts on the terminal
        expected = "an unencrypted private key, not one with a password"
        raise ConfigError("TlsFiles", "key", f"{files.key or files.certificate!r}: expected {expected}")

    try:
        if files.ca:
            context.load_verify_locations(files.ca)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError("TlsFiles", "ca", f"{files.ca!r}: expected a PEM file ({error})") from error
    try:
        if files.certificate or files.key:
            context.load_cert_chain(files.certificate, files.key or None, password=refuse_password)
    except OSError as error:
        raise ConfigError(
            "TlsFiles",
            "certificate",
            f"{files.certificate!r} with key {files.key!r}: expected PEM files that match ({error})",
        ) from error
