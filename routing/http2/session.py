"""h2's state of one connection, with our settings and limits."""

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import Event
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes, Settings
from h2.stream import StreamClosedBy
from hyperframe.frame import DataFrame, Frame, WindowUpdateFrame

from routing.http2.budget import HEADER_LIST_HARD_FACTOR, MAX_FRAME_BYTES, Http2Limits
from routing.http2.hpack_cache import CachingDecoder, CachingEncoder, CappedEncoder, StrictDecoder

WINDOW_BYTES = 4 << 20
"""What a client may send unasked, on a stream and in all: one request of the largest
size. Less costs a large request a round trip; this is also what unread requests hold."""


REMEMBERED_STREAMS = 1_024
"""Streams that h2 remembers after their end, to tell late frames from wrong ones. Its own
65,536 cost 8 MB for each connection; four times the open ones cover what is on its way."""


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
        self.encoder = CachingEncoder() if limits.fast_path else CappedEncoder()
        self.decoder = CachingDecoder() if limits.fast_path else StrictDecoder()
        self.decoder.max_header_list_size = HEADER_LIST_HARD_FACTOR * limits.max_header_list_bytes
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
        """Always 0: h2 would end the connection at the limit, and this server refuses the stream."""
        _ = super().open_inbound_streams  # reading it makes h2 drop the state of closed streams
        return 0

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
        # The state after the first call, and before either side closes.
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
