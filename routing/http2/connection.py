"""One connection between h2 and its socket: what h2 decides differently for us, and how it ends."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from grpclib import protocol
from grpclib.config import Configuration
from grpclib.utils import Wrapper
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes, Settings
from h2.stream import StreamClosedBy
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, PingFrame, WindowUpdateFrame

from routing.http2.commons import Commons
from routing.http2.gate import Violation
from routing.http2.headers import Malformed, check_request
from routing.http2.limits import MAX_FRAME_BYTES, Budget, Http2Limits
from routing.http2.remembered import CappedEncoder, RememberingDecoder, RememberingEncoder, StrictDecoder
from routing.http2.streams import CallStream

WINDOW_BYTES = 4 << 20
"""What a client may send unasked, on a stream and in all: one request of the largest
size. Less costs a large request a round trip; this is also what unread requests hold."""

REMEMBERED_STREAMS = 1_024
"""Streams that h2 remembers after their end, to tell late frames from wrong ones. Its own
65,536 cost 8 MB for each connection; four times the open ones cover what is on its way."""

JOINED_BYTES = 65_536
"""What waits for the end of a turn of the loop, at most. asyncio asks for a pause once it
holds as much itself; were it told of more at once, it would ask too late."""

LARGE_BYTES = 1_024
"""DATA from this size on costs more to send than to answer with a reset. What a client may
have under way on a refused request is 4 MiB, in frames of 16 KiB as a rule."""

_KNOWN_SETTINGS = frozenset(SettingCodes)

CONFIGURATION = H2Configuration(
    client_side=False,
    # Any byte may stand in a field value; one that is not ASCII must not raise here.
    header_encoding="latin-1",
    # `headers.check_request` refuses one stream where h2 would end the connection.
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
    # Ours are valid as they are written.
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class KnownSettings(Settings):
    """A client's settings, without those that mean nothing to us: h2 would keep each of the
    65,536 that there may be, 50 MB in all."""

    def __setitem__(self, key: SettingCodes | int, value: int) -> None:
        if key in _KNOWN_SETTINGS:
            super().__setitem__(key, value)


class Session(H2Connection):
    """h2's state of one connection, with our settings and limits.

    State besides h2's: `late_frames`, how many frames came for streams that had ended, and
    had h2 answer with a reset. Two of h2's private methods, which it calls for those frames
    alone, are overridden to count them.
    """

    MAX_CLOSED_STREAMS = REMEMBERED_STREAMS

    def __init__(self, limits: Http2Limits) -> None:
        super().__init__(CONFIGURATION)
        self.encoder = RememberingEncoder() if limits.fast else CappedEncoder()
        self.decoder = RememberingDecoder() if limits.fast else StrictDecoder()
        self.decoder.max_header_list_size = limits.max_header_list_bytes
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.max_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            },
        )
        self.remote_settings = KnownSettings(client=True)
        self.late_frames = 0
        self.initiate_connection()
        self.increment_flow_control_window(WINDOW_BYTES - self.inbound_flow_control_window)

    @property
    def open_inbound_streams(self) -> int:
        """Always 0: h2 would end the connection at the limit, we refuse the stream.

        Asking the base class is what makes it forget closed streams.
        """
        return 0 * super().open_inbound_streams

    def _stream_is_closed_by_reset(self, stream_id: int) -> bool:
        self.late_frames += 1
        return super()._stream_is_closed_by_reset(stream_id)

    def _handle_data_on_closed_stream(
        self, events: list[Event], exc: StreamClosedError, frame: DataFrame
    ) -> tuple[list[Frame], list[Event]]:
        # Large ones were on their way when we refused their request.
        self.late_frames += frame.flow_controlled_length < LARGE_BYTES
        return super()._handle_data_on_closed_stream(events, exc, frame)

    def may_open(self, stream_id: int) -> bool:
        """Whether a client may now open this stream."""
        # The state is that of a connection on which a call has come and nobody has left.
        return (
            self.state_machine.state is ConnectionState.SERVER_OPEN
            and stream_id % 2 == 1
            and self.highest_inbound_stream_id < stream_id <= self.HIGHEST_ALLOWED_STREAM_ID
        )

    @property
    def receivable_bytes(self) -> int:
        """What a client may send at once, in one frame, on a stream that it has just opened."""
        return min(self._inbound_flow_control_window_manager.current_window_size, MAX_FRAME_BYTES)

    @property
    def sendable_bytes(self) -> int:
        """What can go out at once, in one frame, on a stream that has just been opened."""
        window = min(self.outbound_flow_control_window, self.remote_settings.initial_window_size)
        return min(window, MAX_FRAME_BYTES)

    @property
    def growable_bytes(self) -> int:
        """By how much a client may open the window of a stream that it has just opened."""
        return self.MAX_WINDOW_INCREMENT - self.remote_settings.initial_window_size

    def note_call(self, stream_id: int, received_bytes: int, sent_bytes: int) -> bytes:
        """Notes a stream that was opened, ended by both sides and answered without us.

        Does what receiving and sending its frames would have done to the connection:
        touches `_closed_streams`, by which h2 tells late frames from wrong ones, and the
        connection's windows. Returns the frame that opens the client's again, if it is
        time for that.
        """
        self._closed_streams[stream_id] = StreamClosedBy.SEND_END_STREAM
        self.outbound_flow_control_window -= sent_bytes
        window = self._inbound_flow_control_window_manager
        window.window_consumed(received_bytes)
        increment = window.process_bytes(received_bytes)
        return WindowUpdateFrame(0, window_increment=increment).serialize() if increment else b""


class Link(protocol.Connection):
    """The connection as streams see it: flow control, output, back-pressure, the end.

    Touches `_connection` and `_transport` of grpclib's class, which it replaces in all
    but the statistics.
    """

    def __init__(
        self,
        session: Session,
        transport: asyncio.Transport,
        limits: Http2Limits,
        budget: Budget,
        commons: Commons,
    ) -> None:
        super().__init__(session, transport, config=Configuration().__for_server__())
        self.limits = limits
        self.budget = budget
        self.commons = commons
        self.held_bytes = 0
        self.unsent_bytes = 0
        self._over = False
        self._out: list[bytes] = []
        self._out_bytes = 0

    def hold(self, size_bytes: int) -> None:
        """Request bytes came to wait for the rest of their message, or went."""
        self.held_bytes += size_bytes

    def create_stream(self, *, stream_id: int | None = None, wrapper: Wrapper | None = None) -> CallStream:
        return CallStream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)

    def initialize(self) -> None:
        """Nothing: `Protocol.check` keeps alive."""

    def flush(self) -> None:
        """Takes over what h2 wants sent."""
        if not self._over:
            data = self._connection.data_to_send()
            if data:
                self.put(data)

    def put(self, data: bytes) -> None:
        """Sends this together with everything else of this turn of the loop, in order.

        A unary answer is three frames, and a system call costs as much as making them.
        """
        if not self._out and self.limits.fast:
            asyncio.get_running_loop().call_soon(self.write_out)
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes >= JOINED_BYTES or not self.limits.fast:
            self.write_out()

    def write_out(self) -> None:
        """Writes what waits for the end of the turn."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            if not self._transport.is_closing():  # asyncio complains in the log about late ones
                self._transport.write(data)

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
        transport = self._transport
        if transport.is_closing():
            return
        if transport.can_write_eof():
            # asyncio's write_eof shuts the socket down at once, which fails where the
            # peer has reset it and the loop has not told us yet.
            with suppress(OSError):
                transport.write_eof()
        else:
            transport.close()
        asyncio.get_running_loop().call_later(self.limits.linger_seconds, transport.abort)


class Processor(protocol.EventsProcessor):
    """What each event of h2 leads to; the base class has the rest of the table."""

    connection: Link

    def __init__(
        self,
        handler: protocol.AbstractHandler,
        connection: Link,
        session: Session,
        admits: Callable[[], bool],
    ) -> None:
        super().__init__(handler, connection)
        self._session = session
        self._admits = admits

    def process_request_received(self, event: RequestReceived) -> None:
        try:
            check_request(event.headers)  # type: ignore[arg-type]  # decoded, by our configuration
        except Malformed:
            self._refuse(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
        else:
            if self._admits():
                super().process_request_received(event)
            else:
                self._refuse(event.stream_id, ErrorCodes.REFUSED_STREAM)

    def process_data_received(self, event: DataReceived) -> None:
        super().process_data_received(event)
        stream = self.streams.get(event.stream_id)
        full = self.connection.held_bytes > self.connection.limits.max_held_bytes
        # Requests that fit in one frame get through whatever others hold.
        if full and isinstance(stream, CallStream) and stream.held_bytes > MAX_FRAME_BYTES:
            stream.give_up()
            self._pay()

    def _refuse(self, stream_id: int, code: ErrorCodes) -> None:
        """Resets a stream, and has its connection pay for that: resets that a client
        provokes cost as much as those that it sends."""
        try:
            self._session.reset_stream(stream_id, code)
        except StreamClosedError:
            pass  # its client has reset it already, later in the same bytes
        self._pay()

    def _pay(self) -> None:
        if not self.connection.budget.spend():
            raise Violation(ErrorCodes.ENHANCE_YOUR_CALM, "too many streams that had to be refused")
