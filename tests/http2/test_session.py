"""`Session` records calls of the fast path in h2's private state exactly as h2 itself would."""

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.stream import StreamClosedBy

from routing.http2 import Http2Limits
from routing.http2.session import Session

HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
BODY = b"x" * 100


def sessions() -> tuple[H2Connection, Session]:
    """An h2 client and a server's session, after both have sent their preface."""
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    server = Session(Http2Limits())
    exchange(client, server)
    return client, server


def exchange(client: H2Connection, server: Session) -> None:
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())


def stream_state(server: Session) -> Any:
    """What h2 remembers of ended streams, and the connection's windows."""
    server.open_inbound_streams  # noqa: B018 - reading this property makes h2 drop ended streams
    window = server._inbound_flow_control_window_manager
    return (
        dict(server._closed_streams),
        (window.current_window_size, window._bytes_processed),
        server.outbound_flow_control_window,
        server.highest_inbound_stream_id,
    )


def test_a_call_noted_in_the_session_leaves_the_same_state_as_a_call_through_h2() -> None:
    client, server = sessions()
    client.send_headers(1, HEADERS)
    client.send_data(1, BODY, end_stream=True)
    exchange(client, server)
    server.acknowledge_received_data(len(BODY), 1)
    server.send_headers(1, [(":status", "200")])
    server.send_data(1, b"answer")
    server.send_headers(1, [("grpc-status", "0")], end_stream=True)

    _, noted = sessions()
    noted.highest_inbound_stream_id = 1
    assert noted.note_call(1, len(BODY), len(b"answer")) == b""
    assert stream_state(noted) == stream_state(server)
    assert noted._closed_streams == {1: StreamClosedBy.SEND_END_STREAM}


def test_the_session_opens_the_connection_window_again_for_bytes_of_noted_calls() -> None:
    _, server = sessions()
    before = server.inbound_flow_control_window
    assert server._inbound_flow_control_window_manager.current_window_size == before
    sent = b"".join(server.note_call(stream, 16_000, 0) for stream in range(1, 600, 2))
    assert len(sent) % 13 == 0
    opened = sum(int.from_bytes(sent[at + 9 : at + 13]) for at in range(0, len(sent), 13))
    assert opened > 0
    assert server.inbound_flow_control_window == before - 300 * 16_000 + opened
