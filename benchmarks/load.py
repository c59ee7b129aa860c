"""A gRPC load generator that shares no code with the servers: HTTP/2 frames over asyncio.

A call is written from two prepared byte strings, and only the nine-byte headers of the answers'
frames are parsed, so the generator needs a fraction of a server's CPU. A call is answered when
its stream ends after a DATA frame; a stream that ends without one is an error and ends the run.

    python benchmarks/load.py 127.0.0.1:50051 /package.Service/Method request.bin
"""

import argparse
import asyncio
import statistics
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
INITIAL_WINDOW_SIZE = 0x4
LARGEST_WINDOW = 2**31 - 1
"""No flow control: a run ends before two gigabytes of answers have arrived."""


@dataclass(frozen=True, slots=True)
class Load:
    """The result of one run."""

    calls: int
    calls_per_second: float
    median_ms: float
    p99_ms: float


class Failed(Exception):
    """The server refused a call, or reset or closed the connection."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Caller(asyncio.Protocol):
    """One connection that keeps a fixed number of calls open."""

    def __init__(self, authority: str, path: str, message: bytes, streams: int) -> None:
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "benchmark"),
        ]
        encoder = Encoder()
        self._first = encoder.encode(headers)
        self._block = encoder.encode(headers)  # every header is in the dynamic table now
        self._body = struct.pack(">BI", 0, len(message)) + message
        self._streams = streams
        self._next = 1
        self._open: dict[int, float] = {}
        self._answered: set[int] = set()
        self._buffer = b""
        self.latencies_s: list[float] = []
        self.running = True
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        window = struct.pack(">HI", INITIAL_WINDOW_SIZE, LARGEST_WINDOW)
        grow = struct.pack(">I", LARGEST_WINDOW - 65_535)
        transport.write(PREFACE + frame(SETTINGS, 0, 0, window) + frame(WINDOW_UPDATE, 0, 0, grow))
        transport.write(b"".join(self._call() for _ in range(self._streams)))

    def _call(self) -> bytes:
        stream, self._next = self._next, self._next + 2
        block, self._first = self._first or self._block, b""
        self._open[stream] = time.perf_counter()
        return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, self._body)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        at, out = 0, []
        while len(data) - at >= 9:
            length = int.from_bytes(data[at : at + 3])
            if len(data) - at < 9 + length:
                break
            kind, flags, stream = struct.unpack_from(">BBI", data, at + 3)
            out.append(self._frame(kind, flags, stream, data[at + 9 : at + 9 + length]))
            at += 9 + length
        self._buffer = data[at:]
        answer = b"".join(out)
        if answer:
            self._transport.write(answer)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if kind == SETTINGS and not flags & ACK:
            return frame(SETTINGS, ACK, 0, b"")
        if kind == PING and not flags & ACK:
            return frame(PING, ACK, 0, payload)
        if kind == DATA:
            self._answered.add(stream)
        if kind in (RESET, GOAWAY) and not self.ended.done():
            self.ended.set_exception(Failed(f"frame type {kind}: {payload!r}"))
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            return self._end(stream, payload)
        return b""

    def _end(self, stream: int, payload: bytes) -> bytes:
        self.latencies_s.append(time.perf_counter() - self._open.pop(stream))
        if stream not in self._answered:
            if not self.ended.done():
                self.ended.set_exception(Failed(f"a call was refused: {_shown(payload)}"))
            return b""
        self._answered.discard(stream)
        if self.running:
            return self._call()
        if not self._open and not self.ended.done():
            self.ended.set_result(None)
        return b""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(Failed(f"connection lost: {exc}"))

    def close(self) -> None:
        self._transport.close()


def _shown(block: bytes) -> str:
    try:
        return str(Decoder().decode(block))
    except Exception as error:  # the block may need the dynamic table of earlier ones
        return f"{block!r} ({error})"


async def load(
    address: str, path: str, message: bytes, *, connections: int, streams: int, seconds: float
) -> Load:
    """Sends the next call when one is answered; counts those of the last `seconds`."""
    host, port = address.rsplit(":", 1)
    loop = asyncio.get_running_loop()
    callers = [
        (await loop.create_connection(lambda: Caller(address, path, message, streams), host, int(port)))[1]
        for _ in range(connections)
    ]
    failures = [caller.ended for caller in callers]
    await asyncio.wait(failures, timeout=seconds / 4, return_when=asyncio.FIRST_EXCEPTION)
    warm = [len(caller.latencies_s) for caller in callers]
    began = time.perf_counter()
    await asyncio.wait(failures, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    took_s = time.perf_counter() - began
    latencies = [
        latency_s
        for caller, before in zip(callers, warm, strict=True)
        for latency_s in caller.latencies_s[before:]
    ]
    for caller in callers:
        caller.running = False
    await asyncio.gather(*failures)
    for caller in callers:
        caller.close()
    ordered = sorted(latencies)
    return Load(
        len(ordered),
        len(ordered) / took_s,
        statistics.median(ordered) * 1e3,
        ordered[int(0.99 * (len(ordered) - 1))] * 1e3,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Loads one gRPC method.")
    parser.add_argument("address", help="host:port")
    parser.add_argument("path", help="/package.Service/Method")
    parser.add_argument("message", type=Path, help="file with the serialised request")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    try:
        done = asyncio.run(
            load(
                given.address,
                given.path,
                given.message.read_bytes(),
                connections=given.connections,
                streams=given.streams,
                seconds=given.seconds,
            )
        )
    except (Failed, OSError) as error:
        sys.exit(str(error))
    print(
        f"calls={done.calls} calls_per_second={done.calls_per_second:.1f}"
        f" median_ms={done.median_ms:.4f} p99_ms={done.p99_ms:.4f}"
    )


if __name__ == "__main__":
    main()
