"""One connection's output: batched writes, PING, GOAWAY, and an orderly close."""

import asyncio
from contextlib import suppress

from grpclib import protocol
from grpclib.config import Configuration
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame, PingFrame

from routing.http2.budget import Budget, Http2Limits
from routing.http2.session import Session
from routing.http2.shared import SharedLimits

MAX_BATCH_BYTES = 65_536
"""The most bytes that wait for the end of a turn of the loop. asyncio's transport pauses writing
when its own buffer holds this much; larger batches would overshoot that."""


class ConnectionOutput(protocol.Connection):
    """The connection as its streams see it: flow control, output, back-pressure, close.

    Replaces everything of grpclib's class but its statistics.
    """

    def __init__(
        self,
        session: Session,
        transport: asyncio.Transport,
        limits: Http2Limits,
        budget: Budget,
        shared: SharedLimits,
    ) -> None:
        super().__init__(session, transport, config=Configuration())
        self.session = session
        self.transport = transport
        self.limits = limits
        self.budget = budget
        self.shared = shared
        self.held_bytes = 0
        self.unsent_bytes = 0
        self._ended = False
        self._batch: list[bytes] = []
        self._batch_bytes = 0

    def hold(self, size_bytes: int) -> None:
        """Adds to the bytes of unfinished requests; negative once they are read or dropped."""
        self.held_bytes += size_bytes

    def initialize(self) -> None:
        """Does nothing: grpclib would start its keepalive here; `ServerProtocol.check` does that."""

    def flush(self) -> None:
        """Moves h2's outgoing bytes to the batch."""
        if not self._ended:
            data = self.session.data_to_send()
            if data:
                self.put(data)

    def put(self, data: bytes) -> None:
        """Sends these bytes, in order, in one write with all others of this turn of the loop.

        A unary answer is three frames, and one system call costs as much as building them.
        """
        if not self._batch and self.limits.fast_path:
            asyncio.get_running_loop().call_soon(self.write_out)
        self._batch.append(data)
        self._batch_bytes += len(data)
        if self._batch_bytes >= MAX_BATCH_BYTES or not self.limits.fast_path:
            self.write_out()

    def write_out(self) -> None:
        """Writes the batch."""
        if self._batch:
            data = b"".join(self._batch)
            self._batch.clear()
            self._batch_bytes = 0
            if not self.transport.is_closing():  # asyncio logs a warning for writes after that
                self.transport.write(data)

    def ping(self) -> None:
        """Sends a PING, which a live peer acknowledges."""
        self.flush()
        self.put(PingFrame(0, opaque_data=b"alive?  ").serialize())

    def go_away(self, code: ErrorCodes, reason: str, last_stream: int) -> None:
        """Sends a GOAWAY: streams after `last_stream` are not processed.

        It bypasses h2, whose own GOAWAY closes its state machine and so ends the open calls.
        """
        self.flush()
        frame = GoAwayFrame(0, last_stream_id=last_stream, error_code=code, additional_data=reason.encode())
        self.put(frame.serialize())

    def is_closing(self) -> bool:
        return self._ended or super().is_closing()

    def close(self) -> None:
        """Sends what is written, then shuts down our side of the socket.

        The peer closes its side, and asyncio then closes ours; a peer that does not is
        disconnected after `linger_seconds`.
        """
        if self._ended:
            return
        self.flush()
        self.write_out()
        self._ended = True
        transport = self.transport
        if transport.is_closing():
            return
        if transport.can_write_eof():
            # asyncio's write_eof shuts the socket down at once, which fails if the peer has
            # reset it and the loop has not reported that yet.
            with suppress(OSError):
                transport.write_eof()
        else:
            transport.close()
        asyncio.get_running_loop().call_later(self.limits.linger_seconds, transport.abort)
