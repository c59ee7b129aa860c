"""One connection between h2 and its socket: what h2 decides differently for us, and how it ends."""

import asyncio
from contextlib import suppress

from grpclib import protocol
from grpclib.config import Configuration
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame, PingFrame

from routing.http2.budget import Budget, Http2Limits
from routing.http2.session import Session
from routing.http2.shared import SharedLimits

JOINED_BYTES = 65_536
"""What waits for the end of a turn of the loop, at most. asyncio asks for a pause once it
holds as much itself; given more at once, it would ask too late."""


class ConnectionOutput(protocol.Connection):
    """The connection as streams see it: flow control, output, back-pressure, the end.

    Replaces grpclib's class in all but its statistics.
    """

    def __init__(
        self,
        session: Session,
        transport: asyncio.Transport,
        limits: Http2Limits,
        budget: Budget,
        commons: SharedLimits,
    ) -> None:
        super().__init__(session, transport, config=Configuration())
        self.session = session
        self.transport = transport
        self.limits = limits
        self.budget = budget
        self.shared = commons
        self.held_bytes = 0
        self.unsent_bytes = 0
        self._over = False
        self._out: list[bytes] = []
        self._out_bytes = 0

    def hold(self, size_bytes: int) -> None:
        """Request bytes came to wait for the rest of their message, or went."""
        self.held_bytes += size_bytes

    def initialize(self) -> None:
        """Nothing: `Protocol.check` keeps alive."""

    def flush(self) -> None:
        """Takes over what h2 wants sent."""
        if not self._over:
            data = self.session.data_to_send()
            if data:
                self.put(data)

    def put(self, data: bytes) -> None:
        """Sends this together with everything else of this turn of the loop, in order.

        A unary answer is three frames, and a system call costs as much as making them.
        """
        if not self._out and self.limits.fast_path:
            asyncio.get_running_loop().call_soon(self.write_out)
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes >= JOINED_BYTES or not self.limits.fast_path:
            self.write_out()

    def write_out(self) -> None:
        """Writes what waits for the end of the turn."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            if not self.transport.is_closing():  # asyncio complains in the log about late ones
                self.transport.write(data)

    def ping(self) -> None:
        """Asks the peer for a sign of life."""
        self.flush()
        self.put(PingFrame(0, opaque_data=b"alive?  ").serialize())

    def go_away(self, code: ErrorCodes, reason: str, last_stream: int) -> None:
        """Says that no stream after `last_stream` is taken.

        Written past h2, whose own GOAWAY ends its state machine and with it the calls
        that have begun.
        """
        self.flush()
        frame = GoAwayFrame(0, last_stream_id=last_stream, error_code=code, additional_data=reason.encode())
        self.put(frame.serialize())

    def is_closing(self) -> bool:
        return self._over or super().is_closing()

    def close(self) -> None:
        """Sends what is written, tells the peer that this was all, and lets it finish.

        The peer answers by closing its side, upon which asyncio closes ours; one that
        does not is cut off after `linger_seconds`.
        """
        if self._over:
            return
        self.flush()
        self.write_out()
        self._over = True
        transport = self.transport
        if transport.is_closing():
            return
        if transport.can_write_eof():
            # asyncio's write_eof shuts the socket down at once, which fails where the
            # peer has reset it and the loop has not reported that yet.
            with suppress(OSError):
                transport.write_eof()
        else:
            transport.close()
        asyncio.get_running_loop().call_later(self.limits.linger_seconds, transport.abort)
