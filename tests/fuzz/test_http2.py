"""Frames in any order, cut anywhere, half of them wrong: no byte leads to an error of ours."""

import asyncio
import logging
import random
import time
from typing import Any

import pytest
from hpack import Encoder

from routing.http2.connection import ServerProtocol
from routing.http2.frame_filter import DATA, HEADERS, RST_STREAM, SETTINGS
from support.fuzzing import SEED, corpus, rounds
from support.http2_peer import PREFACE, message, raw
from support.http2_server import Server, serving

LEAST_CONNECTIONS = 500

PATHS = [*(f"/test.Test/{name}" for name in ("Echo", "Hold", "Watch", "Talk")), "/x"]
FIELDS = ["grpc-timeout", "key-bin", "x", "content-length", "grpc-encoding", ":path", "te"]
VALUES = ["1S", "5", "!!", "AA==", "\xff", "1m", "", "trailers"]
BODIES = [b"", b"\0\0\0\1", b"\0\4\0\0\0\0", b"\0\1\0\0\x10\0", b"\0\4\x7f\xff\xff\xff", b"\0\5\0\0\x40\0"]


class Memory(asyncio.Transport):
    """Takes everything, and sends it nowhere."""

    def __init__(self) -> None:
        super().__init__({"peername": ("test", 1)})
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def a_call(dice: random.Random, encoder: Encoder, stream: int) -> list[bytes]:
    fields = [(":method", "POST"), (":scheme", "http"), (":path", dice.choice(PATHS)), ("te", "trailers")]
    fields.append(("content-type", "application/grpc"))
    if dice.random() < 0.3:
        fields.append((dice.choice(FIELDS), dice.choice(VALUES)))
    if dice.random() < 0.1:
        dice.shuffle(fields)
    block, flags = encoder.encode(fields), dice.choice([4, 4, 4, 5, 0, 0x24, 0xC, 0x2C])
    block = dice.randbytes(5) + block if flags & 0x20 else block
    block = bytes([dice.randint(0, 3)]) + block + b"\0\0\0" if flags & 8 else block
    body = message(dice.randbytes(dice.randint(0, 30)), flag=dice.choice([0, 0, 0, 1]))
    parts = [
        (0.8, raw(DATA, body, stream=stream, flags=dice.choice([0, 1, 1, 1]))),
        (0.3, raw(RST_STREAM, b"\0\0\0\x08", stream=stream)),
        (0.2, raw(DATA, dice.randbytes(3), stream=stream, flags=1)),
        (0.1, raw(HEADERS, encoder.encode([("t", "x")]), stream=stream, flags=5)),
    ]
    return [
        raw(HEADERS, block, stream=stream, flags=flags),
        *(part for share, part in parts if dice.random() < share),
    ]


def a_connection(dice: random.Random) -> bytes:
    """Mostly a client's bytes, then some of them changed."""
    encoder, stream = Encoder(), 1
    parts = [PREFACE, raw(SETTINGS)] if dice.random() < 0.97 else [dice.randbytes(40)]
    for _ in range(dice.randint(1, 25)):
        if dice.random() < 0.5:
            parts += a_call(dice, encoder, stream)
            stream += 2
        elif dice.random() < 0.8:
            body = dice.choice([*BODIES, dice.randbytes(8), dice.randbytes(5)])
            somewhere = dice.choice([0, 0, 1, 3, stream, max(1, stream - 2), 2])
            flags = dice.choice([0, 0, 1, 4, 5, 8, 0x20, 255])
            parts.append(raw(dice.randrange(12), body, stream=somewhere, flags=flags))
        else:
            parts.append(dice.randbytes(dice.randint(1, 30)))
    data = bytearray(b"".join(parts))
    for _ in range(dice.randint(1, 4) if dice.random() < 0.4 else 0):
        data[dice.randrange(min(24, len(data) - 1), len(data))] = dice.randrange(256)
    return bytes(data)


async def live_through(dice: random.Random, server: Server, data: bytes) -> None:
    """One connection: its bytes in pieces, and whatever else may befall it in between."""
    connection, at = ServerProtocol(server.listener, time.monotonic), 0
    transport = Memory()
    connection.connection_made(transport)
    events = [
        (0.3, lambda: asyncio.sleep(0)),
        (0.05, connection.pause_writing),
        (0.1, connection.resume_writing),
        (0.05, lambda: connection.check(time.monotonic() + dice.choice([0, 10, 25, 61, 130, 1000]))),
        (0.02, connection.go_away),
    ]
    try:
        while at < len(data) and not transport.closed:
            step = dice.choice([len(data), 1, 7, 50, 300])
            connection.data_received(data[at : at + step])
            at += step
            for share, event in events:
                if dice.random() < share and (waits := event()) is not None:
                    await waits
    finally:
        connection.connection_lost(None)


class Faults:
    """What went wrong on our side: logged, or told to the loop."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._log = caplog
        self._raised: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self._raised.append(context))

    def all(self) -> list[object]:
        logged = [one.getMessage() for one in self._log.records if one.levelno >= logging.WARNING]
        return [*self._raised, *logged]


async def test_no_bytes_cause_an_unexpected_error(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults(caplog)
    async with serving(stall_seconds=0.05) as server:
        for number, dice in enumerate(rounds(LEAST_CONNECTIONS)):
            data = a_connection(dice)
            await live_through(dice, server, data)
            assert faults.all() == [], f"for the corpus, at the latest: seed-{SEED}/{number} {data.hex()}"
            caplog.clear()
        await server.until(lambda: not server.calls.open and not server.listener.connections)
    assert faults.all() == []


@pytest.mark.parametrize(("about", "data"), corpus("http2.txt"))
async def test_what_was_found_stays_right(about: str, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults(caplog)
    async with serving(stall_seconds=0.05) as server:
        for seed in range(20):  # each cuts the bytes elsewhere
            await live_through(random.Random(f"{about}/{seed}"), server, PREFACE + data)
        await server.until(lambda: not server.calls.open and not server.listener.connections)
    assert faults.all() == []
