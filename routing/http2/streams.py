"""One call's HTTP/2 stream: request bytes in, answer bytes out, both bounded.

grpclib's own buffer takes a legal empty DATA frame for the end of the request, and
keeps an object for each frame; its stream waits for a client that does not read for
as long as that likes.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from grpclib import protocol
from grpclib.exceptions import StreamTerminatedError
from h2.errors import ErrorCodes
from h2.exceptions import StreamClosedError

from routing.http2.budget import MAX_FRAME_BYTES
from routing.http2.output import ConnectionOutput


class Buffer:
    """The bytes of a request that came and were not read yet.

    What arrives is acknowledged to the peer, so that it may send more, when the reader
    takes it or waits for more than there is. `hold` is called with each change of our size.
    """

    __slots__ = ("_acknowledge", "_data", "_ended", "_hold", "_unacked", "_waiter", "_wanted")

    def __init__(self, acknowledge: Callable[[int], None], hold: Callable[[int], None]) -> None:
        self._acknowledge = acknowledge
        self._hold = hold
        self._data = bytearray()
        self._unacked = 0
        self._ended = False
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Buffer {len(self._data)} bytes{' ended' * self._ended}>"

    def __len__(self) -> int:
        return len(self._data)

    def add(self, data: bytes, ack_size: int) -> None:
        """Takes the bytes of one DATA frame; `ack_size` counts its padding too."""
        self._data += data
        self._hold(len(data))
        self._unacked += ack_size
        if self._wanted:
            self._ack(self._unacked)
            if len(self._data) >= self._wanted:
                self._wake()

    def eof(self) -> None:
        """The request ends here."""
        self._ended = True
        self._wake()

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes, or none at the end of the request.

        Raises AssertionError where the request ends in between, as grpclib's does, so
        that what calls it need not know which of the two it has.
        """
        if len(self._data) < size and not self._ended:
            await self._wait(size)
        if len(self._data) < size:
            if not self._data:
                return b""
            raise AssertionError("Received less data than expected")
        taken = bytes(self._data[:size])
        del self._data[:size]
        self._hold(-size)
        self._ack(min(size, self._unacked) if self._data else self._unacked)
        return taken

    def unacked_size(self) -> int:
        """What is still to be acknowledged; the stream is released, and its bytes dropped."""
        unacked, self._unacked = self._unacked, 0
        self.drop()
        return unacked

    def drop(self) -> None:
        """Lets go of the bytes at once; what is to be acknowledged stays for the release."""
        self._hold(-len(self._data))
        self._data.clear()

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
    """grpclib's stream with our buffer, and with an end to the client's patience with itself.

    `ended` once the request is complete; `takes_many` where it may stay open for as long as the client likes;
    `cancel` ends the task that answers.
    """

    connection: ConnectionOutput
    id: int

    def init_stream(self, stream_id: int, connection: protocol.Connection) -> None:
        super().init_stream(stream_id, connection)
        self._held = Buffer(partial(self.connection.ack, stream_id), self._hold)
        # The declared type is grpclib's Buffer; ours answers to the same four methods.
        self.buffer = self._held  # type: ignore[assignment]
        self.ended = False
        self.takes_many = False
        self.opened_at = 0.0
        self.cancel: Callable[[], object] = lambda: None

    @property
    def held_bytes(self) -> int:
        """What came of the request and was not read yet."""
        return len(self._held)

    def _hold(self, size_bytes: int) -> None:
        self.connection.hold(size_bytes)
        self.connection.shared.hold(self, size_bytes)

    def give_up(self) -> None:
        """Ends a call whose request does not come to its end, while others need the room.

        Its bytes go now: the stream is released in a later turn of the loop, and until then
        as much again may come.
        """
        self._held.drop()
        if self.closable:
            self.reset_nowait(ErrorCodes.ENHANCE_YOUR_CALM)
        if self.wrapper is not None:
            self.wrapper.cancel(StreamTerminatedError("too much of unfinished requests"))
        self.cancel()

    def end_request(self) -> None:
        """Reads no more than what has arrived, as if the client had ended its side."""
        self.ended = True
        self.buffer.eof()

    def __ended__(self) -> None:
        self.end_request()

    async def send_headers(self, headers: list[tuple[str, str]], end_stream: bool = False) -> None:
        await self._writable(0)
        # h2 would take a stream that it has forgotten for a new one of ours.
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
                await self._patiently(self.window_updated, len(data) - at)
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
        """Waits while the socket takes no more. All who wait are woken at once, and the
        first may fill it again: hence the loop. On a connection that has ended, h2 refuses
        everything; to whoever answers there, the stream is closed."""
        while not self.connection.write_ready.is_set():
            await self._patiently(self.connection.write_ready, unsent_bytes)
        if self.connection.is_closing():
            raise StreamClosedError(self.id)

    async def _patiently(self, event: asyncio.Event, unsent_bytes: int) -> None:
        """Waits for the client to read on. Gives the call up when that takes too long, or
        when too much of the connection's answers waits already."""
        output = self.connection
        output.unsent_bytes += unsent_bytes
        try:
            if output.unsent_bytes > output.limits.max_unsent_bytes:
                raise TimeoutError
            async with asyncio.timeout(output.limits.stall_seconds) as patience:
                output.shared.wait(patience, unsent_bytes)
                try:
                    await event.wait()
                finally:
                    output.shared.go_on(patience)
        except TimeoutError:
            if self.closable:
                self.reset_nowait(ErrorCodes.ENHANCE_YOUR_CALM)
            raise StreamClosedError(self.id) from None
        finally:
            output.unsent_bytes -= unsent_bytes
