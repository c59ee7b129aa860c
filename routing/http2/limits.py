"""What one client may cost: the limits of a connection, and the budget that it lives on."""

from collections.abc import Callable
from dataclasses import dataclass

MAX_FRAME_BYTES = 16_384
"""HTTP/2's default, which we never raise: a frame is buffered until it is whole, so
its limit is what a connection may make us keep for nothing."""


@dataclass(frozen=True, slots=True)
class Http2Limits:
    """What is allowed, each with what goes wrong if it is smaller, or larger."""

    max_connections: int = 4_096
    """Fewer would refuse a fleet of watchers; each costs about 40 KB idle, so more could
    take the memory that calls need."""

    max_streams: int = 256
    """Calls at once on one connection, as advertised. Fewer make a busy client queue;
    each holds a task, and all of them may ask at the same moment."""

    max_watches_in_all: int = 4_096
    """Server streams of all connections. With one update a second, so many keep half a core
    busy; fewer would refuse a fleet of dashboards."""

    max_watches: int = 128
    """How many of those may be server streams, which stay: the rest of the connection's
    streams is left to calls that end."""

    max_header_list_bytes: int = 16_384
    """Header fields as HPACK counts them. gRPC's own default is 8 KiB, a few tokens and
    trace headers fit; more is only ever decoded to be refused."""

    max_continuations: int = 8
    """CONTINUATION frames to one header block. Our list limit fits in one frame, proxies
    split somewhat smaller; endless ones are an attack (CVE-2024-27316 and its family)."""

    max_settings: int = 32
    """Settings in one frame. HTTP/2 knows a dozen; a frame has room for 2,730, each of which
    costs 2 µs (CVE-2020-11080)."""

    burst: int = 1_000
    """Frames that are no call (PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE, tiny
    DATA, unknown) and calls refused, in one go. One costs up to 0.15 ms, so that the
    burst is less than 0.2 s of everybody's time; a client that gives up on all its calls
    at once needs 256, one that also opens all windows as many more."""

    turn: int = 64
    """How much of the burst in one turn of the event loop: about 15 ms of everybody's time.
    What is left of a read waits for `pause_seconds`, so that abuse on many connections does
    not add up to a wait that others feel; only those who pay for frames ever wait."""

    pause_seconds: float = 0.02
    """For that. A client that gives up on 256 calls at once waits 80 ms in all."""

    turn_seconds: float = 0.01
    """For how long one connection may keep the loop busy in a turn. What is left of a read then
    waits in a line with those of other such connections, of whom one goes on in each turn.
    Less, and a client with many calls at once pays for standing in line; more adds to
    everybody's wait."""

    refill_per_s: float = 100.0
    """How fast the burst comes back, besides one for each frame of an answer. Keepalive
    takes less than 1 a second; at 100, abuse takes 1.5 % of a core for as long as it likes."""

    small_data_bytes: int = 256
    """DATA frames below this that do not end a request are paid for: a frame costs the
    same 50 µs with one byte as with 16 KiB, so tiny ones block the loop for longer than
    they take to send. Real requests are larger, or end with the frame."""

    max_held_bytes: int = 12 << 20
    """Request bytes of one connection that wait for the rest of their message: three of the
    largest requests at once. More streams with parts of large messages are not a client
    that wants answers. What fits in a frame is not refused, so 16 MiB is the most."""

    max_held_in_all_bytes: int = 16 << 20
    """The same of all connections. Past it, whoever holds the oldest part of a request loses
    that request: a client that sends on is through long before it is the oldest."""

    max_unsent_bytes: int = 16 << 20
    """Answers of one connection that wait for the client to read."""

    max_unsent_in_all_bytes: int = 16 << 20
    """The same of all connections. Past it, the answer is given up that has waited longest
    for its client to take another piece."""

    greeting_seconds: float = 20.0
    """From the connection to the client's SETTINGS, and for TLS before that. Slow links
    need one or two round trips; a client that says nothing holds a connection."""

    frame_seconds: float = 20.0
    """For a frame or a header block once begun: nothing else gets through until it ends."""

    request_seconds: float = 60.0
    """From the headers of a call with one request to its end: 4 MiB at 0.6 Mbit/s."""

    stall_seconds: float = 60.0
    """How long an answer may wait for a client that does not read."""

    idle_seconds: float = 900.0
    """Without a call. A client reconnects for its next call without noticing; longer, and
    clients that were switched off fill `max_connections`."""

    keepalive_seconds: float = 120.0
    """Silence on a connection with open calls, after which we ask for a sign of life.
    Shorter keeps mobile radios awake; longer keeps the streams of dead clients."""

    keepalive_timeout_seconds: float = 20.0
    """For that sign of life."""

    linger_seconds: float = 1.0
    """How long a connection that we have ended stays readable. Closing at once would make
    the kernel answer what is still on its way with a reset, which can overtake our GOAWAY."""

    fast: bool = True
    """Whether header blocks are remembered, writes are joined and calls answered past h2.
    Off, everything goes the long way: slower, and the same to every client."""


class Budget:
    """Tokens that frames cost and answers earn: a bucket that refills with time.

    Whoever only costs runs dry; whoever gets answers for it does not. `spent` is all
    that was ever spent.
    """

    __slots__ = ("_at", "_burst", "_clock", "_refill_per_s", "_tokens", "spent")

    def __init__(self, limits: Http2Limits, clock: Callable[[], float]) -> None:
        self._burst = float(limits.burst)
        self._refill_per_s = limits.refill_per_s
        self._clock = clock
        self._tokens = self._burst
        self._at = clock()
        self.spent = 0

    def __repr__(self) -> str:
        return f"<Budget {self._tokens:.0f} of {self._burst:.0f}>"

    def earn(self, frames: int = 1) -> None:
        """Frames of an answer went out."""
        if self._tokens < self._burst:
            self._tokens = min(self._burst, self._tokens + frames)

    def spend(self) -> bool:
        """One frame that is no call came in; False once there is nothing left to spend."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._refill_per_s)
        self._at = now
        self.spent += 1
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
