"""Maps errors to gRPC statuses, with messages that fit into a header."""

from collections.abc import Mapping
from math import ceil
from types import MappingProxyType
from typing import Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import encode_grpc_message

from routing.errors import (
    BadMessage,
    Draining,
    InvalidArgument,
    LimitReached,
    MessageTooLarge,
    NoEligibleBackend,
    NotServed,
    PermissionDenied,
    RoutingError,
    TooManyCalls,
    Unauthenticated,
    Unsupported,
)
from routing.rpc.response_headers import Trailers

STATUSES: Final[Mapping[type, Status]] = MappingProxyType(
    {
        InvalidArgument: Status.INVALID_ARGUMENT,
        BadMessage: Status.INVALID_ARGUMENT,
        NoEligibleBackend: Status.FAILED_PRECONDITION,
        LimitReached: Status.RESOURCE_EXHAUSTED,
        MessageTooLarge: Status.RESOURCE_EXHAUSTED,
        TooManyCalls: Status.RESOURCE_EXHAUSTED,
        NotServed: Status.NOT_FOUND,
        Unsupported: Status.UNIMPLEMENTED,
        Draining: Status.UNAVAILABLE,
        Unauthenticated: Status.UNAUTHENTICATED,
        PermissionDenied: Status.PERMISSION_DENIED,
    }
)
"""The status of each error type. Any other exception is a bug of the server: INTERNAL."""

MAX_MESSAGE_BYTES = 4096
"""Length with percent escapes, as sent. Clients refuse more than 8 KiB of headers in total (the
default of grpcio and of Node), and then report that instead of our message."""

_FIXED_TEXT_BYTES = 128
"""The most that the text around the reasons takes."""


def status_and_message(error: Exception) -> tuple[Status, str]:
    """The status and the message that a caller receives for an error."""
    if isinstance(error, GRPCError):  # the generated base's "not implemented"
        return error.status, error.message or ""
    status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), None)
    if status is None or not isinstance(error, RoutingError):
        return Status.INTERNAL, "internal error"
    return status, status_message(error)


def trailers(error: Exception) -> Trailers:
    """Extra trailers of an error. Where a retry can succeed, they say when: clients honour
    `grpc-retry-pushback-ms` (gRPC proposal A6, "Client Retries").

    >>> trailers(TooManyCalls("slower, please", wait_s=0.0301))
    (('grpc-retry-pushback-ms', '31'),)
    """
    if not isinstance(error, TooManyCalls):
        return ()
    return (("grpc-retry-pushback-ms", str(ceil(error.wait_s * 1e3))),)


def status_message(error: RoutingError) -> str:
    """The error's message, truncated to MAX_MESSAGE_BYTES. Reasons are left out whole and counted."""
    text = error.message
    if _sent_bytes(text) <= MAX_MESSAGE_BYTES:
        return text
    return _fewer_reasons(error) if isinstance(error, NoEligibleBackend) else _cut(text)


def _fewer_reasons(error: NoEligibleBackend) -> str:
    kept: dict[str, str] = {}
    size = _FIXED_TEXT_BYTES
    for backend_id, why in sorted(error.reasons.items()):
        size += _sent_bytes(f"{backend_id}: {why}; ")
        if size > MAX_MESSAGE_BYTES:
            break
        kept[backend_id] = why
    left_out = len(error.reasons) - len(kept)
    return f"{NoEligibleBackend(kept).message.removesuffix(')')}; … and {left_out:,} more)"


def _cut(text: str) -> str:
    kept = text[:MAX_MESSAGE_BYTES]
    while _sent_bytes(kept) > MAX_MESSAGE_BYTES - _sent_bytes("…"):
        kept = kept[: len(kept) * 3 // 4]
    return f"{kept}…"


def _sent_bytes(text: str) -> int:
    return len(encode_grpc_message(text))
