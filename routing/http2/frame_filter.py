"""The frames of one connection, looked at by their nine-byte headers before h2 sees them.

h2 parses a frame once it has all of it, raises on types that it does not know, ends
its state machine on a client's GOAWAY, and counts nothing. The filter refuses what is
too long on its header, takes out what h2 must not see, and makes frames that are no
calls cost something. It reads bytes and remembers numbers; it opens nothing.
"""

from collections.abc import Mapping
from struct import Struct
from typing import Final

from h2.errors import ErrorCodes

from routing.http2.budget import HEADER_LIST_HARD_FACTOR, MAX_FRAME_BYTES, Budget, Http2Limits

PREFACE_BYTES = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

_HEADER: Final = Struct(">HBBBL")
_HEADER_BYTES: Final = _HEADER.size
_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
_SETTING_BYTES = 6

_SIZES: Mapping[int, tuple[int, ...]] = {RST_STREAM: (4,), PING: (8,), WINDOW_UPDATE: (4,), PRIORITY: (5,)}
"""Types whose frames have one size (RFC 9113, section 6)."""


class Violation(Exception):
    """The peer broke a rule, or a limit, that ends its connection."""

    def __init__(self, code: ErrorCodes, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FrameFilter:
    """State: where in the stream of frames we are, and what the peer has said so far.

    `greeted` after the peer's SETTINGS; `leaving` after its GOAWAY; `in_block` while a
    header block is unfinished; `highest_stream` is the last stream that it opened;
    `frames` counts what was begun, so that one can see whether anything moves.
    """

    __slots__ = (
        "_block_bytes", "_budget", "_continuations", "_dropping", "_held", "_limits", "_rest",
        "frames", "greeted", "highest_stream", "in_block", "leaving",
    )  # fmt: skip

    def __init__(self, limits: Http2Limits, budget: Budget) -> None:
        self._limits = limits
        self._budget = budget
        self._held = b""  # the begin of a frame header, at most 8 bytes
        self._rest = PREFACE_BYTES  # bytes of the current frame still to come; h2 checks the preface
        self._dropping = False
        self._block_bytes = 0
        self._continuations = 0
        self.in_block = 0
        self.greeted = False
        self.leaving = False
        self.highest_stream = 0
        self.frames = 0

    @property
    def mid_frame(self) -> bool:
        """Whether the peer owes us the rest of a frame or of a header block."""
        return bool(self._rest or self._held or self.in_block)

    @property
    def between_frames(self) -> bool:
        """Whether the next byte begins a frame, of a peer that has begun and not ended to speak."""
        return self.greeted and not self.leaving and not (self._rest or self._held or self.in_block)

    def owed(self, data: bytes, at: int) -> int:
        """How many of these bytes belong to a frame that began before them."""
        if not self._held:
            return self._rest
        missing = _HEADER_BYTES - len(self._held)
        size = int.from_bytes((self._held + data[at : at + missing])[:3])
        return missing + size

    def pass_call(self, stream: int, frames: int) -> None:
        """Notes the frames of a call that was answered before we could see them."""
        self.frames += frames
        self.highest_stream = max(self.highest_stream, stream)

    def feed(self, data: bytes) -> bytes:
        """The bytes that h2 may see of these; raises Violation.

        Cost: one pass over the frame headers; nothing is copied unless a frame is
        dropped or a frame header came in two pieces.
        """
        if self._held:
            data, self._held = self._held + data, b""
        length = len(data)
        at = min(self._rest, length)
        self._rest -= at
        begin = at if self._dropping else 0
        kept = b""
        while length - at >= _HEADER_BYTES:
            high, low, kind, flags, stream = _HEADER.unpack_from(data, at)
            size = high << 8 | low
            keep = self._admit(size, kind, flags, stream & 0x7FFF_FFFF)
            end = at + _HEADER_BYTES + size
            if not keep:
                kept += data[begin:at]
                begin = min(end, length)
            self._dropping = not keep
            self._rest = max(0, end - length)
            at = min(end, length)
        if at < length:
            self._held = data[at:]
        return data if not begin and at == length else kept + data[begin:at]

    def _admit(self, size: int, kind: int, flags: int, stream: int) -> bool:
        """Settles one frame by its header: whether h2 may see it."""
        self.frames += 1
        if size > MAX_FRAME_BYTES:
            raise Violation(ErrorCodes.FRAME_SIZE_ERROR, f"a frame of {size} bytes, above {MAX_FRAME_BYTES}")
        if self.in_block or kind == CONTINUATION:
            self._continue_block(size, kind, flags, stream)
            return True
        if not self.greeted:
            if kind != SETTINGS or flags & _ACK:
                raise Violation(ErrorCodes.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self.greeted = True
        if kind == HEADERS:
            self.highest_stream = max(self.highest_stream, stream)
            self._begin_block(size, flags, stream)
            return True
        if kind != DATA or (size < self._limits.small_data_bytes and not flags & _END_STREAM):
            self.pay(1, "too many frames that are no calls")
        self._check_shape(size, kind, flags, stream)
        if kind == GOAWAY:
            self.leaving = True
        return kind < GOAWAY or kind == WINDOW_UPDATE

    def pay(self, frames: int, reason: str) -> None:
        """Takes the cost of these frames out of the budget."""
        for _ in range(frames):
            if not self._budget.spend():
                raise Violation(ErrorCodes.ENHANCE_YOUR_CALM, reason)

    def _check_shape(self, size: int, kind: int, flags: int, stream: int) -> None:
        """What hyperframe and h2 let pass, or answer with another code than the RFC's."""
        wrong = kind in _SIZES and size not in _SIZES[kind]
        wrong |= kind == SETTINGS and bool(size if flags & _ACK else size % _SETTING_BYTES)
        wrong |= kind == GOAWAY and size < 8
        if wrong:
            raise Violation(ErrorCodes.FRAME_SIZE_ERROR, f"a frame of type {kind} with {size} bytes")
        if kind == SETTINGS and size > _SETTING_BYTES * self._limits.max_settings:
            raise Violation(ErrorCodes.ENHANCE_YOUR_CALM, f"more than {self._limits.max_settings} settings")
        if kind == GOAWAY and stream:
            raise Violation(ErrorCodes.PROTOCOL_ERROR, "GOAWAY on a stream")
        if kind == RST_STREAM and stream > self.highest_stream:
            raise Violation(ErrorCodes.PROTOCOL_ERROR, f"RST_STREAM on idle stream {stream}")

    def _begin_block(self, size: int, flags: int, stream: int) -> None:
        if not flags & _END_HEADERS:
            self.in_block = stream
            self._block_bytes = size
            self._continuations = 0

    def _continue_block(self, size: int, kind: int, flags: int, stream: int) -> None:
        """Only CONTINUATION may follow an unfinished header block, few of them, and little in all:
        h2 keeps them until the last, and what is compressed may only be shorter than the list."""
        if kind != CONTINUATION or stream != self.in_block:
            raise Violation(ErrorCodes.PROTOCOL_ERROR, "a header block is interrupted, or goes on unbegun")
        self._continuations += 1
        self._block_bytes += size
        if self._continuations > self._limits.max_continuations:
            raise Violation(
                ErrorCodes.ENHANCE_YOUR_CALM, f"more than {self._limits.max_continuations} CONTINUATION"
            )
        if self._block_bytes > HEADER_LIST_HARD_FACTOR * self._limits.max_header_list_bytes:
            raise Violation(ErrorCodes.ENHANCE_YOUR_CALM, f"a header block of {self._block_bytes} bytes")
        if flags & _END_HEADERS:
            self.in_block = 0
