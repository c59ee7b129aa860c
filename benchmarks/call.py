"""What one call costs the server's process: CPU time, without a socket or a load generator.

The bytes that a busy client sends are passed to a connection of the real server, whose
transport only counts written bytes. System calls and the event loop's waiting are left out.
Times are CPU times, which a busy machine disturbs less than the wall-clock times of `serve.py`;
the fastest round says most about the code.

    python benchmarks/call.py                     # every case, about half a minute
    python benchmarks/call.py --only select       # those whose name contains a word
    python benchmarks/call.py --only record --profile
    python benchmarks/call.py --unguarded         # what the guards of HTTP/2 cost
"""

import argparse
import asyncio
import cProfile
import pstats
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from grpclib import protocol
from hpack import Encoder
from load import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, frame
from serve import HISTORY_HOURS, MEASUREMENTS, SERVICE, STARTED_AT, Measurement, config, request_of
from unguarded import without_guards

from routing.config.load import load as load_settings
from routing.http2 import Http2Limits, Listener
from routing.http2.connection import ServerProtocol
from routing.rpc.caller import Caller, Peer
from routing.server.assembly import assemble

CALLS_IN_A_READ = 16
"""Calls in one write of h2load with 16 streams per connection, which waits for all answers."""

HISTORY = 20_000
"""Outcomes of a full history; more do not make the state larger."""


class Counting(asyncio.Transport):
    """A transport that counts written bytes."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = 0

    def write(self, data: Any) -> None:
        self.written += len(data)

    def is_closing(self) -> bool:
        return False


class Client:
    """Builds the bytes that a client sends, and passes them to an assembled server."""

    def __init__(self, one: Measurement, folder: Path, limits: Http2Limits) -> None:
        settings = load_settings(path=str(config(folder, one.backends)))
        assembly = assemble(settings, random=Random(0))
        self._listener = Listener(assembly.servables, assembly.codec, limits)
        self._protocol, self._transport = ServerProtocol(self._listener, time.monotonic), Counting()
        self._protocol.connection_made(self._transport)
        self._at, self._stream = STARTED_AT + timedelta(hours=HISTORY_HOURS), -1
        self._path, self._encoder = f"{SERVICE}/{one.method}", Encoder()
        data = request_of(one.method, self._at)
        self._body = b"\0" + len(data).to_bytes(4) + data
        self._protocol.data_received(PREFACE + frame(SETTINGS, 0, 0, b""))

    def _begin(self) -> bytes:
        """The headers of the next call."""
        self._stream += 2
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", self._path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("content-length", str(len(self._body))),
        ]
        return frame(HEADERS, END_HEADERS, self._stream, self._encoder.encode(headers))

    def _read(self) -> bytes:
        """The bytes of one read of the server: like h2load, all headers before the first DATA frame."""
        # A WINDOW_UPDATE, so that no answer waits for the flow-control window.
        grant = frame(WINDOW_UPDATE, 0, 0, (1 << 16).to_bytes(4))
        begins = [self._begin() for _ in range(CALLS_IN_A_READ)]
        streams = range(self._stream - 2 * CALLS_IN_A_READ + 2, self._stream + 1, 2)
        return b"".join([grant, *begins, *(frame(DATA, END_STREAM, one, self._body) for one in streams)])

    def reads(self, calls: int) -> list[bytes]:
        """The reads of this many calls."""
        return [self._read() for _ in range(calls // CALLS_IN_A_READ)]

    def send(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def remember(self, backends: int) -> None:
        """Records the outcomes of a week."""
        (record,) = (reply for path, reply in self._listener.fast_path_handlers.items() if "Record" in path)
        caller = Caller((), Peer(protocol.Peer(self._transport)))
        for number in range(HISTORY):
            at = STARTED_AT + timedelta(hours=HISTORY_HOURS * number / HISTORY)
            record(request_of("RecordOutcome", at, number, backends), caller)


async def timed(
    one: Measurement, folder: Path, limits: Http2Limits, rounds: int, calls: int, profile: bool
) -> list[float]:
    """Microseconds of CPU per call, by round."""
    client = Client(one, folder, limits)
    if one.full:
        client.remember(one.backends)
    taken = []
    for number in range(rounds + 1):
        reads = client.reads(calls)
        await asyncio.sleep(0)
        profiler = cProfile.Profile() if profile and number == rounds else None
        if profiler:
            profiler.enable()
        began = time.process_time()
        for data in reads:
            client.send(data)
            await asyncio.sleep(0)
        took = time.process_time() - began
        if profiler:
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
        if number:
            taken.append(took / (len(reads) * CALLS_IN_A_READ) * 1e6)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=1_600, help="in a round")
    parser.add_argument("--only", default="", help="measurements whose name contains this")
    parser.add_argument("--profile", action="store_true", help="the last round, by function")
    parser.add_argument("--unguarded", action="store_true", help="without what unguarded.py takes out")
    given = parser.parse_args()
    limits = without_guards() if given.unguarded else Http2Limits()
    print(f"{'µs of CPU for a call':<40}{'min':>9}{'median':>9}{'max':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for one in MEASUREMENTS:
            if given.only in one.name and one.streams > 1 and one.second in ("peer", "ours, empty"):
                row = asyncio.run(timed(one, Path(folder), limits, given.rounds, given.calls, given.profile))
                print(f"{one.name:<40}{min(row):>9.1f}{statistics.median(row):>9.1f}{max(row):>9.1f}")


if __name__ == "__main__":
    main()
