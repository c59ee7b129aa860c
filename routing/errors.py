"""The exceptions that callers, operators and peers can cause.

A message names the field, the value received and the values allowed, in one line.
`rpc/status.py` maps each type to one gRPC status, `cli/app.py` to one line and an exit code.
"""

from collections.abc import Iterable, Mapping

_SHOWN_VALUE_CHARACTERS = 80
"""Longer values are truncated: enough to recognise the value, short enough for a log line."""


def shown(value: object) -> str:
    """The value's repr, truncated, for a message."""
    text = repr(value)
    if len(text) <= _SHOWN_VALUE_CHARACTERS:
        return text
    return f"{text[:_SHOWN_VALUE_CHARACTERS]}… ({len(text):,} characters)"


class RoutingError(Exception):
    """Base of everything that a caller, an operator or a peer can cause."""

    @property
    def message(self) -> str:
        """One line that says what to change."""
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidArgument(RoutingError):
    """A field of a request has a value that is not allowed."""

    def __init__(self, field: str, value: object, valid: str) -> None:
        super().__init__(f"{field}: {shown(value)} is not valid; expected {valid}")
        self.field = field


class BadMessage(RoutingError):
    """Bytes that do not decode to the expected message."""


class MessageTooLarge(RoutingError):
    """A message longer than the limit; it is refused before it is buffered."""


class LimitReached(RoutingError):
    """A bounded collection is full; a retry fails until an entry leaves it."""


class TooManyCalls(LimitReached):
    """A caller exceeds its rate limit; after `wait_s` seconds its next call is admitted."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Unauthenticated(RoutingError):
    """The caller sends no credentials, or credentials that this server does not accept."""


class PermissionDenied(RoutingError):
    """The caller is authenticated, but its role does not include this method."""


class NoEligibleBackend(RoutingError):
    """No backend may serve the query; `reasons` maps each candidate to why not."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        listing = "; ".join(f"{backend_id}: {why}" for backend_id, why in sorted(reasons.items()))
        super().__init__(f"no eligible backend ({listing or 'no backend is known'})")
        self.reasons = dict(reasons)


class NotServed(RoutingError):
    """A request names a service, file or symbol that this server does not have."""


class Unsupported(RoutingError):
    """A call that uses a feature this server does not support, such as compression."""


class Draining(RoutingError):
    """The server is shutting down and accepts no new calls."""


class ConfigError(RoutingError):
    """An invalid setting: the file or other source, the key, and what was expected."""

    def __init__(self, where: str, key: str, expected: str) -> None:
        super().__init__(f"{where}: {key}: {expected}" if key else f"{where}: {expected}")
        self.where = where
        self.key = key


class BadTrace(RoutingError):
    """An unreadable trace, or one invalid row of it; line 0 means the whole file."""

    def __init__(self, where: str, line: int, expected: str) -> None:
        super().__init__(f"{where}: line {line:,}: {expected}" if line else f"{where}: {expected}")
        self.line = line


class IncompatibleLibrary(RoutingError):
    """An installed library that lacks what this server is built on."""


class MissingExtra(RoutingError):
    """A feature whose optional packages are missing; `extra` installs them."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the extra {extra!r}: pip install 'routing-server[{extra}]'")
        self.extra = extra


def listed(names: Iterable[str]) -> str:
    """The names with commas between them, for a message."""
    return ", ".join(names)
