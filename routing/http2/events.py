"""What each event of h2 leads to."""

from collections.abc import Callable
from contextlib import suppress
from typing import cast

from grpclib import protocol
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived
from h2.exceptions import StreamClosedError

from routing.http2.budget import MAX_FRAME_BYTES
from routing.http2.frame_filter import Violation
from routing.http2.headers import Malformed, Refusal, check_request, oversize
from routing.http2.output import ConnectionOutput
from routing.http2.session import Session
from routing.http2.streams import CallStream
from routing.rpc.response_headers import error_response


class Processor(protocol.EventsProcessor):
    """What each event of h2 leads to; the base class has the rest of the table."""

    connection: ConnectionOutput

    def __init__(
        self,
        handler: protocol.AbstractHandler,
        connection: ConnectionOutput,
        session: Session,
        admits: Callable[[], bool],
    ) -> None:
        super().__init__(handler, connection)
        self._session = session
        self._admits = admits

    def process_request_received(self, event: RequestReceived) -> None:
        fields = _fields(event)
        try:
            check_request(fields)
        except Malformed:
            self._refuse(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        refused = oversize(fields, self.connection.limits.max_header_list_bytes)
        if refused is not None:
            self._answer_refused(event, refused)
        elif self._admits():
            self._begin_call(event)
        else:
            self._refuse(event.stream_id, ErrorCodes.REFUSED_STREAM)

    def _begin_call(self, event: RequestReceived) -> None:
        """As the base class does it, with a stream of ours."""
        output = self.connection
        stream = CallStream(output, output.session, output.transport, stream_id=event.stream_id)
        self.handler.accept(stream, _fields(event), self.register(stream))

    def process_data_received(self, event: DataReceived) -> None:
        super().process_data_received(event)
        stream = self.streams.get(event.stream_id)
        full = self.connection.held_bytes > self.connection.limits.max_held_bytes
        # Requests that fit in one frame get through whatever others hold.
        if full and isinstance(stream, CallStream) and stream.held_bytes > MAX_FRAME_BYTES:
            stream.give_up()
            self._pay()

    def _answer_refused(self, event: RequestReceived, refused: Refusal) -> None:
        """Answers at once and without a task, which would hold the fields until the client reads. The
        connection pays for it: its block was decoded only to be refused."""
        headers = error_response(refused.status, refused.message, http_status=refused.http_status)
        # Its client may have reset the stream, or ended it, later in the same bytes.
        with suppress(StreamClosedError):
            self._session.send_headers(event.stream_id, headers, end_stream=True)
            self._session.reset_stream(event.stream_id, ErrorCodes.NO_ERROR)
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


def _fields(event: RequestReceived) -> list[tuple[str, str]]:
    """The header fields as str: `CONFIGURATION` has h2 decode them."""
    return cast(list[tuple[str, str]], event.headers)
