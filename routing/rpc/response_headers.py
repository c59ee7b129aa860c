"""The header fields of every response: initial headers, trailers, and both in one block."""

from collections.abc import Sequence
from typing import Final

from grpclib.const import Status
from grpclib.metadata import encode_grpc_message

HeaderFields = list[tuple[str, str]]

Trailers = Sequence[tuple[str, str]]
"""Header fields that follow a status, besides its message."""

CONTENT_TYPE: Final = "application/grpc+proto"

INITIAL_HEADERS: Final = ((":status", "200"), ("content-type", CONTENT_TYPE))
"""What precedes the messages of a response."""

OK_TRAILERS: Final = (("grpc-status", str(Status.OK.value)),)
"""What ends a response that succeeds."""


def error_trailers(status: Status, message: str, more: Trailers = ()) -> HeaderFields:
    """What ends a response that fails after its initial headers."""
    return [
        # For callers that compress: this server reads uncompressed messages only.
        ("grpc-accept-encoding", "identity"),
        ("grpc-status", str(status.value)),
        ("grpc-message", encode_grpc_message(message)),
        *more,
    ]


def error_response(
    status: Status, message: str, more: Trailers = (), *, http_status: int = 200
) -> HeaderFields:
    """A whole response that fails before any message, in one header block ("Trailers-Only")."""
    return [
        (":status", str(http_status)),
        ("content-type", CONTENT_TYPE),
        *error_trailers(status, message, more),
    ]
