"""Errors as gRPC statuses: one table, and words that fit into a header."""

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
"""What each error is to a caller. Anything else is a fault of ours: INTERNAL."""

MAX_MESSAGE_BYTES = 4096
"""As sent, with percent escapes. Clients refuse more than 8 KiB of headers in all (the
default of grpcio and of Node) and then show their own complaint instead of our reason."""

_ROOM_FOR_THE_REST_BYTES = 128
"""What the words around the reasons take, at most."""


def verdict(error: Exception) -> tuple[Status, str]:
    """The status that an error is to the caller, and the words that go with it."""
    if isinstance(error, GRPCError):  # the generated base's "not implemented"
        return error.status, error.message or ""
    status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), None)
    if status is None or not isinstance(error, RoutingError):
        return Status.INTERNAL, "internal error"
    return status, status_message(error)


def trailers(error: Exception) -> Trailers:
    """What goes with an error's status. Where waiting helps, for how long: gRPC's proposal A6,
    "Client Retries", has clients heed `grpc-retry-pushback-ms`.

    >>> trailers(TooManyCalls("slower, please", wait_s=0.0301))
    (('grpc-retry-pushback-ms', '31'),)
    """
    if not isinstance(error, TooManyCalls):
        return ()
    return (("grpc-retry-pushback-ms", str(ceil(error.wait_s * 1e3))),)


def status_message(error: RoutingError) -> str:
    """The error's message, short enough to arrive; reasons are left out whole, and counted."""
    text = error.message
    if _sent_bytes(text) <= MAX_MESSAGE_BYTES:
        return text
    return _fewer_reasons(error) if isinstance(error, NoEligibleBackend) else _cut(text)


def _fewer_reasons(error: NoEligibleBackend) -> str:
    kept: dict[str, str] = {}
    size = _ROOM_FOR_THE_REST_BYTES
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
