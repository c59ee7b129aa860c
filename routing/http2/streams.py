"""One call's HTTP/2 stream: request bytes in, answer bytes out, both bounded.

grpclib's own buffer treats a legal empty DATA frame as the end of the request, and keeps an
object for each frame; its stream waits without limit for a client that does not read.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from grpclib import protocol
from grpclib.exceptions import StreamTerminatedError
from h2.errors import ErrorCodes
from h2.exceptions import StreamClosedError

from routing.http2.budget import MAX_FRAME_BYTES
from routing.http2.headers import Headers
from routing.http2.output import ConnectionOutput

CHUNK_BYTES = 16_384
"""Data is held in chunks of a frame. In one growing piece for each request, parts of many requests fragment
the heap: with 20 connections 20 to 47 MB stayed resident of 8 MiB held, and 9 to 29 with chunks."""


class Buffer:
    """The bytes of a request that have arrived and are not read yet.

    Bytes are acknowledged to the peer, which may then send more, when the reader takes them or
    waits for more than the buffer has. `hold` is called with each change of the size.
    """

    __slots__ = ("_acknowledge", "_chunks", "_ended", "_hold", "_size", "_unacked", "_waiter", "_wanted")

    def __init__(self, acknowledge: Callable[[int], None], hold: Callable[[int], None]) -> None:
        self._acknowledge = acknowledge
        self._hold = hold
        self._chunks: deque[bytearray] = deque()
        self._size = 0
        self._unacked = 0
        self._ended = False
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Buffer {self._size} bytes{' ended' * self._ended}>"

    def __len__(self) -> int:
        return self._size

    def add(self, data: bytes, ack_size: int) -> None:
        """Takes the bytes of one DATA frame; `ack_size` counts its padding too."""
        if self._chunks and len(self._chunks[-1]) + len(data) <= CHUNK_BYTES:
            self._chunks[-1] += data
        else:
            self._chunks.append(bytearray(data))
        self._size += len(data)
        self._hold(len(data))
        self._unacked += ack_size
        if self._wanted:
            self._ack(self._unacked)
            if self._size >= self._wanted:
                self._wake()

    def eof(self) -> None:
        """The request ends here."""
        self._ended = True
        self._wake()

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes, or none at the end of the request.

        Raises AssertionError if the request ends in between, as grpclib's buffer does, so both
        are used in the same way.
        """
        if self._size < size and not self._ended:
            await self._wait(size)
        if self._size < size:
            if not self._size:
                return b""
            raise AssertionError("Received less data than expected")
        taken = self._take(size)
        self._hold(-size)
        self._ack(min(size, self._unacked) if self._size else self._unacked)
        return taken

    def unacked_size(self) -> int:
        """The bytes still to be acknowledged. grpclib calls it at the stream's release; drops the data."""
        unacked, self._unacked = self._unacked, 0
        self.drop()
        return unacked

    def drop(self) -> None:
        """Drops the data at once; its acknowledgement waits for the stream's release."""
        self._hold(-self._size)
        self._chunks.clear()
        self._size = 0

    def _take(self, size: int) -> bytes:
        self._size -= size
        taken = []
        while size:
            chunk = self._chunks[0]
            taken.append(bytes(chunk[:size]))
            size -= len(taken[-1])
            if len(taken[-1]) == len(chunk):
                self._chunks.popleft()
            else:
                del chunk[: len(taken[-1])]
        return taken[0] if len(taken) == 1 else b"".join(taken)

    async def _wait(self, size: int) -> None:
        self._ack(self._unacked)
        self._wanted = size
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._wanted = 0
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ack(self, size: int) -> None:
        if size:
            self._unacked -= size
            self._acknowledge(size)


class CallStream(protocol.Stream):
    """grpclib's stream with a bounded buffer, and with a timeout for clients that do not read.

    `ended` once the request is complete; `client_streaming` if the request may stay open without
    limit; `request_headers` until the task that answers takes them; `cancel` ends that task.
    """

    connection: ConnectionOutput
    id: int

    def init_stream(self, stream_id: int, connection: protocol.Connection) -> None:
        super().init_stream(stream_id, connection)
        self._held = Buffer(partial(self.connection.ack, stream_id), self._hold)
        # The declared type is grpclib's Buffer; ours has the same four methods.
        self.buffer = self._held  # type: ignore[assignment]
        self.ended = False
        self.client_streaming = False
        self.opened_at = 0.0
        self.request_headers: Headers = ()
        self._header_bytes = 0
        self.cancel: Callable[[], object] = lambda: None

    @property
    def held_bytes(self) -> int:
        """The request bytes that have arrived and are not read yet."""
        return len(self._held)

    def _hold(self, size_bytes: int) -> None:
        self.connection.hold(size_bytes)
        self.connection.shared.hold(self, size_bytes)

    def hold_headers(self, size_bytes: int) -> None:
        """Counts the header fields as bytes of an unfinished request, until it is complete: a client may
        open many requests and end none."""
        self._header_bytes = size_bytes
        self._hold(size_bytes)

    def forget_headers(self) -> None:
        """The request is complete or has been given up."""
        size_bytes, self._header_bytes = self._header_bytes, 0
        if size_bytes:
            self._hold(-size_bytes)

    def give_up(self) -> None:
        """Evicts a call with an unfinished request, because others need the memory.

        Its bytes are dropped now: the stream is released only in a later turn of the loop, and
        until then as many bytes again may arrive.
        """
        self._held.drop()
        self.request_headers = ()  # the task that would read them may begin only in a later turn
        self.forget_headers()
        if self.closable:
            self.reset_nowait(ErrorCodes.ENHANCE_YOUR_CALM)
        if self.wrapper is not None:
            self.wrapper.cancel(StreamTerminatedError("too much of unfinished requests"))
        self.cancel()

    def end_request(self) -> None:
        """Ends the request with the bytes that have arrived, as if the client had ended it."""
        self.ended = True
        self.forget_headers()
        self.buffer.eof()

    def __ended__(self) -> None:
        self.end_request()

    async def send_headers(self, headers: list[tuple[str, str]], end_stream: bool = False) -> None:
        await self._writable(0)
        # h2 would treat a stream that it has forgotten as a new one opened by the server.
        if self.id not in self.connection.session.streams:
            raise StreamClosedError(self.id)
        self.connection.session.send_headers(self.id, headers, end_stream=end_stream)
        self._sent()

    async def send_data(self, data: bytes, end_stream: bool = False) -> None:
        at, session = 0, self.connection.session
        while True:
            await self._writable(len(data) - at)
            window = session.local_flow_control_window(self.id)
            if window <= 0 < len(data) - at:
                self.window_updated.clear()
                await self._wait_for_client(self.window_updated, len(data) - at)
                continue
            size = min(window, session.max_outbound_frame_size, MAX_FRAME_BYTES, len(data) - at)
            last = at + size == len(data)
            session.send_data(self.id, data[at : at + size], end_stream=end_stream and last)
            self._sent()
            at += size
            if last:
                return

    def reset_nowait(self, error_code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        self.connection.session.reset_stream(self.id, error_code=error_code)
        self.connection.flush()

    def _sent(self) -> None:
        self.connection.flush()
        self.connection.budget.earn()

    async def _writable(self, unsent_bytes: int) -> None:
        """Waits while the socket's buffer is full. All waiting streams wake at once, and the first
        may fill the buffer again, hence the loop. Raises StreamClosedError if the connection has
        ended, where h2 refuses everything."""
        while not self.connection.write_ready.is_set():
            await self._wait_for_client(self.connection.write_ready, unsent_bytes)
        if self.connection.is_closing():
            raise StreamClosedError(self.id)

    async def _wait_for_client(self, event: asyncio.Event, unsent_bytes: int) -> None:
        """Waits until the client reads. Resets the stream if that takes too long, or if too many
        bytes of the connection's answers wait already."""
        output = self.connection
        output.unsent_bytes += unsent_bytes
        try:
            if output.unsent_bytes > output.limits.max_unsent_bytes:
                raise TimeoutError
            async with asyncio.timeout(output.limits.stall_seconds) as timeout:
                output.shared.note_unsent(timeout, unsent_bytes)
                try:
                    await event.wait()
                finally:
                    output.shared.forget_unsent(timeout)
        except TimeoutError:
            if self.closable:
                self.reset_nowait(ErrorCodes.ENHANCE_YOUR_CALM)
            raise StreamClosedError(self.id) from None
        finally:
            output.unsent_bytes -= unsent_bytes
