"""What a call can end with, as types: one for each thing that a caller would do about it."""

from collections.abc import Mapping
from types import MappingProxyType

from routing.errors import RoutingError


class RoutingCallError(RoutingError):
    """A call did not get its answer. `status` is the name of the gRPC status.

    `pushback_s` is how long the server asks to wait before another try; negative, it asks
    for none, and None where it does not say.
    """

    pushback_s: float | None = None

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


class InvalidRequest(RoutingCallError):
    """A field holds what it must not; the same call will always fail."""

    def __init__(self, message: str, status: str = "INVALID_ARGUMENT") -> None:
        super().__init__(message, status)


class NoBackend(RoutingCallError):
    """No backend may serve this content; the message says for each why not."""


class Overloaded(RoutingCallError):
    """A limit of the server is reached: of calls, of backends, or of a message's size."""


class ServerUnavailable(RoutingCallError):
    """The server could not be reached, or broke the call off; calls retry this by themselves."""

    def __init__(self, message: str, status: str = "UNAVAILABLE") -> None:
        super().__init__(message, status)


class DeadlineExceeded(RoutingCallError):
    """No answer within `timeout_seconds`, all retries included."""

    def __init__(self, message: str, status: str = "DEADLINE_EXCEEDED") -> None:
        super().__init__(message, status)


class Unauthenticated(RoutingCallError):
    """The server wants to know who calls, and the token or certificate does not tell."""


class PermissionDenied(RoutingCallError):
    """The server knows who calls, and does not let them."""


class ServerFault(RoutingCallError):
    """The server failed, or answered what this client cannot understand."""

    def __init__(self, message: str, status: str = "INTERNAL") -> None:
        super().__init__(message, status)


class ClientClosed(RoutingError):
    """The client was closed before or during the call."""


_BY_STATUS: Mapping[str, type[RoutingCallError]] = MappingProxyType(
    {
        "INVALID_ARGUMENT": InvalidRequest,
        "OUT_OF_RANGE": InvalidRequest,
        "FAILED_PRECONDITION": NoBackend,
        "RESOURCE_EXHAUSTED": Overloaded,
        "UNAVAILABLE": ServerUnavailable,
        "DEADLINE_EXCEEDED": DeadlineExceeded,
        "UNAUTHENTICATED": Unauthenticated,
        "PERMISSION_DENIED": PermissionDenied,
    }
)


def call_error(status: str, message: str, pushback_s: float | None = None) -> RoutingCallError:
    """The error for a status; one without a row is the server's own fault."""
    error = _BY_STATUS.get(status, ServerFault)(message or "the server gave no reason", status)
    error.pushback_s = pushback_s
    return error
