"""What a client of HTTP/2 may cost: the limits, each a setting."""

from dataclasses import dataclass

from routing.config.validators import number, setting, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Limits:
    """[http2]: what is allowed, each with what goes wrong if it is smaller, or larger."""

    max_connections: int = setting(4_096, whole(1, 1_000_000), "connections at a time")
    """Fewer would refuse a fleet of watchers; each costs about 40 KB idle, so more could
    take the memory that calls need."""

    max_streams: int = setting(256, whole(1, 100_000), "calls at once on one connection, as advertised")
    """Calls at once on one connection, as advertised. Fewer make a busy client queue;
    each holds a task, and all of them may ask at the same moment."""

    max_watches_in_all: int = setting(
        4_096,
        whole(1, 1_000_000),
        "streams of metrics, health and reflection that are open on all connections",
    )
    """Server streams of all connections. With one update a second, so many keep half a core
    busy; fewer would refuse a fleet of dashboards."""

    max_watches: int = setting(
        128, whole(1, 100_000), "the same of one connection; the rest of its calls stay free for others"
    )
    """How many of those may be server streams, which stay: the rest of the connection's
    streams is left to calls that end."""

    max_header_list_bytes: int = setting(
        16_384, whole(1_024, 1 << 20), "header fields of one call, as HPACK counts them"
    )
    """Header fields as HPACK counts them. gRPC's own default is 8 KiB, a few tokens and
    trace headers fit; more is only ever decoded to be refused."""

    max_continuations: int = setting(8, whole(0, 1_000), "CONTINUATION frames of one header block")
    """CONTINUATION frames to one header block. Our list limit fits in one frame, proxies
    split somewhat smaller; endless ones are an attack (CVE-2024-27316 and its family)."""

    max_settings: int = setting(32, whole(1, 2_730), "settings in one SETTINGS frame")
    """Settings in one frame. HTTP/2 knows a dozen; a frame has room for 2,730, each of which
    costs 2 µs (CVE-2020-11080)."""

    burst: int = setting(1_000, whole(1, 1_000_000), "frames that are no call, and calls refused, in one go")
    """Frames that are no call (PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE, tiny
    DATA, unknown) and calls refused, in one go. One costs up to 0.15 ms, so that the
    burst is less than 0.2 s of everybody's time; a client that gives up on all its calls
    at once needs 256, one that also opens all windows as many more."""

    turn: int = setting(64, whole(1, 1_000_000), "how much of the burst in one turn of the event loop")
    """How much of the burst in one turn of the event loop: about 15 ms of everybody's time.
    What is left of a read waits for `pause_seconds`, so that abuse on many connections does
    not add up to a wait that others feel; only those who pay for frames ever wait."""

    pause_seconds: float = setting(0.02, number(0, 60), "how long what is left of such a turn waits")
    """For that. A client that gives up on 256 calls at once waits 80 ms in all."""

    turn_seconds: float = setting(
        0.01, number(0.0001, 60), "for how long one connection may keep the event loop busy in a turn"
    )
    """For how long one connection may keep the loop busy in a turn. What is left of a read then
    waits in a line with those of other such connections, of whom one goes on in each turn.
    Less, and a client with many calls at once pays for standing in line; more adds to
    everybody's wait."""

    refill_per_s: float = setting(
        100.0, number(0.001, 1_000_000), "how fast the burst comes back, in frames a second"
    )
    """How fast the burst comes back, besides one for each frame of an answer. Keepalive
    takes less than 1 a second; at 100, abuse takes 1.5 % of a core for as long as it likes."""

    small_data_bytes: int = setting(256, whole(0, 16_384), "DATA frames below this are part of the burst")
    """DATA frames below this that do not end a request are paid for: a frame costs the
    same 50 µs with one byte as with 16 KiB, so tiny ones block the loop for longer than
    they take to send. Real requests are larger, or end with the frame."""

    max_held_bytes: int = setting(
        8 << 20, whole(0, 1 << 40), "bytes of unfinished requests on one connection"
    )
    """Request bytes of one connection that wait for the rest of their message: two of the
    largest requests at once. More streams with parts of large messages are not a client
    that wants answers. What fits in a frame is not refused, so 16 MiB is the most."""

    max_held_in_all_bytes: int = setting(8 << 20, whole(0, 1 << 40), "the same of all connections")
    """The same of all connections. Past it, whoever holds the oldest part of a request loses
    that request: a client that sends on is through long before it is the oldest."""

    max_unsent_bytes: int = setting(
        16 << 20, whole(0, 1 << 40), "bytes of answers on one connection that its client does not take"
    )
    """Answers of one connection that wait for the client to read."""

    max_unsent_in_all_bytes: int = setting(16 << 20, whole(0, 1 << 40), "the same of all connections")
    """The same of all connections. Past it, the answer is given up that has waited longest
    for its client to take another piece."""

    greeting_seconds: float = setting(
        20.0, number(0.1, 3_600), "for the TLS handshake, and from there to the client's SETTINGS"
    )
    """From the connection to the client's SETTINGS, and for TLS before that. Slow links
    need one or two round trips; a client that says nothing holds a connection."""

    frame_seconds: float = setting(20.0, number(0.1, 3_600), "for a frame or a header block, once begun")
    """For a frame or a header block once begun: nothing else gets through until it ends."""

    request_seconds: float = setting(
        60.0, number(0.1, 86_400), "from the headers of a call with one request to its end"
    )
    """From the headers of a call with one request to its end: 4 MiB at 0.6 Mbit/s."""

    stall_seconds: float = setting(60.0, number(0.1, 86_400), "for a client to go on reading an answer")
    """How long an answer may wait for a client that does not read."""

    idle_seconds: float = setting(900.0, number(1, 1e9), "without a call, after which a connection is ended")
    """Without a call. A client reconnects for its next call without noticing; longer, and
    clients that were switched off fill `max_connections`."""

    keepalive_seconds: float = setting(
        120.0, number(1, 1e9), "of silence with open calls, after which a client is asked for a sign of life"
    )
    """Silence on a connection with open calls, after which we ask for a sign of life.
    Shorter keeps mobile radios awake; longer keeps the streams of dead clients."""

    keepalive_timeout_seconds: float = setting(20.0, number(0.1, 3_600), "for that sign of life")
    """For that sign of life."""

    linger_seconds: float = setting(1.0, number(0, 60), "how long a connection that was ended stays readable")
    """How long a connection that we have ended stays readable. Closing at once would make
    the kernel answer what is still on its way with a reset, which can overtake our GOAWAY."""

    fast_path: bool = True
    """Whether header blocks are remembered, writes are joined and calls answered past h2.
    Off, everything goes the long way: slower, and the same to every client."""
