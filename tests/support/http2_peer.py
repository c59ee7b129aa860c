"""A client for tests that speaks HTTP/2 frame by frame, and no more of it than it is told to."""

import asyncio
import struct
from collections import defaultdict
from types import TracebackType
from typing import Self, TypeVar

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE_S = 10.0
"""For one thing to happen; only a failing test waits for so long."""

_F = TypeVar("_F", bound=Frame)


def message(payload: bytes = b"", flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message on the wire; `length` is what its prefix announces, if not the truth."""
    return struct.pack(">BI", flag, len(payload) if length is None else length) + payload


def raw(kind: int, body: bytes = b"", *, stream: int = 0, flags: int = 0, length: int | None = None) -> bytes:
    """A frame as hyperframe would not build it; `length` is what its header says, if not the truth."""
    size = len(body) if length is None else length
    return size.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + body


class Peer:
    """One connection to the server under test; `frames` remembers all that was read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.frames: list[Frame] = []
        self.next_stream = 1
        # What the server lets us send: on stream 0, the connection, by its updates alone.
        self.windows = defaultdict(lambda: 4 << 20, {0: 65_535})

    @classmethod
    async def connect(cls, port: int, *, greet: bool = True, settings: dict[int, int] | None = None) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        peer = cls(reader, writer)
        if greet:
            peer.write(PREFACE, SettingsFrame(0, settings=settings or {}))
        return peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass

    def write(self, *parts: bytes | Frame) -> None:
        """Frames or bytes, as they are."""
        self.writer.write(b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts))

    def headers(
        self, path: str = "/test.Test/Echo", *, drop: str = "", end: bool = False, **more: str
    ) -> HeadersFrame:
        """The HEADERS of the next stream; `drop` leaves a field out, others are added or replaced."""
        fields = {
            ":method": "POST", ":scheme": "http", ":path": path, ":authority": "test",
            "te": "trailers", "content-type": "application/grpc",
        }  # fmt: skip
        fields |= {name.replace("_", "-"): value for name, value in more.items()}
        return self.fields([(name, value) for name, value in fields.items() if name != drop], end=end)

    def fields(self, fields: list[tuple[str | bytes, str | bytes]], *, end: bool = False) -> HeadersFrame:
        """The HEADERS of the next stream with exactly these fields."""
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        frame = HeadersFrame(self.next_stream, data=self.encoder.encode(fields), flags=flags)
        self.next_stream += 2
        return frame

    def call(self, payload: bytes = b"hello", **more: str) -> int:
        """Sends a whole call; its stream is returned."""
        frame = self.headers(**more)
        self.write(frame, DataFrame(frame.stream_id, data=message(payload), flags=["END_STREAM"]))
        return frame.stream_id

    async def send_slowly(self, stream_id: int, data: bytes, *, end: bool = True) -> None:
        """Sends a request body as fast as the server lets it; stops where the stream is reset."""
        for at in range(0, len(data), 16_384):
            chunk = data[at : at + 16_384]
            while min(self.windows[0], self.windows[stream_id]) < len(chunk) and not self.resets(stream_id):
                assert await self.read() is not None, "closed in the middle of a request"
            if self.resets(stream_id):
                return
            self.windows[0] -= len(chunk)
            self.windows[stream_id] -= len(chunk)
            last = end and at + len(chunk) == len(data)
            self.write(DataFrame(stream_id, data=chunk, flags=["END_STREAM"] if last else []))
            await self.writer.drain()

    def resets(self, stream_id: int) -> bool:
        """Whether the server has reset this stream, in what was read so far."""
        return any(isinstance(one, RstStreamFrame) and one.stream_id == stream_id for one in self.frames)

    async def read(self) -> Frame | None:
        """The next frame, or None where the server has closed its side."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                head = await self.reader.readexactly(9)
                frame, length = Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await self.reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        if isinstance(frame, HeadersFrame):
            frame.fields = dict(self.decoder.decode(frame.data))  # type: ignore[attr-defined]
        if isinstance(frame, WindowUpdateFrame):
            self.windows[frame.stream_id] += frame.window_increment
        self.frames.append(frame)
        return frame

    async def until(self, kind: type[_F], stream_id: int | None = None) -> _F:
        """The first frame of this kind that was not asked for yet, and of this stream if one is given."""
        for frame in self.frames:
            if isinstance(frame, kind) and stream_id in (None, frame.stream_id):
                self.frames.remove(frame)
                return frame
        while (frame := await self.read()) is not None:
            if isinstance(frame, kind) and stream_id in (None, frame.stream_id):
                self.frames.pop()
                return frame
        raise AssertionError(f"closed without {kind.__name__}; came {self.frames}")

    async def end(self) -> None:
        """Reads until the server closes its side."""
        while await self.read() is not None:
            pass

    async def goodbye(self) -> GoAwayFrame:
        """The GOAWAY that ends this connection."""
        said = await self.until(GoAwayFrame)
        await self.end()
        return said

    async def trailers(self, stream_id: int) -> dict[str, str]:
        """The fields that end a call."""
        while True:
            frame = await self.until(HeadersFrame, stream_id)
            if "END_STREAM" in frame.flags:
                return frame.fields  # type: ignore[attr-defined, no-any-return]

    async def status(self, stream_id: int) -> tuple[int, str]:
        """The gRPC status of a call, and its message."""
        trailers = await self.trailers(stream_id)
        return int(trailers["grpc-status"]), trailers.get("grpc-message", "")

    async def reset(self, stream_id: int) -> int:
        """The code with which the server resets a stream."""
        return (await self.until(RstStreamFrame, stream_id)).error_code

    async def alive(self) -> bool:
        """Whether the server still answers on this connection, after all that was sent before."""
        self.write(PingFrame(0, opaque_data=b"are you?"))
        while (frame := await self.read()) is not None:
            if isinstance(frame, PingFrame) and frame.opaque_data == b"are you?":
                return True
        return False
