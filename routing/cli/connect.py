"""The connection of a command to its server: address, TLS and token, from the flags."""

import os
from argparse import Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from routing.cli.output.screen import Screen
from routing.errors import ConfigError, InvalidArgument

if TYPE_CHECKING:
    from routing.client import RoutingClient
    from routing.client.target import Tls

TOKEN_VARIABLE = "ROUTING_TOKEN"  # noqa: S105 - its name, not its value


def target(arguments: Namespace) -> str:
    """The server's HOST:PORT, as the client library takes it."""
    if arguments.target:
        return str(arguments.target)
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    return f"{host}:{arguments.port}"


def tls(arguments: Namespace) -> "Tls":
    """The trusted authority and the client certificate; False for a server without TLS."""
    from routing.client.target import TlsFiles

    files = TlsFiles(arguments.ssl_ca or "", arguments.ssl_cert or "", arguments.ssl_key or "")
    return files if files != TlsFiles() else bool(arguments.use_ssl)


def credential(arguments: Namespace) -> str | None:
    """The token from --token, --token-file or ROUTING_TOKEN, in this order, or None."""
    if arguments.token and arguments.token_file:
        raise InvalidArgument("--token, --token-file", "both", "one of them")
    where, secret = "--token", arguments.token
    if arguments.token_file:
        where = "--token-file"
        try:
            secret = Path(arguments.token_file).read_text(encoding="ascii", errors="replace").strip()
        except OSError as error:
            expected = f"expected a file that can be read: {error.strerror}"
            raise ConfigError(where, arguments.token_file, expected) from None
    elif secret is None:
        where, secret = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE) or None
    # The message says what a header can carry, and never the value, which is a secret.
    if secret is not None and not (secret.isascii() and secret.isprintable() and secret):
        raise ConfigError("command line", where, "expected one line of ASCII text, the token")
    return secret


Result = TypeVar("Result")


FINE, REFUSED = 0, 1


def ask(arguments: Namespace, screen: Screen, call: Callable[["RoutingClient"], Awaitable[Result]]) -> Result:
    """Makes one call on a new connection and returns its answer."""
    import asyncio

    async def ask() -> Result:
        async with client_of(arguments) as client:
            return await call(client)

    with screen.working(f"asking {target(arguments)}"):
        return asyncio.run(ask())


def client_of(arguments: Namespace) -> "RoutingClient":
    """A client of the server that the flags name."""
    from routing.client import RoutingClient

    return RoutingClient(
        target(arguments),
        tls=tls(arguments),
        token=credential(arguments),
        timeout_seconds=arguments.timeout,
    )
