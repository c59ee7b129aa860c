"""Limits on what HTTP/2 clients may cost the server; each is a setting."""

from dataclasses import dataclass

from routing.config.validators import number, setting, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Limits:
    """[http2]: each limit, with what goes wrong if it is smaller or larger."""

    max_connections: int = setting(4_096, whole(1, 1_000_000), "most open connections")
    """Fewer would refuse a fleet of watchers; each costs about 40 KB idle, so more could
    take the memory that calls need."""

    max_streams: int = setting(
        256, whole(1, 100_000), "most concurrent calls on one connection, as advertised"
    )
    """SETTINGS_MAX_CONCURRENT_STREAMS. Fewer make a busy client queue; each open stream holds a
    task, and all of them may send requests at the same moment."""

    max_watches_in_all: int = setting(
        4_096,
        whole(1, 1_000_000),
        "most open streams of metrics, health and reflection on all connections",
    )
    """Server streams on all connections. With one update a second, this many keep half a core
    busy; fewer would refuse a fleet of dashboards."""

    max_watches: int = setting(
        128, whole(1, 100_000), "most of those on one connection, so that streams remain for other calls"
    )
    """Server streams on one connection. They stay open, so the rest of `max_streams` is reserved
    for calls that end."""

    max_header_list_bytes: int = setting(
        16_384, whole(1_024, 1 << 20), "most bytes of header fields in one call, as HPACK counts them"
    )
    """SETTINGS_MAX_HEADER_LIST_SIZE. gRPC's own default is 8 KiB; a few tokens and trace headers
    fit. Anything larger is decoded only to be refused."""

    max_continuations: int = setting(8, whole(0, 1_000), "most CONTINUATION frames in one header block")
    """A header list of the allowed size fits in one frame, and proxies split it into somewhat
    smaller ones; endless ones are an attack (CVE-2024-27316 and its family)."""

    max_settings: int = setting(32, whole(1, 2_730), "most settings in one SETTINGS frame")
    """HTTP/2 defines a dozen; a frame has room for 2,730, each of which costs 2 µs
    (CVE-2020-11080)."""

    burst: int = setting(
        1_000, whole(1, 1_000_000), "token bucket for control frames and refused calls: its size"
    )
    """Size of a connection's token bucket for control frames (PING, SETTINGS, PRIORITY, RST_STREAM,
    WINDOW_UPDATE, tiny DATA, unknown types) and refused calls. One costs up to 0.15 ms, so a
    burst blocks the event loop for less than 0.2 s; a client that cancels all its calls at once
    needs 256, one that also opens all windows as many more."""

    turn: int = setting(64, whole(1, 1_000_000), "most tokens that one turn of the event loop may spend")
    """Tokens that one turn of the event loop may spend: about 15 ms of the loop's time. The rest of
    a read waits for `pause_seconds`, so abuse on many connections does not add up to a delay
    that others notice; only connections that spend tokens ever wait."""

    pause_seconds: float = setting(0.02, number(0, 60), "how long the rest of such a read waits")
    """A client that cancels 256 calls at once waits 80 ms in all."""

    turn_seconds: float = setting(
        0.01, number(0.0001, 60), "how long one connection may keep the event loop busy in one turn"
    )
    """The rest of a read then waits in a queue with those of other busy connections, one of which
    continues in each turn. Less makes a client with many concurrent calls queue more often;
    more adds to the latency of all other connections."""

    refill_per_s: float = setting(
        100.0, number(0.001, 1_000_000), "token bucket for control frames and refused calls: tokens a second"
    )
    """Refill rate of the bucket; each frame of a response returns one more token. Keepalive takes
    less than 1 a second; at 100, continuous abuse takes 1.5 % of a core."""

    small_data_bytes: int = setting(256, whole(0, 16_384), "DATA frames below this size cost a token")
    """DATA frames below this size that do not end a request cost a token: a frame takes the same
    50 µs with one byte as with 16 KiB, so tiny ones block the loop for longer than they take to
    send. Real requests are larger, or end with the frame."""

    max_held_bytes: int = setting(
        8 << 20, whole(0, 1 << 40), "most bytes of unfinished requests on one connection"
    )
    """Two of the largest requests at once. A client that sends parts of more large messages is not
    waiting for responses. A message that fits in one frame is not refused, so 16 MiB is the most
    that one connection can hold."""

    max_held_in_all_bytes: int = setting(8 << 20, whole(0, 1 << 40), "the same on all connections")
    """Past it, the request with the oldest unfinished part is refused: a client that keeps sending
    completes its request long before it is the oldest."""

    max_unsent_bytes: int = setting(
        16 << 20, whole(0, 1 << 40), "most bytes of responses on one connection that its client has not read"
    )
    """Response bytes that wait for the client's flow-control window or its socket."""

    max_unsent_in_all_bytes: int = setting(16 << 20, whole(0, 1 << 40), "the same on all connections")
    """Past it, the response whose client has read nothing for the longest time is dropped."""

    greeting_seconds: float = setting(
        20.0, number(0.1, 3_600), "timeout of the TLS handshake, and from there to the client's SETTINGS"
    )
    """Slow links need one or two round trips; a silent client holds a connection for this long."""

    frame_seconds: float = setting(
        20.0, number(0.1, 3_600), "timeout of a frame or a header block, once begun"
    )
    """No other frame can be read on the connection until it ends."""

    request_seconds: float = setting(
        60.0, number(0.1, 86_400), "timeout of one request, from its headers to its end"
    )
    """4 MiB at 0.6 Mbit/s."""

    stall_seconds: float = setting(60.0, number(0.1, 86_400), "how long a client may leave a response unread")
    """Shorter drops responses to clients on slow links; longer keeps the bytes of dead clients."""

    idle_seconds: float = setting(900.0, number(1, 1e9), "how long a connection may stay open without a call")
    """A client reconnects for its next call without an error; longer, and clients that were
    switched off fill `max_connections`."""

    keepalive_seconds: float = setting(
        120.0,
        number(1, 1e9),
        "how long a connection with open calls may be silent before the server sends a PING",
    )
    """Shorter keeps mobile radios awake; longer keeps the streams of dead clients."""

    keepalive_timeout_seconds: float = setting(
        20.0, number(0.1, 3_600), "how long the client may take to answer that PING"
    )
    """A round trip on the slowest link, with room to spare."""

    linger_seconds: float = setting(1.0, number(0, 60), "how long a connection stays readable after GOAWAY")
    """Closing at once would make the kernel answer bytes that are still in flight with a reset,
    which can overtake our GOAWAY."""

    fast_path: bool = True
    """Whether header blocks are cached, writes are coalesced and short calls answered without h2.
    Without it every call goes through h2: slower, with the same responses."""
