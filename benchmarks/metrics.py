"""Cost of a thousand subscribers: StreamMetrics beside SelectBackend, on one server.

    python benchmarks/metrics.py                     # two minutes
    python benchmarks/metrics.py --subscribers 100 --rounds 3

In each round a single caller and a busy one call SelectBackend, once without subscribers and once
with a thousand streams at intervals of one second, over connections of a hundred streams each.
The subscribers are frames over asyncio that share no code with the server, as in load.py; they
extend the flow-control window as they read, so the server never waits for them. Printed are the
CPU time of the server for the subscribers alone, as a share of one core, the share of due updates
that arrived, and the median and 99th percentile of SelectBackend with and without subscribers,
with their ratio within each round.
"""

import argparse
import asyncio
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from load import DATA, GOAWAY, RESET, Caller, Failed, Load, frame, load
from serve import SERVICE, STARTED_AT, config, pinned, request_of

from routing import wire

STREAMS_PER_CONNECTION = 100
"""Below the server's limit of 128 streams of StreamMetrics per connection."""

SETTLING_S = 2.5
"""From the first stream to the first sample, so that all streams have received their first update."""

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Subscribers(Caller):
    """A connection whose calls stay open; counts received messages."""

    updates = 0

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if kind in (RESET, GOAWAY) and not self.ended.done():
            self.ended.set_exception(Failed(f"frame type {kind}: {payload!r}"))
        if kind == DATA:
            self.updates += 1
            self._unread += len(payload)
            if self._unread > 1 << 20:
                given, self._unread = self._unread, 0
                return frame(0x8, 0, 0, struct.pack(">I", given))
            return b""
        return super()._frame(kind, flags, stream, payload)

    _unread = 0


@asynccontextmanager
async def subscribed(address: str, message: bytes, subscribers: int) -> AsyncIterator[list[Subscribers]]:
    """Opens this many streams, and closes their connections at the end."""
    host, port = address.rsplit(":", 1)
    path = f"{SERVICE}/StreamMetrics"
    connections = []
    for first in range(0, subscribers, STREAMS_PER_CONNECTION):
        streams = min(STREAMS_PER_CONNECTION, subscribers - first)
        _, protocol = await asyncio.get_running_loop().create_connection(
            lambda streams=streams: Subscribers(address, path, message, streams), host, int(port)
        )
        connections.append(protocol)
    try:
        yield connections
        for each in connections:
            if each.ended.done():
                await each.ended
    finally:
        for each in connections:
            each.ended.cancel()
            each.close()


@contextmanager
def started(command: list[str]) -> Iterator[tuple[str, int]]:
    """A server's address and process, pinned to the first core."""
    with subprocess.Popen(pinned(command, 0), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                found = re.search(r"server ready .*?address=(\S+:\d+)", line)
                if found:
                    yield found[1], process.pid
                    return
            sys.exit("the server did not start")
        finally:
            process.terminate()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


async def alone(pid: int, seconds: float) -> float:
    """The share of a core that the server uses without calls."""
    before, began = cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.perf_counter() - began)


async def select(address: str, message: bytes, streams: int, seconds: float) -> Load:
    return await load(
        address, f"{SERVICE}/SelectBackend", message, connections=1, streams=streams, seconds=seconds
    )


async def measure(address: str, pid: int, given: argparse.Namespace) -> None:
    asked = wire.Codec().encode(wire.StreamMetricsRequest(include_backends=True), wire.StreamMetricsRequest)
    message = request_of("SelectBackend", STARTED_AT)
    shares, came = [], []
    samples: dict[tuple[int, bool], list[Load]] = {}
    for _ in range(given.rounds):
        for streams in (1, 16):
            samples.setdefault((streams, False), []).append(
                await select(address, message, streams, given.seconds)
            )
        async with subscribed(address, asked, given.subscribers) as connections:
            await asyncio.sleep(SETTLING_S)
            before = sum(each.updates for each in connections)
            shares.append(await alone(pid, given.seconds))
            came.append(sum(each.updates for each in connections) - before)
            for streams in (1, 16):
                samples.setdefault((streams, True), []).append(
                    await select(address, message, streams, given.seconds)
                )
        await asyncio.sleep(0.5)
    due = given.subscribers * given.seconds
    print(f"{'':<44}{'min':>9}{'median':>9}{'max':>9}")
    show("server, share of a core, subscribers alone", shares)
    show("share of due updates that arrived", [each / due for each in came])
    for streams in (1, 16):
        without, beside = samples[streams, False], samples[streams, True]
        for name in ("median_ms", "p99_ms"):
            plain, loaded = ([getattr(each, name) for each in row] for row in (without, beside))
            label = f"select, {streams} at once, {name.replace('_', ', ')}"
            show(f"{label}, no subscribers", plain)
            show(f"{label}, {given.subscribers:,} subscribers", loaded)
            show("  ratio", [a / b for a, b in zip(loaded, plain, strict=True)])


def show(name: str, values: list[float]) -> None:
    print(f"{name:<44}{min(values):>9.3f}{statistics.median(values):>9.3f}{max(values):>9.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of many subscribers.")
    parser.add_argument("--subscribers", type=int, default=1_000)
    parser.add_argument("--backends", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each sample")
    given = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {given.backends} backends, {given.subscribers:,} subscribers")
    with tempfile.TemporaryDirectory() as folder:
        serve = [sys.executable, "-m", "routing", "serve", "--host", "127.0.0.1", "--port", "0"]
        serve += ["--config", str(config(Path(folder), given.backends))]
        with started(serve) as (address, pid):
            asyncio.run(measure(address, pid, given))


if __name__ == "__main__":
    main()
