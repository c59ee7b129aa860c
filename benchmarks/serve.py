"""Calls per second and latency: this server against the grpcio peer, and against variants of itself.

Two servers are started, pinned to one core, and loaded in turn from another. Each round takes a
sample of each, so a machine whose speed drifts slows both. The result is the ratio within a round;
on a machine with other load, that of the CPU time.

    python benchmarks/serve.py                        # every measurement, about ten minutes
    python benchmarks/serve.py --only "select, 3"     # those whose name contains this
    python benchmarks/serve.py --write docs/speed.md  # and writes the table to the page

Load comes from h2load (Debian's nghttp2-client) where it is installed, and otherwise, or
with --portable, from benchmarks/load.py.
"""

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from math import nan
from pathlib import Path
from typing import IO, NamedTuple

from routing import wire
from routing.contract import ROUTING_SERVICE

HERE = Path(__file__).parent
SERVICE = f"/{ROUTING_SERVICE}"
STARTED_AT = datetime(2026, 1, 1, tzinfo=UTC)
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

HISTORY_TYPES = 50
HISTORY_HOURS = 168


PYTHON = sys.executable
OURS = (PYTHON, "-m", "routing", "serve", "--event-loop", "asyncio")

CONTENDERS: Mapping[str, tuple[str, ...]] = {
    "ours": OURS,
    "peer": (PYTHON, str(HERE / "peer.py")),
    "ours, empty": OURS,
    "ours, unguarded": (PYTHON, str(HERE / "unguarded.py"), "--event-loop", "asyncio"),
    "ours, no fast path": (*OURS, "--no-fast-path"),
    "ours, uvloop": (PYTHON, "-m", "routing", "serve", "--event-loop", "uvloop"),
}
"""The servers that are compared, and the commands that start them."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One comparison: the call, the load, and two contenders; ratios are first ÷ second. `full`
    fills the first one's history; `bar` is the requirement."""

    name: str
    method: str
    backends: int
    full: bool = False
    connections: int = 4
    streams: int = 16
    first: str = "ours"
    second: str = "peer"
    bar: str = ""


SELECT, RECORD = "SelectBackend", "RecordOutcome"

MEASUREMENTS = (
    Measurement("select, 3 backends", SELECT, 3, bar="calls ≥ 1.3"),
    Measurement("select, 100 backends", SELECT, 100, bar="calls ≥ 0.5"),
    Measurement("record, 3 backends", RECORD, 3, bar="calls ≥ 1.3"),
    Measurement("record, 100 backends", RECORD, 100),
    Measurement("select, a lone caller", SELECT, 3, connections=1, streams=1, bar="median ≤ 1.0"),
    Measurement("record, a lone caller", RECORD, 3, connections=1, streams=1, bar="median ≤ 1.0"),
    Measurement(
        "select, 3 backends, full history", SELECT, 3, True, second="ours, empty", bar="calls ≥ 0.95"
    ),
    Measurement("select, 100 backends, full history", SELECT, 100, True, second="ours, empty"),
    Measurement("record, 3 backends, full history", RECORD, 3, True, second="ours, empty"),
    Measurement("select, 3 backends, guards", SELECT, 3, second="ours, unguarded", bar="calls ≥ 0.9"),
    Measurement("select, 3 backends, fast path", SELECT, 3, second="ours, no fast path"),
    Measurement("select, 3 backends, uvloop", SELECT, 3, first="ours, uvloop", second="ours"),
    Measurement(
        "select, a lone caller, uvloop",
        SELECT,
        3,
        connections=1,
        streams=1,
        first="ours, uvloop",
        second="ours",
    ),
)


class Sample(NamedTuple):
    """`cpu_us` is the CPU time of the server's process per call; NaN without /proc."""

    calls_per_second: float
    median_ms: float
    p99_ms: float
    cpu_us: float = nan


class Server(NamedTuple):
    """A running server."""

    address: str
    process: int

    def cpu_s(self) -> float:
        """CPU time of its process, user and system, all threads."""
        stat = Path(f"/proc/{self.process}/stat")
        if not stat.exists():
            return nan
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pinned(command: Sequence[str], core: int) -> list[str]:
    """The command pinned to a core, if there are two cores and taskset."""
    if len(CORES) < 2 or not shutil.which("taskset"):
        return list(command)
    return ["taskset", "-c", str(CORES[core]), *command]


@contextmanager
def running(command: Sequence[str]) -> Iterator[Server]:
    """Starts a server pinned to the first core, and waits until it is ready."""
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
                yield Server(found[1], process.pid)
                return
        sys.exit(f"{' '.join(command)} did not start:\n{''.join(said)}")
    finally:
        process.terminate()
        process.wait()


def config(folder: Path, backends: int) -> Path:
    """Writes a config file of backends with all attributes that a decision uses."""
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
    """A typical request with place, type, size and metadata."""
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
    """Records outcomes spread over a week, backends and content types."""
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


def sample(server: Server, one: Measurement, message: Path, seconds: float, h2load: str | None) -> Sample:
    """One run of load against one server."""
    path, warm_up = f"{SERVICE}/{one.method}", 1.0
    with tempfile.NamedTemporaryFile("r", suffix=".log") as log:
        if h2load:
            command = _h2load(h2load, server.address, path, one, message, seconds, log.name)
        else:
            command = [sys.executable, str(HERE / "load.py"), server.address, path, str(message)]
            command += ["--connections", str(one.connections), "--streams", str(one.streams)]
            command += ["--seconds", str(seconds)]
            warm_up = seconds / 4
        load = subprocess.Popen(
            pinned(command, -1), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        # The CPU time of the middle of the sample.
        time.sleep(warm_up + 0.1 * seconds)
        before, began = server.cpu_s(), time.perf_counter()
        time.sleep(0.7 * seconds)
        busy = (server.cpu_s() - before) / (time.perf_counter() - began)
        said, _ = load.communicate()
        if load.returncode:
            sys.exit(f"{one.name}: {said}")
        taken = _read_h2load(said, log) if h2load else _read_load(said)
    return taken._replace(cpu_us=busy / taken.calls_per_second * 1e6)


def _read_load(said: str) -> Sample:
    values = dict(pair.split("=") for pair in said.split())
    return Sample(*(float(values[name]) for name in Sample._fields if name in values))


def _h2load(
    h2load: str, address: str, path: str, one: Measurement, message: Path, seconds: float, log: str
) -> list[str]:
    framed = message.with_suffix(".framed")
    data = message.read_bytes()
    framed.write_bytes(b"\0" + len(data).to_bytes(4) + data)
    command = [h2load, "-c", str(one.connections), "-m", str(one.streams), "-D", f"{seconds:.0f}"]
    command += ["--warm-up-time=1", "-t", "1", "-d", str(framed), f"--log-file={log}"]
    return [*command, "-H", "te: trailers", "-H", "content-type: application/grpc", f"http://{address}{path}"]


def _read_h2load(said: str, log: IO[str]) -> Sample:
    durations = sorted(int(row.split("\t")[2]) for row in log if row.split("\t")[1] == "200")
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", said)
    assert rate is not None, said
    p99 = durations[int(0.99 * (len(durations) - 1))]
    return Sample(float(rate[1]), statistics.median(durations) / 1e3, p99 / 1e3)


def command(contender: str, one: Measurement, folder: Path) -> list[str]:
    """The command that starts a contender for this measurement."""
    if contender == "peer":
        return [*CONTENDERS[contender], "--backends", str(one.backends)]
    where = ["--host", "127.0.0.1", "--port", "0", "--config", str(config(folder, one.backends))]
    return [*CONTENDERS[contender], *where]


def measure(
    one: Measurement, folder: Path, rounds: int, seconds: float, history: int, h2load: str | None
) -> list[tuple[Sample, Sample]]:
    """The samples of both contenders, by round."""
    message = folder / f"{one.method}.bin"
    message.write_bytes(request_of(one.method, STARTED_AT + timedelta(hours=HISTORY_HOURS)))
    with ExitStack() as open_servers:
        first, second = (
            open_servers.enter_context(running(command(contender, one, folder)))
            for contender in (one.first, one.second)
        )
        if one.full:
            remember(first.address, one.backends, history)
        taken = []
        for number in range(rounds):
            # The order alternates, since the first and the second sample meet different conditions.
            order = (first, second) if number % 2 else (second, first)
            samples = {server: sample(server, one, message, seconds, h2load) for server in order}
            taken.append((samples[first], samples[second]))
        return taken


FORMS = {"calls_per_second": ",.0f", "median_ms": ".3f", "p99_ms": ".3f", "cpu_us": ".0f"}
HEADS = {
    "calls_per_second": "calls/s",
    "median_ms": "median, ms",
    "p99_ms": "p99, ms",
    "cpu_us": "CPU of a call, µs",
}


def lines(one: Measurement, taken: Sequence[tuple[Sample, Sample]]) -> list[list[str]]:
    """Spreads of the first, of the second, and of their ratio within each round."""
    firsts, seconds = ([pair[at] for pair in taken] for at in (0, 1))
    return [
        [one.first, *(spread([getattr(it, name) for it in firsts], form) for name, form in FORMS.items())],
        [one.second, *(spread([getattr(it, name) for it in seconds], form) for name, form in FORMS.items())],
        ["ratio", *(spread([getattr(a, it) / getattr(b, it) for a, b in taken], ".2f") for it in FORMS)],
    ]


def title(one: Measurement) -> str:
    return f"{one.name} ({one.connections} × {one.streams}){'; must be: ' * bool(one.bar)}{one.bar}"


def show(one: Measurement, rows: list[list[str]]) -> None:
    print(f"\n{title(one)}")
    for who, *spreads in rows:
        columns = zip(spreads, HEADS.values(), strict=True)
        print(f"  {who:20}" + "  ".join(f"{each:>24} {head}" for each, head in columns), flush=True)


def table(results: Mapping[Measurement, list[list[str]]], facts: str) -> str:
    """The results as a Markdown table."""
    rows = [("measurement", "who", *HEADS.values()), ("---",) * (2 + len(HEADS))]
    for one, each in results.items():
        names = (title(one), "", "")
        rows += [(name, *row) for name, row in zip(names, each, strict=True)]
    return "\n".join([facts, "", *(f"| {' | '.join(row)} |" for row in rows)])


def write(page: Path, text: str) -> None:
    """Writes the table between the page's markers."""
    before, rest = page.read_text().split("<!-- serve -->\n")
    _, after = rest.split("<!-- /serve -->")
    page.write_text(f"{before}<!-- serve -->\n{text}\n<!-- /serve -->{after}")


def machine() -> str:
    """Python version and machine of the figures."""
    cpu = "unknown"
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        cpu = dict(re.findall(r"^(model name)\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)).get(
            "model name", cpu
        )
    return f"Python {platform.python_version()}, {len(CORES)} cores ({cpu}, {platform.machine()})"


def spread(values: Sequence[float], form: str) -> str:
    """Minimum, median and maximum."""
    return " ".join(f"{value:{form}}" for value in (min(values), statistics.median(values), max(values)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each sample")
    parser.add_argument("--history", type=int, default=20_000, help="outcomes of a full history")
    parser.add_argument("--only", default="", help="measurements whose name contains this")
    parser.add_argument(
        "--portable", action="store_true", help="use benchmarks/load.py even if h2load is installed"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a page whose table to replace")
    given = parser.parse_args()
    h2load = None if given.portable else shutil.which("h2load")
    load = "h2load" if h2load else "benchmarks/load.py"
    facts = f"{machine()}; load from {load}, {given.rounds} rounds of {given.seconds:g} s; min median max."
    print(facts)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for one in MEASUREMENTS:
            if given.only not in one.name or ("uvloop" in one.name and not find_spec("uvloop")):
                continue
            taken = measure(one, Path(folder), given.rounds, given.seconds, given.history, h2load)
            results[one] = lines(one, taken)
            show(one, results[one])
    if given.write:
        write(given.write, table(results, facts))


if __name__ == "__main__":
    main()
