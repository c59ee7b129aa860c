"""One connection to a server in memory, with and without its fast path, and the bytes of a client."""

import asyncio
from collections.abc import Callable
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, WindowUpdateFrame

from routing.http2 import Http2Limits, Listener
from routing.http2.connection import ServerProtocol
from routing.http2.frame_filter import DATA, HEADERS
from routing.rpc.calls import Calls
from support.http2_peer import raw
from support.http2_server import Clock, Raw, Service

END, END_HEADERS = 0x1, 0x4


class Wire(asyncio.Transport):
    """A transport in memory: what the server writes, and whether it has ended."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1234)})
        self.written = bytearray()
        self.writes = 0
        self.ended = False

    def write(self, data: Any) -> None:
        assert not self.ended
        self.written += data
        self.writes += 1

    def is_closing(self) -> bool:
        return self.ended

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        self.ended = True

    def frames(self) -> list[Frame]:
        data, at, found = bytes(self.written), 0, []
        while at < len(data):
            frame, length = Frame.parse_frame_header(memoryview(data[at : at + 9]))
            frame.parse_body(memoryview(data[at + 9 : at + 9 + length]))
            found.append(frame)
            at += 9 + length
        return found


class Case:
    """One connection to a server in memory, with the fast path or without it."""

    def __init__(self, fast: bool, clock: Callable[[], float] | None = None, **limits: Any) -> None:
        self.service = Service()
        self.calls = Calls(Raw())
        servable = self.calls.wrap(self.service, on_fast_path=("Echo", "Many"))
        self.listener = Listener([servable], Raw(), Http2Limits(fast_path=fast, **limits), clock=Clock())
        self.protocol = ServerProtocol(self.listener, clock or Clock())
        self.wire = Wire()
        self.protocol.connection_made(self.wire)

    async def feed(self, *pieces: bytes) -> None:
        """Reads that the server has dealt with one after the other."""
        for piece in pieces:
            self.protocol.data_received(piece)
            await self.settle()

    async def settle(self) -> None:
        for _ in range(20):  # turns of the loop; nothing here waits for time
            await asyncio.sleep(0)

    @property
    def state(self) -> dict[str, Any]:
        """What h2 and the gate know of the connection; the encoder knows answers in their order, which
        differs between streams."""
        session = self.protocol._session
        session.open_inbound_streams  # noqa: B018 - looking is what makes h2 forget
        window = session._inbound_flow_control_window_manager
        return {
            "highest": session.highest_inbound_stream_id,
            "gate": self.protocol._frame_filter.highest_stream,
            "frames": self.protocol._frame_filter.frames,
            "closed": dict(session._closed_streams),
            "open": set(session.streams),
            "in": window.current_window_size,
            "out": session.outbound_flow_control_window,
            "table": list(session.decoder.header_table.dynamic_entries),
            "tasks": (open_calls := len(self.protocol.handler.tasks)),
            # An answer that waits for the client's window counts as given on the fast path,
            # and bytes that were on their way to h2 as a connection ended are no one's.
            "given": self.wire.ended or open_calls or (window._bytes_processed, dict(self.calls.counts)),
            "deferred": dict(self.protocol.handler.deferred),
        }

    def answers(self) -> dict[int, list[Any]]:
        """What each stream got, its frames in order; on stream 0, what does not depend on time."""
        decoder, by_stream = Decoder(), dict[int, list[Any]]()
        for frame in self.wire.frames():
            said: Any = type(frame).__name__, sorted(frame.flags)
            if isinstance(frame, HeadersFrame):
                said += tuple(decoder.decode(frame.data))
            elif isinstance(frame, DataFrame):
                said += (frame.data,)
            elif isinstance(frame, RstStreamFrame):
                said += (frame.error_code,)
            elif isinstance(frame, GoAwayFrame):
                said += frame.error_code, frame.last_stream_id, frame.additional_data
            elif isinstance(frame, WindowUpdateFrame):
                continue  # as often as it takes; `state` compares the windows
            by_stream.setdefault(frame.stream_id, []).append(said)
        return by_stream


class Client:
    """The bytes of a client whose header blocks repeat."""

    def __init__(self) -> None:
        self.encoder = Encoder()
        self.stream = -1
        self.begun: list[int] = []

    def call(self, body: bytes, path: str = "Echo", flags: int = END, **more: str) -> bytes:
        return self.begin(path, **more) + self.end(body, flags=flags)

    def begin(self, path: str = "Echo", **more: str) -> bytes:
        """The headers of a call, whose request is still to come."""
        fields = {
            ":method": "POST", ":scheme": "http", ":path": f"/test.Test/{path}", ":authority": "test",
            "te": "trailers", "content-type": "application/grpc",
        }  # fmt: skip
        fields |= {name.replace("_", "-"): value for name, value in more.items()}
        self.stream += 2
        self.begun.append(self.stream)
        block = self.encoder.encode(list(fields.items()))
        return raw(HEADERS, block, stream=self.stream, flags=END_HEADERS)

    def end(self, body: bytes, which: int = -1, flags: int = END) -> bytes:
        """The request of a call that has begun."""
        return raw(DATA, body, stream=self.begun.pop(which), flags=flags)
