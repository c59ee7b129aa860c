"""What can go wrong, as types with a message that a caller can act on.

A message names the field, what came and what is valid, in one line. `calls.py`
maps each type to one gRPC status, `cli.py` to one line and an exit code.
"""

from collections.abc import Iterable, Mapping

_SHOWN_VALUE_CHARACTERS = 80
"""Longer values are cut in messages: a caller sees what was meant, a log line stays a line."""


def shown(value: object) -> str:
    """The value as one short printable piece of text."""
    text = repr(value)
    if len(text) <= _SHOWN_VALUE_CHARACTERS:
        return text
    return f"{text[:_SHOWN_VALUE_CHARACTERS]}… ({len(text):,} characters)"


class RoutingError(Exception):
    """Anything that a caller, an operator or a peer can cause."""

    @property
    def message(self) -> str:
        """One line for whoever caused it."""
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidArgument(RoutingError):
    """A field of a request holds what it must not."""

    def __init__(self, field: str, value: object, valid: str) -> None:
        super().__init__(f"{field}: {shown(value)} is not valid; expected {valid}")
        self.field = field


class BadMessage(RoutingError):
    """Bytes that are not the message they should be."""


class MessageTooLarge(RoutingError):
    """A message longer than the limit, refused before it is read."""


class LimitReached(RoutingError):
    """A bounded collection is full; asking again changes nothing until something leaves."""


class TooManyCalls(LimitReached):
    """A caller calls more often than it may; after `wait_s` seconds, the next call is let in."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Unauthenticated(RoutingError):
    """The caller does not show who it is, or shows what this server does not know."""


class PermissionDenied(RoutingError):
    """The caller is known, and may not call this."""


class NoEligibleBackend(RoutingError):
    """No backend may serve the query; `reasons` says for each candidate why not."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        said = "; ".join(f"{backend_id}: {why}" for backend_id, why in sorted(reasons.items()))
        super().__init__(f"no eligible backend ({said or 'no backend is known'})")
        self.reasons = dict(reasons)


class NotServed(RoutingError):
    """A thing was asked for that this server does not have."""


class Unsupported(RoutingError):
    """A way of calling that this server does not understand."""


class Draining(RoutingError):
    """The server is about to end and takes no new calls."""


class ConfigError(RoutingError):
    """A setting that cannot be used: where it stands, its key, and what was expected."""

    def __init__(self, where: str, key: str, expected: str) -> None:
        super().__init__(f"{where}: {key}: {expected}" if key else f"{where}: {expected}")
        self.where = where
        self.key = key


class BadTrace(RoutingError):
    """A trace that cannot be read, or a row of it (line 0 is all of the file)."""

    def __init__(self, where: str, line: int, expected: str) -> None:
        super().__init__(f"{where}: line {line:,}: {expected}" if line else f"{where}: {expected}")
        self.line = line


class MissingExtra(RoutingError):
    """A feature whose optional packages are not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the extra {extra!r}: pip install 'routing-server[{extra}]'")
        self.extra = extra


def listed(names: Iterable[str]) -> str:
    """The valid names, for the end of a message."""
    return ", ".join(names)
