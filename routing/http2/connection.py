"""One connection: reads its bytes, enforces its time limits, ends it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from grpclib import const, protocol
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack import HPACKError

from routing.http2.budget import Budget, Http2Limits
from routing.http2.events import Processor
from routing.http2.fast_path import FastPath
from routing.http2.frame_filter import FrameFilter, Violation
from routing.http2.handlers import CallHandler
from routing.http2.output import ConnectionOutput
from routing.http2.session import CONFIGURATION, Session
from routing.http2.shared import SharedLimits
from routing.http2.streams import CallStream
from routing.rpc.caller import Peer
from routing.rpc.reply import FastPathHandler

log = logging.getLogger(__name__)

SLICE_BYTES = 4_096
"""How many bytes are parsed before the calls in them start. asyncio reads 256 KiB at once, which
may open thousands of streams; for each new one h2 iterates over all open ones. Slices smaller
than a frame cost large requests more parser runs (15 ms for 4 MiB)."""

HIGHEST_STREAM = 2**31 - 1


class ConnectionOwner(Protocol):
    """What a connection needs of the listener that accepted it."""

    limits: Http2Limits
    shared: SharedLimits
    codec: CodecBase
    mapping: Mapping[str, const.Handler]
    fast_path_handlers: Mapping[str, FastPathHandler]

    def joined(self, connection: "ServerProtocol") -> bool:
        """Notes an open connection; False where there is no room for it."""
        ...

    def left(self, connection: "ServerProtocol") -> None:
        """Notes a lost connection."""
        ...


class ServerProtocol(protocol.H2Protocol):
    """grpclib's protocol with a frame filter before h2, limits, and a GOAWAY that gives a reason.

    State: `_heard` and the times are what `check` compares with; `_ended` once the server has
    ended the connection or lost it, after which received bytes are ignored.
    """

    connection: ConnectionOutput
    processor: Processor
    handler: CallHandler

    def __init__(self, owner: ConnectionOwner, clock: Callable[[], float]) -> None:
        self._owner = owner
        self._limits = owner.limits
        self._clock = clock
        handler = CallHandler(owner.mapping, owner.codec, owner.limits, clock, self._answered)
        super().__init__(handler, Configuration(), CONFIGURATION)
        self._ended = False
        self._heard = False
        self._frames_seen = 0
        self._pinged_at: float | None = None
        self._paused_at: float | None = None
        self._began_at = self._heard_at = self._moved_at = self._busy_at = clock()

    def __repr__(self) -> str:
        return f"<ServerProtocol calls={len(self.handler.tasks)}{' ended' * self._ended}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Replaces grpclib's whole method, which has its classes hard-coded.
        budget = Budget(self._limits, self._clock)
        self._frame_filter = FrameFilter(self._limits, budget)
        self._session = Session(self._limits)
        socket = cast(asyncio.Transport, transport)
        self._peer = Peer(protocol.Peer(socket))
        self.connection = ConnectionOutput(self._session, socket, self._limits, budget, self._owner.shared)
        self.processor = Processor(self.handler, self.connection, self._session, self._admits)
        self._fast_path = FastPath(
            self._session,
            self.connection,
            self._frame_filter,
            self._owner.fast_path_handlers,
            self._peer,
            self._receive,
            self._answered,
            self._clock,
        )
        self.handler.deferred = self._fast_path.deferred
        self.connection.flush()
        if not self._owner.joined(self):
            self.end(ErrorCodes.ENHANCE_YOUR_CALM, "too many connections")

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._process(data, 0)

    def _process(self, data: bytes, at: int) -> None:
        """Processes a read from there on."""
        fast_path, budget = self._fast_path, self.connection.budget
        enough, until = budget.spent + self._limits.turn, self._clock() + self._limits.turn_seconds
        fast_path.begin(self._limits.max_streams - len(self.handler.tasks), until)
        while not self._ended and (at := fast_path.take(data, at)) < len(data):
            end = fast_path.run(data, at, SLICE_BYTES)
            self._receive(data[at:end])
            at = end
            paid = budget.spent >= enough
            if at < len(data) and (paid or self._clock() > until):
                self._pause_reading(data, at, self._limits.pause_seconds if paid else 0.0)
                break
        if fast_path.answered:
            self.connection.write_out()
        if fast_path.answered or self._frame_filter.leaving:
            self._answered()

    def _pause_reading(self, data: bytes, at: int, pause_seconds: float) -> None:
        """Processes the rest of a read after a pause, so that other connections get their turn first.
        The read is kept as it is: copies of what is left, each a little shorter, fragment the heap."""

        def resume() -> None:
            self.connection.transport.resume_reading()
            self._process(data, at)

        self.connection.transport.pause_reading()
        schedule = self._owner.shared.schedule
        asyncio.get_running_loop().call_later(pause_seconds, schedule, resume)

    def _receive(self, data: bytes) -> None:
        try:
            seen, late_frames = self._frame_filter.feed(data), self._session.late_frames
            for event in self.connection.feed(seen) if seen else ():
                self.processor.process(event)
            self._frame_filter.pay(
                self._session.late_frames - late_frames, "too many frames on streams that have ended"
            )
        except Violation as violation:
            self.end(violation.code, violation.reason)
        except ProtocolError as error:
            # h2 has queued its own GOAWAY, without a reason and with fewer codes.
            self._session.clear_outbound_data_buffer()
            self.end(_code_of(error), str(error))
        else:
            self.connection.flush()

    def go_away(self) -> None:
        """Asks the client to use another connection; open calls, and those already sent, are answered."""
        if not self._ended:
            self.connection.go_away(ErrorCodes.NO_ERROR, "draining", HIGHEST_STREAM)

    def end(self, code: ErrorCodes, reason: str) -> None:
        """Ends the connection and all its calls; the GOAWAY carries the code and the reason."""
        if self._ended:
            return
        self._ended = True
        self.connection.go_away(code, reason, self._frame_filter.highest_stream)
        if code is not ErrorCodes.NO_ERROR:
            log.info("connection ended by us peer=%s reason=%s", self._peer, reason)
        self.processor.close(reason)

    def abort(self) -> None:
        """Closes the connection at once, without a GOAWAY."""
        self.connection.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._paused_at = self._clock()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._paused_at = None

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._ended = True
        self.processor.close("connection lost")
        self._owner.left(self)

    def check(self, now: float) -> None:
        """Enforces the time limits; the listener calls it about once a second."""
        limits = self._limits
        if self._ended:
            return
        if self._paused_at is not None and now - self._paused_at > limits.stall_seconds:
            self.abort()  # the client does not read
        elif not self._frame_filter.greeted and now - self._began_at > limits.greeting_seconds:
            self.end(ErrorCodes.SETTINGS_TIMEOUT, "no SETTINGS came")
        elif self._stuck(now):
            self.end(ErrorCodes.ENHANCE_YOUR_CALM, "a frame or header block does not end")
        elif not self._calls and now - self._busy_at > limits.idle_seconds:
            self.end(ErrorCodes.NO_ERROR, "idle")
        elif self.handler.tasks:
            self._cut_requests(now)
            self._keep_alive(now)

    def _stuck(self, now: float) -> bool:
        """Whether a frame or header block has been unfinished for too long, with no other frame since."""
        if not self._frame_filter.mid_frame or self._frame_filter.frames != self._frames_seen:
            self._frames_seen = self._frame_filter.frames
            self._moved_at = now
        return now - self._moved_at > self._limits.frame_seconds

    def _cut_requests(self, now: float) -> None:
        """Ends the reading of requests that take too long; they are answered as truncated."""
        for stream in self.processor.streams.values():
            assert isinstance(stream, CallStream)
            if (
                not stream.ended
                and not stream.client_streaming
                and now - stream.opened_at > self._limits.request_seconds
            ):
                stream.end_request()

    def _keep_alive(self, now: float) -> None:
        if self._heard:
            self._heard = False
            self._heard_at = now
            self._pinged_at = None
        elif self._pinged_at is not None:
            if now - self._pinged_at > self._limits.keepalive_timeout_seconds:
                self.abort()
        elif now - self._heard_at > self._limits.keepalive_seconds:
            self._pinged_at = now
            self.connection.ping()

    def _admits(self) -> bool:
        return self._calls + self._fast_path.answered < self._limits.max_streams

    @property
    def _calls(self) -> int:
        """The number of open calls on both paths."""
        return len(self.handler.tasks) + self._fast_path.waiting

    def _answered(self) -> None:
        """Notes the end of a call. After a client's GOAWAY, the last one ends the connection."""
        self._busy_at = self._clock()
        if not self._ended and self._frame_filter.leaving and not self._calls:
            self.end(ErrorCodes.NO_ERROR, "goodbye")


def _code_of(error: ProtocolError) -> ErrorCodes:
    """The error code for h2's exception; the RFC has a separate one for undecodable header blocks."""
    undecodable = type(error) is ProtocolError and isinstance(error.__cause__, HPACKError)
    return ErrorCodes.COMPRESSION_ERROR if undecodable else error.error_code
