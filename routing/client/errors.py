"""The errors of a call, a type for each way in which a caller would handle it."""

from collections.abc import Mapping
from types import MappingProxyType

from routing.errors import RoutingError


class RoutingCallError(RoutingError):
    """A call failed. `status` is the name of the gRPC status.

    `pushback_s` is the retry delay that the server sent, in seconds; negative means "do not
    retry", None that it sent none.
    """

    pushback_s: float | None = None

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


class InvalidRequest(RoutingCallError):
    """A field has an invalid value; the same call will always fail."""

    def __init__(self, message: str, status: str = "INVALID_ARGUMENT") -> None:
        super().__init__(message, status)


class NoBackend(RoutingCallError):
    """No backend is eligible; the message has the reason for each."""


class Overloaded(RoutingCallError):
    """A limit of the server is reached: calls, backends, or message size."""


class ServerUnavailable(RoutingCallError):
    """The server could not be reached, or ended the call early; the client retries such calls."""

    def __init__(self, message: str, status: str = "UNAVAILABLE") -> None:
        super().__init__(message, status)


class DeadlineExceeded(RoutingCallError):
    """No answer within `timeout_seconds`, all retries included."""

    def __init__(self, message: str, status: str = "DEADLINE_EXCEEDED") -> None:
        super().__init__(message, status)


class Unauthenticated(RoutingCallError):
    """The server requires authentication, and the token or certificate is missing or unknown."""


class PermissionDenied(RoutingCallError):
    """The caller's role does not allow this call."""


class ServerFault(RoutingCallError):
    """The server failed, or sent an answer that this client cannot read."""

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
