"""Calls per second and latency: this server against the grpcio peer, in one run.

Both are started, pinned to one core, and loaded in turn from another; each round takes
a sample of each, so that a machine whose speed drifts slows both. What counts is the
ratio of one round.

    python benchmarks/serve.py                 # every measurement, about five minutes
    python benchmarks/serve.py --only select   # those whose name contains a word
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from routing import wire

HERE = Path(__file__).parent
SERVICE = "/ipfs_kit_py.routing.RoutingService"
STARTED_AT = datetime(2026, 1, 1, tzinfo=UTC)
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

HISTORY_TYPES = 50
HISTORY_HOURS = 168


@dataclass(frozen=True, slots=True)
class Measurement:
    """One line of the result: which call, against what, how hard."""

    name: str
    method: str
    backends: int
    full: bool = False
    connections: int = 4
    streams: int = 16


MEASUREMENTS = (
    Measurement("select, 3 backends", "SelectBackend", 3),
    Measurement("select, 100 backends", "SelectBackend", 100),
    Measurement("record, 3 backends", "RecordOutcome", 3),
    Measurement("record, 100 backends", "RecordOutcome", 100),
    Measurement("select, 3 backends, full history", "SelectBackend", 3, full=True),
    Measurement("select, a lone caller", "SelectBackend", 3, connections=1, streams=1),
    Measurement("record, a lone caller", "RecordOutcome", 3, connections=1, streams=1),
)


class Sample(NamedTuple):
    calls_per_second: float
    median_ms: float
    p99_ms: float


def pinned(command: Sequence[str], core: int) -> list[str]:
    """The command on one core, where there are two and something to pin it with."""
    if len(CORES) < 2 or not shutil.which("taskset"):
        return list(command)
    return ["taskset", "-c", str(CORES[core]), *command]


@contextmanager
def running(command: Sequence[str]) -> Iterator[str]:
    """A server's process, pinned to the first core; its address, once it says that it is ready."""
    process = subprocess.Popen(
        pinned(command, 0), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            found = re.search(r" ready .*?address=(\S+:\d+)", line)
            if found:
                yield found[1]
                return
        sys.exit(f"{' '.join(command)} did not start:\n{''.join(said)}")
    finally:
        process.terminate()
        process.wait()


def config(folder: Path, backends: int) -> Path:
    """Made-up backends with everything that a decision looks at."""
    path = folder / f"{backends}.toml"
    rows = [
        f'[[backends]]\nid = "backend-{number}"\nregion = "region-{number % 7}"\n'
        f"latitude = {number % 60}\nlongitude = {number % 170}\nlatency_ms = {20 + number}\n"
        f"throughput_mbps = {100 + number}\nmax_inflight = 1000000\n"
        'tags = ["hot"]\ncontent_affinity = { "image/*" = 0.9, "*/*" = 0.6 }\n'
        for number in range(backends)
    ]
    path.write_text('[routing]\nclock = "request"\n' + "\n".join(rows))
    return path


def request_of(method: str, at: datetime, number: int = 0, backends: int = 1) -> bytes:
    """A typical request: a place, a type, a size, some metadata."""
    if method == "RecordOutcome":
        message: object = wire.RecordOutcomeRequest(
            backend_id=f"backend-{number % backends}",
            success=number % 50 > 0,
            content_type=f"image/type-{number % HISTORY_TYPES}",
            content_size=5_000_000,
            duration_ms=100 + number % 400,
            timestamp=at,
        )
    else:
        message = wire.SelectBackendRequest(
            content_hash="bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
            content_type="image/png",
            content_size=5_000_000,
            metadata=wire.write_struct({"operation": "store", "retention_months": 3, "app": "benchmark"}),
            client_location=wire.SelectBackendRequestGeoLocation(48.86, 2.35, "eu-west-3"),
            request_id="request",
            timestamp=at,
        )
    return wire.Codec().encode(message, type(message))


def remember(address: str, backends: int, outcomes: int) -> None:
    """Fills the whole retention: outcomes spread over a week, backends and content types."""
    import asyncio

    from grpclib.client import Channel

    async def fill() -> None:
        host, port = address.rsplit(":", 1)
        channel = Channel(host, int(port), codec=wire.Codec())
        stub = wire.RoutingServiceStub(channel)

        async def some(first: int) -> None:
            for number in range(first, outcomes, 32):
                at = STARTED_AT + timedelta(hours=HISTORY_HOURS * number / outcomes)
                data = request_of("RecordOutcome", at, number, backends)
                await stub.record_outcome(wire.Codec().decode(data, wire.RecordOutcomeRequest))

        await asyncio.gather(*(some(first) for first in range(32)))
        channel.close()

    asyncio.run(fill())


def sample(address: str, one: Measurement, message: Path, seconds: float, h2load: str | None) -> Sample:
    """One run of load against one server."""
    path = f"{SERVICE}/{one.method}"
    if h2load:
        return _by_h2load(h2load, address, path, one, message, seconds)
    command = [sys.executable, str(HERE / "load.py"), address, path, str(message)]
    command += ["--connections", str(one.connections), "--streams", str(one.streams)]
    command += ["--seconds", str(seconds)]
    done = subprocess.run(pinned(command, -1), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{one.name}: {done.stderr}")
    values = dict(pair.split("=") for pair in done.stdout.split())
    return Sample(*(float(values[name]) for name in Sample._fields))


def _by_h2load(
    h2load: str, address: str, path: str, one: Measurement, message: Path, seconds: float
) -> Sample:
    framed = message.with_suffix(".framed")
    data = message.read_bytes()
    framed.write_bytes(b"\0" + len(data).to_bytes(4) + data)
    with tempfile.NamedTemporaryFile("r", suffix=".log") as log:
        command = [h2load, "-c", str(one.connections), "-m", str(one.streams), "-D", f"{seconds:.0f}"]
        command += ["--warm-up-time=1", "-t", "1", "-d", str(framed), f"--log-file={log.name}"]
        command += ["-H", "te: trailers", "-H", "content-type: application/grpc", f"http://{address}{path}"]
        done = subprocess.run(pinned(command, -1), capture_output=True, text=True, check=True)
        durations = sorted(int(line.split("\t")[2]) for line in log if line.split("\t")[1] == "200")
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", done.stdout)
    assert rate is not None, done.stdout
    p99 = durations[int(0.99 * (len(durations) - 1))]
    return Sample(float(rate[1]), statistics.median(durations) / 1e3, p99 / 1e3)


def measure(
    one: Measurement, folder: Path, rounds: int, seconds: float, history: int, h2load: str | None
) -> None:
    """Prints the lines of one measurement."""
    at = STARTED_AT + timedelta(hours=HISTORY_HOURS)
    message = folder / f"{one.method}.bin"
    message.write_bytes(request_of(one.method, at))
    serve = [sys.executable, "-m", "routing", "serve", "--host", "127.0.0.1", "--port", "0"]
    serve += ["--config", str(config(folder, one.backends))]
    peer = [sys.executable, str(HERE / "peer.py"), "--backends", str(one.backends)]
    with ExitStack() as open_servers:
        ours = open_servers.enter_context(running(serve))
        # Against a full history, the peer is the same server with an empty one.
        theirs = open_servers.enter_context(running(serve if one.full else peer))
        if one.full:
            remember(ours, one.backends, history)
        samples: dict[str, list[Sample]] = {"ours": [], "peer": []}
        for _ in range(rounds):
            for name, address in (("ours", ours), ("peer", theirs)):
                samples[name].append(sample(address, one, message, seconds, h2load))
                time.sleep(0.1)
    show(one, samples)


def show(one: Measurement, samples: dict[str, list[Sample]]) -> None:
    print(f"\n{one.name}  ({one.connections} × {one.streams})")
    names = {"ours": "ours", "peer": "ours, empty" if one.full else "peer, canned"}
    for name, taken in samples.items():
        rates, medians, p99s = ([getattr(each, field) for each in taken] for field in Sample._fields)
        print(
            f"  {names[name]:12}  {spread(rates, '7.0f')} calls/s   median {spread(medians, '6.3f')} ms"
            f"   p99 {spread(p99s, '6.3f')} ms"
        )
    pairs = list(zip(samples["ours"], samples["peer"], strict=True))
    print(
        f"  ours / {names['peer'].split(',')[-1].strip():5}  "
        f"{spread([a.calls_per_second / b.calls_per_second for a, b in pairs], '7.2f')} calls/s"
        f"   median {spread([a.median_ms / b.median_ms for a, b in pairs], '6.2f')}"
        f"      p99 {spread([a.p99_ms / b.p99_ms for a, b in pairs], '6.2f')}",
        flush=True,
    )


def spread(values: Sequence[float], form: str) -> str:
    """Minimum, median and maximum."""
    return " ".join(f"{value:{form}}" for value in (min(values), statistics.median(values), max(values)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each sample")
    parser.add_argument("--history", type=int, default=50_000, help="outcomes of a full history")
    parser.add_argument("--only", default="", help="measurements whose name contains this")
    parser.add_argument("--portable", action="store_true", help="our own generator, even where h2load is")
    given = parser.parse_args()
    h2load = None if given.portable else shutil.which("h2load")
    print(f"Python {sys.version.split()[0]}, {len(CORES)} cores, load from {h2load or 'benchmarks/load.py'}")
    print("each figure: minimum median maximum of the rounds")
    with tempfile.TemporaryDirectory() as folder:
        for one in MEASUREMENTS:
            if given.only in one.name:
                measure(one, Path(folder), given.rounds, given.seconds, given.history, h2load)


if __name__ == "__main__":
    main()
