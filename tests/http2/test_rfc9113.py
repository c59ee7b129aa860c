"""What HTTP/2 (RFC 9113) and gRPC call wrong, and with what it is answered."""

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from grpclib.const import Status
from h2.errors import ErrorCodes
from hyperframe.frame import (
    DataFrame,
    PingFrame,
    PriorityFrame,
    WindowUpdateFrame,
)

from routing.http2.frame_filter import DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE
from support.http2_peer import PREFACE, Peer, raw
from support.http2_server import abused, serving

GOOD: list[tuple[str | bytes, str | bytes]] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Test/Echo"),
    ("content-type", "application/grpc"),
]
REQUEST = b"\x83\x86\x84"
""":method POST, :scheme http and :path / in HPACK's static table."""


pytestmark = pytest.mark.usefixtures("quiet")


PROTOCOL, FLOW, CLOSED, SIZE, COMPRESSION = (
    ErrorCodes.PROTOCOL_ERROR,
    ErrorCodes.FLOW_CONTROL_ERROR,
    ErrorCodes.STREAM_CLOSED,
    ErrorCodes.FRAME_SIZE_ERROR,
    ErrorCodes.COMPRESSION_ERROR,
)

CONNECTION_ERRORS: dict[str, tuple[ErrorCodes, Callable[[Peer], list[Any]]]] = {
    "4.2 PING of 7 bytes": (SIZE, lambda p: [raw(PING, b"1234567")]),
    "4.2 RST_STREAM of 3 bytes": (SIZE, lambda p: [p.headers(), raw(RST_STREAM, b"123", stream=1)]),
    "4.2 SETTINGS of 5 bytes": (SIZE, lambda p: [raw(SETTINGS, b"12345")]),
    "4.2 GOAWAY of 7 bytes": (SIZE, lambda p: [raw(GOAWAY, b"1234567")]),
    "4.2 WINDOW_UPDATE of 5 bytes": (SIZE, lambda p: [raw(WINDOW_UPDATE, b"12345")]),
    "4.3 a header block that does not decode": (
        COMPRESSION,
        lambda p: [raw(HEADERS, b"\xff\xff\xff\xff\xff\xff\xff", stream=1, flags=0x5)],
    ),
    "5.1 DATA on an idle stream": (PROTOCOL, lambda p: [raw(DATA, b"x", stream=7)]),
    "5.1 RST_STREAM on an idle stream": (
        PROTOCOL,
        lambda p: [p.headers(), raw(RST_STREAM, b"\0\0\0\0", stream=7)],
    ),
    "5.1 WINDOW_UPDATE on an idle stream": (PROTOCOL, lambda p: [WindowUpdateFrame(7, window_increment=1)]),
    "5.1.1 a client's stream with an even number": (
        PROTOCOL,
        lambda p: [raw(HEADERS, b"\x82", stream=2, flags=5)],
    ),
    "5.1.1 a stream below the last": (
        PROTOCOL,
        lambda p: [raw(HEADERS, REQUEST, stream=9, flags=5), raw(HEADERS, REQUEST, stream=7, flags=5)],
    ),
    "5.3.1 a stream that depends on itself": (PROTOCOL, lambda p: [PriorityFrame(3, depends_on=3)]),
    "6.1 DATA on stream 0": (PROTOCOL, lambda p: [raw(DATA, b"x")]),
    "6.1 padding longer than its frame": (
        PROTOCOL,
        lambda p: [p.headers(), raw(DATA, b"\xff12", stream=1, flags=8)],
    ),
    "6.2 HEADERS on stream 0": (PROTOCOL, lambda p: [raw(HEADERS, b"\x82", flags=5)]),
    "6.2 a header block that is interrupted": (
        PROTOCOL,
        lambda p: [raw(HEADERS, b"\x82", stream=1), PingFrame(0, opaque_data=b"12345678")],
    ),
    "6.4 RST_STREAM on stream 0": (PROTOCOL, lambda p: [raw(RST_STREAM, b"\0\0\0\0")]),
    "6.5 SETTINGS on a stream": (PROTOCOL, lambda p: [raw(SETTINGS, stream=1)]),
    "6.5 an acknowledgement with content": (SIZE, lambda p: [raw(SETTINGS, b"123456", flags=1)]),
    "6.5.2 a window above 2^31-1": (FLOW, lambda p: [raw(SETTINGS, b"\x00\x04\x80\x00\x00\x00")]),
    "6.5.2 a frame size below 16,384": (PROTOCOL, lambda p: [raw(SETTINGS, b"\x00\x05\x00\x00\x00\x01")]),
    "6.6 PUSH_PROMISE from a client": (
        PROTOCOL,
        lambda p: [p.headers(), raw(5, b"\0\0\0\2\x82", stream=1, flags=4)],
    ),
    "6.7 PING on a stream": (PROTOCOL, lambda p: [raw(PING, b"12345678", stream=1)]),
    "6.8 GOAWAY on a stream": (PROTOCOL, lambda p: [raw(GOAWAY, b"12345678", stream=1)]),
    "6.9 a connection window that grows by 0": (PROTOCOL, lambda p: [raw(WINDOW_UPDATE, b"\0\0\0\0")]),
    "6.9.1 a connection window above 2^31-1": (FLOW, lambda p: [raw(WINDOW_UPDATE, b"\x7f\xff\xff\xff")]),
    "6.5.2 ENABLE_PUSH other than 0 and 1": (PROTOCOL, lambda p: [raw(SETTINGS, b"\0\2\0\0\0\2")]),
    "6.5.2 a frame size above 2^24-1": (PROTOCOL, lambda p: [raw(SETTINGS, b"\0\5\1\0\0\0")]),
    # The next ones are errors of a stream. Section 5.4.1 lets an endpoint end the connection for
    # them, and h2 does.
    "6.9 a stream window that grows by 0": (
        PROTOCOL,
        lambda p: [p.headers(path="/test.Test/Talk"), raw(WINDOW_UPDATE, b"\0\0\0\0", stream=1)],
    ),
    "8.1 trailers that do not end the request": (
        PROTOCOL,
        lambda p: [p.headers(path="/test.Test/Talk"), raw(HEADERS, b"\0\1a\1b", stream=1, flags=4)],
    ),
    "8.1.1 a body shorter than its content-length": (
        PROTOCOL,
        lambda p: [p.headers(**{"content-length": "10"}), raw(DATA, b"x", stream=1, flags=1)],
    ),
    "8.1.1 a content-length that is no number": (PROTOCOL, lambda p: [p.headers(**{"content-length": "-1"})]),
    "6.10 CONTINUATION of nothing": (PROTOCOL, lambda p: [raw(9, b"\x82", stream=1, flags=4)]),
    "6.10 CONTINUATION of another stream": (
        PROTOCOL,
        lambda p: [raw(HEADERS, b"\x82", stream=1), raw(9, b"\x82", stream=3, flags=4)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
async def test_a_connection_error_is_named_and_ends_the_connection(name: str) -> None:
    code, wrong = CONNECTION_ERRORS[name]
    async with serving(linger_seconds=0.01) as server, abused(server) as peer:
        peer.write(*wrong(peer))
        assert (await peer.goodbye()).error_code == code


async def test_a_call_that_its_connection_takes_along_says_nothing() -> None:
    """grpclib wants to send a status for it, which h2 refuses by then."""
    async with serving(linger_seconds=0.01) as server:
        peer = await server.peer()
        peer.write(peer.headers())
        await server.until(lambda: server.calls.open == 1)
        peer.write(raw(DATA, b"x", stream=7))
        assert (await peer.goodbye()).error_code == PROTOCOL
        await server.until(lambda: not server.calls.open)


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" * 5])
async def test_another_protocol_is_not_spoken_to_for_long(first: bytes) -> None:
    async with serving(linger_seconds=0.01) as server:
        peer = await server.peer(greet=False)
        peer.write(first)
        assert (await peer.goodbye()).error_code == PROTOCOL


async def test_the_first_frame_must_be_settings() -> None:
    async with serving(linger_seconds=0.01) as server:
        peer = await server.peer(greet=False)
        peer.write(PREFACE, PingFrame(0, opaque_data=b"12345678"))
        assert (await peer.goodbye()).error_code == PROTOCOL


STREAM_ERRORS: dict[str, tuple[ErrorCodes, Callable[[Peer], list[Any]]]] = {
    "8.1.1 no :method": (PROTOCOL, lambda p: [p.headers(drop=":method")]),
    "8.3.1 no :scheme": (PROTOCOL, lambda p: [p.headers(drop=":scheme")]),
    "8.3.1 no :path": (PROTOCOL, lambda p: [p.headers(drop=":path")]),
    "8.3.1 an empty :path": (PROTOCOL, lambda p: [p.headers(path="")]),
    "8.3 a pseudo-header field twice": (PROTOCOL, lambda p: [p.fields([*GOOD, (":path", "/")])]),
    "8.3 an unknown pseudo-header field": (PROTOCOL, lambda p: [p.fields([(":new", "x"), *GOOD])]),
    "8.3 a pseudo-header field after others": (PROTOCOL, lambda p: [p.fields([("te", "trailers"), *GOOD])]),
    "8.2 a name in upper case": (PROTOCOL, lambda p: [p.fields([*GOOD, (b"Upper", b"x")])]),
    "8.2.1 a name with a space": (PROTOCOL, lambda p: [p.fields([*GOOD, (b"a b", b"x")])]),
    "8.2.1 an empty name": (PROTOCOL, lambda p: [p.fields([*GOOD, (b"", b"x")])]),
    "8.2.1 a value with a line break": (PROTOCOL, lambda p: [p.fields([*GOOD, (b"a", b"x\ny: z")])]),
    "8.2.1 a value with a zero": (PROTOCOL, lambda p: [p.fields([*GOOD, (b"a", b"x\0")])]),
    "8.2.1 a value that begins with a space": (PROTOCOL, lambda p: [p.fields([*GOOD, (b"a", b" x")])]),
    "8.2.2 a field of one hop": (PROTOCOL, lambda p: [p.headers(connection="close")]),
    "8.2.2 te other than trailers": (PROTOCOL, lambda p: [p.headers(te="gzip")]),
    "5.1 DATA after the end of a request": (
        CLOSED,
        lambda p: [p.headers(path="/test.Test/Hold", end=True), raw(DATA, b"x", stream=1)],
    ),
    "5.1 HEADERS after the end of a request": (
        CLOSED,
        lambda p: [p.headers(path="/test.Test/Hold", end=True), raw(HEADERS, b"\x83", stream=1, flags=5)],
    ),
    "5.1 DATA on a stream that the client has reset": (
        CLOSED,
        lambda p: [p.headers(), raw(RST_STREAM, b"\0\0\0\x08", stream=1), raw(DATA, b"x", stream=1)],
    ),
    "6.9 a stream window above 2^31-1": (
        FLOW,
        lambda p: [p.headers(path="/test.Test/Talk"), WindowUpdateFrame(1, window_increment=2**31 - 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAM_ERRORS)
async def test_a_stream_error_is_named_and_ends_the_stream_alone(name: str) -> None:
    code, wrong = STREAM_ERRORS[name]
    async with serving() as server:
        peer = await server.peer()
        peer.write(*wrong(peer))
        assert await peer.reset(1) == code
        assert (await peer.status(peer.call()))[0] == 0


WRONG = Status.INVALID_ARGUMENT

REFUSED: dict[str, tuple[str, Status, str, dict[str, str]]] = {
    "another HTTP method": ("405", WRONG, ":method: 'GET' is not valid", {":method": "GET"}),
    "another content type": ("415", WRONG, "content-type: 'text/html'", {"content-type": "text/html"}),
    "another codec": ("415", WRONG, "expected application/grpc ", {"content-type": "application/grpc+json"}),
    "an unknown method": ("200", Status.UNIMPLEMENTED, "Method not found", {":path": "/test.Test/Nothing"}),
    "a path that is none": ("200", Status.UNIMPLEMENTED, "Method not found", {":path": "*"}),
    "a timeout without a unit": ("200", WRONG, "grpc-timeout: '10' is not valid", {"grpc-timeout": "10"}),
    "a timeout of 400 digits": ("200", WRONG, "grpc-timeout: ", {"grpc-timeout": "9" * 400 + "S"}),
    "a timeout in other digits": ("200", WRONG, "grpc-timeout: ", {"grpc-timeout": "١S"}),
    "a negative timeout": ("200", WRONG, "grpc-timeout: ", {"grpc-timeout": "-1S"}),
    "no time": ("200", Status.DEADLINE_EXCEEDED, "the deadline passed", {"grpc-timeout": "0S"}),
    "metadata that is not base64": ("200", WRONG, "'!' is not valid; expected base64", {"key-bin": "!"}),
    "base64 of an impossible length": ("200", WRONG, "key-bin: ", {"key-bin": "AAAAA"}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_a_request_that_is_no_grpc_call_is_answered_with_the_reason(name: str) -> None:
    http_status, status, words, fields = REFUSED[name]
    async with serving() as server:
        peer = await server.peer()
        peer.write(peer.headers(**fields))
        answer = await peer.trailers(1)
        assert answer[":status"] == http_status
        assert int(answer["grpc-status"]) == status.value
        assert words in unquote(answer["grpc-message"])
        assert (await peer.status(peer.call()))[0] == 0


@pytest.mark.parametrize("path", ["/test.Test/Length", "/test.Test/Talk"])
async def test_a_request_without_te_is_served(path: str) -> None:
    """Some proxies drop the field, and the client behind them sees trailers all the same."""
    async with serving() as server:
        peer = await server.peer()
        frame = peer.headers(path=path, drop="te")
        peer.write(frame, DataFrame(frame.stream_id, data=bytes(5), flags=["END_STREAM"]))
        answer = await peer.trailers(frame.stream_id)
        assert answer["grpc-status"] == "0"


ACCEPTED: dict[str, dict[str, str | bytes]] = {
    "the codec's name": {"content-type": "application/grpc+proto"},
    "parameters of the content type": {"content-type": "application/grpc; charset=utf-8"},
    "bytes that are not ASCII": {"note": b"gr\xfc\xdfe \xff"},
    "several binary values, unpadded": {"key-bin": "AA,AAA,AAAA,,AAA="},
    "the shortest timeout that has not passed": {"grpc-timeout": "50m"},
    "the longest timeout": {"grpc-timeout": "99999999H"},
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_what_clients_may_send_is_served(name: str) -> None:
    async with serving() as server:
        peer = await server.peer()
        assert await peer.status(peer.call(**ACCEPTED[name])) == (0, "")


@pytest.mark.parametrize("timeout", ["1n", "1u", "900u", "30m"])
async def test_a_deadline_that_passes_is_deadline_exceeded(timeout: str) -> None:
    async with serving() as server:
        peer = await server.peer()
        stream = peer.call(path="/test.Test/Hold", **{"grpc-timeout": timeout})
        assert (await peer.status(stream))[0] == Status.DEADLINE_EXCEEDED.value
        await server.until(lambda: not server.streams)
