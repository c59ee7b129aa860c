"""The header fields of one call: well-formed for HTTP/2, and understood as gRPC.

What HTTP/2 calls malformed gets a stream error, since its sender is no HTTP/2 client
(RFC 9113, section 8.1.1). What is HTTP/2 but not a call that we can serve is answered
with a status, so that a caller sees what to change.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grpclib.const import Status
from grpclib.metadata import decode_timeout

from routing.errors import shown
from routing.rpc.response_headers import CONTENT_TYPE

Headers = Sequence[tuple[str, str]]

MIN_TIMEOUT_S: Final = 0.005
"""grpclib calls a deadline that passed before it looked an internal error. What is left
of a timeout is at least this when it looks, some microseconds after us."""

_NAME = re.compile(r":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(r"(?:[^\x00\r\n\t ](?:[^\x00\r\n]*[^\x00\r\n\t ])?)?", re.DOTALL)
_TIMEOUT = re.compile(r"[0-9]{1,8}[HMSmun]")
_PSEUDO = (":method", ":scheme", ":path")
_PSEUDO_ALLOWED = {*_PSEUDO, ":authority"}
_OF_ONE_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
_CONTENT_TYPES = ("application/grpc", CONTENT_TYPE)


class Malformed(Exception):
    """No request by HTTP/2's rules; the text says which rule."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer given for the headers alone."""

    http_status: int
    status: Status
    message: str


def check_request(headers: Headers) -> None:
    """Raises Malformed where RFC 9113, section 8, calls these header fields so."""
    seen: set[str] = set()
    regular = False
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise Malformed(f"field name {shown(name)}")
        if not _VALUE.fullmatch(value):
            raise Malformed(f"value of field {name}")
        if name[0] == ":":
            if regular or name in seen or name not in _PSEUDO_ALLOWED:
                raise Malformed(f"pseudo-header field {name}")
            if name == ":path" and not value:
                raise Malformed("empty pseudo-header field :path")
            seen.add(name)
        else:
            regular = True
            if name in _OF_ONE_HOP or (name == "te" and value != "trailers"):
                raise Malformed(f"connection-specific field {name}")
    for name in _PSEUDO:
        if name not in seen:
            raise Malformed(f"missing pseudo-header field {name}")


def list_bytes(headers: Headers) -> int:
    """The size of a header list, as SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113, section 6.5.2)."""
    return sum(len(name) + len(value) + 32 for name, value in headers)


def oversize(headers: Headers, max_bytes: int) -> Refusal | None:
    """The answer to a request with more bytes of header fields than that, or None if it has fewer."""
    size = list_bytes(headers)
    if size <= max_bytes:
        return None
    message = f"metadata: {size} bytes of header fields; at most {max_bytes} are accepted"
    return Refusal(200, Status.RESOURCE_EXHAUSTED, message)


def timeout_s(headers: Headers) -> float | None:
    """The shortest `grpc-timeout` of a call; ValueError for one that is not a timeout."""
    timeouts = []
    for name, value in headers:
        if name == "grpc-timeout":
            if not _TIMEOUT.fullmatch(value):
                raise ValueError(value)
            timeouts.append(decode_timeout(value))
    return min(timeouts, default=None)


def refusal(headers: Headers) -> Refusal | None:
    """The answer to a request that is no call of ours, or None if it is one."""
    fields = dict(headers)
    if fields[":method"] != "POST":
        return Refusal(
            405, Status.INVALID_ARGUMENT, f":method: {shown(fields[':method'])} is not valid; expected POST"
        )
    content_type = fields.get("content-type", "").partition(";")[0].rstrip()
    if content_type not in _CONTENT_TYPES:
        message = f"content-type: {shown(content_type)} is not valid; expected {' or '.join(_CONTENT_TYPES)}"
        return Refusal(415, Status.INVALID_ARGUMENT, message)
    try:
        timeout_s(headers)
    except ValueError as error:
        given = shown(str(error))
        message = f"grpc-timeout: {given} is not valid; expected 1 to 8 digits and one of H, M, S, m, u, n"
        return Refusal(200, Status.INVALID_ARGUMENT, message)
    for name, value in headers:
        if name.endswith("-bin") and not _is_base64(value):
            return Refusal(
                200, Status.INVALID_ARGUMENT, f"{name}: {shown(value)} is not valid; expected base64"
            )
    return None


def _is_base64(value: str) -> bool:
    """One or more values, joined by commas, each with or without padding."""
    try:
        for part in value.split(","):
            bare = part.strip().rstrip("=")
            b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def as_served(headers: Headers, left_s: float | None) -> list[tuple[str, str]]:
    """The headers as grpclib's handler may see them.

    The timeout is what is left of it, counted from the call's arrival. Binary metadata
    goes one value to a field and without padding, since grpclib knows no lists and adds
    padding itself. The content type loses its parameters, which grpclib does not know. It
    refuses a request without `te`, which some proxies drop, so that field is added.
    """
    served: list[tuple[str, str]] = []
    for name, value in headers:
        if name == "grpc-timeout":
            continue
        if name == "content-type":
            served.append((name, value.partition(";")[0].rstrip()))
        elif name.endswith("-bin"):
            served += [(name, part.strip().rstrip("=")) for part in value.split(",")]
        else:
            served.append((name, value))
    if all(name != "te" for name, _ in headers):
        served.append(("te", "trailers"))
    if left_s is not None:
        served.append(("grpc-timeout", f"{max(1, round(max(left_s, MIN_TIMEOUT_S) * 1e6))}u"))
    return served
