"""What survives the process, and what the process survives: kill -9, no disk, files, room or output."""

import asyncio
import contextlib
import resource
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from routing import wire
from routing.client.sync import RoutingClient
from support import server_process
from support.server_process import PATIENCE_S, ServerProcess, StartServer, run

CALLERS = 16


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state.db"


@pytest.fixture
def small_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that compact their state every few kilobytes."""
    starting_with(monkeypatch, "import routing.store.journal as j; j.COMPACT_BYTES = 20_000")


def starting_with(monkeypatch: pytest.MonkeyPatch, statements: str) -> None:
    """Servers do this before they start."""
    start = f"{statements}; from routing.cli import main; raise SystemExit(main())"
    monkeypatch.setattr(server_process, "command", lambda: (sys.executable, "-W", "error", "-c", start))


@contextlib.asynccontextmanager
async def stub(server: ServerProcess) -> AsyncIterator[wire.RoutingServiceStub]:
    channel = Channel(server.host, server.port, codec=wire.Codec())
    try:
        yield wire.RoutingServiceStub(channel)
    finally:
        channel.close()


def outcomes(server: ServerProcess) -> int:
    with RoutingClient(server.address) as client:
        return sum(usage.outcome_count for usage in client.insights().backend_usage_stats.values())


class Callers:
    """They report as fast as they are answered, and count: what was sent, what was acknowledged."""

    def __init__(self) -> None:
        self.sent = 0
        self.acknowledged = 0

    async def report(self, calls: wire.RoutingServiceStub, times: int = 1_000_000) -> None:
        with contextlib.suppress(GRPCError, StreamTerminatedError, OSError):
            for _ in range(times):
                self.sent += 1
                answer = await calls.record_outcome(wire.RecordOutcomeRequest(backend_id="s3", success=True))
                assert answer.message == "recorded"
                self.acknowledged += 1

    async def until_killed(self, server: ServerProcess, moment: float) -> None:
        async with stub(server) as calls:
            reporters = [asyncio.create_task(self.report(calls)) for _ in range(CALLERS)]
            asyncio.get_running_loop().call_later(moment, server.send, signal.SIGKILL)
            await asyncio.gather(*reporters)


@pytest.mark.usefixtures("small_journals")
@pytest.mark.parametrize("times", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_what_was_acknowledged_survives_kill_9_at_any_moment(
    start_server: StartServer, url: str, times: int
) -> None:
    callers, dice = Callers(), Random(times)
    for _ in range(times):
        server = start_server("--state", url)
        found = outcomes(server)
        assert callers.acknowledged <= found <= callers.sent
        # What was in flight and got onto the disk counts from now on as acknowledged.
        callers.acknowledged = callers.sent = found
        asyncio.run(callers.until_killed(server, dice.uniform(0.0, 0.4)))
        assert server.wait() == -signal.SIGKILL
    assert callers.acknowledged > times
    server = start_server("--state", url)
    assert callers.acknowledged <= outcomes(server) <= callers.sent
    assert server.stop() == 0


@pytest.mark.usefixtures("small_journals")
def test_a_compaction_goes_on_beside_the_calls_and_keeps_everything(
    start_server: StartServer, url: str
) -> None:
    server, callers = start_server("--state", url), Callers()

    async def load() -> None:
        async with stub(server) as calls:
            reporters = [asyncio.create_task(callers.report(calls)) for _ in range(CALLERS)]
            await asyncio.to_thread(server.wait_for, "state compacted")
            server.send(signal.SIGTERM)
            await asyncio.gather(*reporters)

    asyncio.run(load())
    assert server.wait() == 0
    server = start_server("--state", url)
    assert callers.acknowledged <= outcomes(server) <= callers.sent


def test_a_drain_leaves_one_file_with_everything(start_server: StartServer, url: str, tmp_path: Path) -> None:
    server = start_server("--state", url, "--durability", "interval", "--durability-interval-seconds", "3600")
    with RoutingClient(server.address) as client:
        for number in range(20):
            client.select(content_hash=f"h{number}")
            client.record("s3", True)
    assert server.stop() == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.db"]
    server = start_server("--state", url)
    assert "decisions=20 outcomes=20" in server.wait_for("state restored")


def test_all_that_was_known_is_known_again(start_server: StartServer, url: str) -> None:
    """Holders, decisions that await their outcome, suspensions, names: not just the counts."""
    first = start_server("--state", url)
    with RoutingClient(first.address) as client:
        client.record("filecoin", True, content_hash="held")
        decision = client.select(
            content_hash="pending", content_type="video/mp4", available_backends=["newcomer"]
        )
        for _ in range(5):
            client.record("ipfs", False)
        client.record("s3", True, duration_ms=77)
    first.send(signal.SIGKILL)
    first.wait()
    second = start_server("--state", url)
    with RoutingClient(second.address) as client:
        assert client.select(content_hash="held", metadata={"operation": "retrieve"}).backend_id == "filecoin"
        linked = client.record(decision.backend_id, True, request_id=decision.request_id)
        assert linked.message == "recorded for its decision"
        assert "newcomer" in client.insights().backend_scores
        assert client.insights().latency_stats["s3"].max_ms == 77
        with contextlib.closing(client.metrics(include_backends=True)) as updates:
            backends = next(updates).backends
            assert backends is not None
            assert backends["ipfs"].state == "suspended"


def test_a_server_that_replays_a_trace_goes_on_where_the_trace_was(
    start_server: StartServer, url: str, tmp_path: Path
) -> None:
    config = tmp_path / "routing.toml"
    config.write_text('[routing]\nclock = "request"\n')
    for times in (1, 2):
        server = start_server("--state", url, "--config", str(config))
        with RoutingClient(server.address) as client:
            client.record("s3", True, at=datetime(2026, 1, 1, 0, 0, times, tzinfo=UTC))
            assert client.insights().backend_usage_stats["s3"].outcome_count == times
        server.send(signal.SIGKILL)
        server.wait()
    server = start_server("--state", url, "--config", str(config))
    assert outcomes(server) == 2  # although no request has told the time yet


# What stops a start


def refusal(*flags: str) -> str:
    """What `routing serve` says when it cannot start: after its log one line, and exit code 2."""
    process = run("serve", "--host", "127.0.0.1", "--port", "0", *flags)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    (line,) = (line for line in said.splitlines() if " INFO " not in line)
    return line


def test_two_servers_cannot_share_a_state(start_server: StartServer, url: str) -> None:
    server = start_server("--state", url)
    line = refusal("--state", url)
    assert line.endswith(f"another server uses this state (process {server.process.pid})")
    assert outcomes(server) == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no database" * 1000, "is not a state file of this server; expected one, or a new name"),
        (None, "has format 2, and this version reads format 3"),
    ],
)
def test_a_state_that_cannot_be_used_is_one_line(
    tmp_path: Path, url: str, content: bytes | None, why: str
) -> None:
    path = tmp_path / "state.db"
    if content is None:
        with contextlib.closing(sqlite3.connect(path)) as other:
            kind = "PRAGMA application_id = 1919907188; PRAGMA user_version = 2"
            other.executescript(f"{kind}; CREATE TABLE newer (a)")
    else:
        path.write_bytes(content)
    assert refusal("--state", url) == f"routing: server: state: {path}: {why}"


# What happens on the way


@contextlib.contextmanager
def limited(server: ServerProcess, limit: int, most: int) -> Iterator[None]:
    """The process gets no more of this, until the end of the block."""
    _, hard = before = resource.prlimit(server.process.pid, limit)
    resource.prlimit(server.process.pid, limit, (most, hard))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, limit, before)


needs_prlimit = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="limits of another process: Linux"
)


@needs_prlimit
def test_a_full_disk_stops_no_call_and_health_says_so(start_server: StartServer, url: str) -> None:
    server = start_server("--state", url)
    with RoutingClient(server.address) as client, grpc.insecure_channel(server.address) as channel:
        health = HealthStub(channel)

        def store() -> int:
            asked = HealthCheckRequest(service="ipfs_kit_py.routing.Store")
            return int(health.Check(asked, timeout=20, wait_for_ready=True).status)

        assert store() == HealthCheckResponse.SERVING
        assert client.record("s3", True).message == "recorded"
        with limited(server, resource.RLIMIT_FSIZE, 1):
            for _ in range(50):
                answer = client.record("s3", True)
                assert answer.recorded
                assert answer.message == "recorded; in memory only: the state cannot be written at the moment"
                assert client.select(content_type="image/png").backend_id
            assert store() == HealthCheckResponse.NOT_SERVING
            assert health.Check(HealthCheckRequest(), timeout=20).status == HealthCheckResponse.SERVING
        server.wait_for("state is written again lost_events=0")
        assert client.record("s3", True).message == "recorded"
        assert store() == HealthCheckResponse.SERVING
    server.send(signal.SIGKILL)
    server.wait()
    assert len([line for line in server.lines if "state cannot be written" in line]) == 1
    assert outcomes(start_server("--state", url)) == 52


@needs_prlimit
def test_without_free_descriptors_it_goes_on_and_says_so_once(start_server: StartServer, url: str) -> None:
    server = start_server("--state", url, "--event-loop", "asyncio")  # uvloop closes them without a word
    with RoutingClient(server.address) as client, contextlib.ExitStack() as opened:
        client.record("s3", True)
        used = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        with limited(server, resource.RLIMIT_NOFILE, used + 3):
            address = (server.host, server.port)
            waiting = [opened.enter_context(socket.create_connection(address)) for _ in range(20)]
            server.wait_for("connections must wait reason=.*open files")
            for _ in range(20):
                assert client.record("s3", True).message == "recorded"
        server.wait_for("connections are taken again")
        for one in waiting:
            one.close()
        with RoutingClient(server.address) as another:
            assert another.select().backend_id
    assert server.stop() == 0
    assert len([line for line in server.lines if " INFO " not in line]) == 1


@pytest.mark.parametrize("redirected", [">/dev/full 2>&1", ">&- 2>&-", "2> >(exec 2>&-; head -n 1 >&-)"])
def test_it_goes_on_when_its_output_is_full_or_closed(redirected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = ["--host", "127.0.0.1", "--port", str(port)]
    serve = shlex.join([*server_process.command(), "serve", *where, "--log-level", "DEBUG"])
    started = ["bash", "-c", f"exec {serve} {redirected}"]
    with subprocess.Popen(started, env=server_process.process_environment()) as process:
        try:
            with RoutingClient(f"127.0.0.1:{port}", timeout_seconds=PATIENCE_S, retries=50) as client:
                for _ in range(100):
                    assert client.record("s3", True).recorded
                assert client.insights().backend_usage_stats["s3"].outcome_count == 100
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def test_600_mb_of_address_space_are_enough(
    start_server: StartServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting_with(monkeypatch, "import resource as r; r.setrlimit(r.RLIMIT_AS, (600 << 20, 600 << 20))")
    server, callers = start_server("--state", url), Callers()

    async def load() -> None:
        async with stub(server) as calls:
            await asyncio.gather(*(callers.report(calls, times=50) for _ in range(CALLERS)))

    asyncio.run(load())
    assert server.stop() == 0
    assert callers.acknowledged == 50 * CALLERS
    assert [line for line in server.lines if " INFO " not in line] == []


# One server at a time, whatever the path


@pytest.mark.parametrize(
    "spelling", ["state.db", "other/../state.db", "link.db", "other/folder/state.db", "hard.db"]
)
def test_a_second_server_is_refused_whatever_path_it_uses(
    start_server: StartServer, url: str, tmp_path: Path, spelling: str
) -> None:
    server = start_server("--state", url)
    (tmp_path / "other").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "state.db")
    (tmp_path / "other" / "folder").symlink_to(tmp_path)
    (tmp_path / "hard.db").hardlink_to(tmp_path / "state.db")
    second = run("serve", "--port", "0", "--state", f"sqlite:///{tmp_path}/{spelling}")
    said, _ = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 2
    assert f"another server uses this state (process {server.process.pid})" in said
    with RoutingClient(server.address) as client:
        assert client.record("s3", True).message == "recorded"


def test_nothing_beside_the_state_can_be_removed_to_let_a_second_server_in(
    start_server: StartServer, url: str, tmp_path: Path
) -> None:
    start_server("--state", url)
    for path in tmp_path.glob("*lock*"):
        path.unlink()
    second = run("serve", "--port", "0", "--state", url)
    said, _ = second.communicate(timeout=PATIENCE_S)
    assert (second.returncode, "another server uses this state" in said) == (2, True)


def test_a_file_with_two_names_is_refused(start_server: StartServer, url: str, tmp_path: Path) -> None:
    """After a crash, the latest commits are in a file that is named after one of them."""
    server = start_server("--state", url)
    with RoutingClient(server.address) as client:
        client.record("s3", True)
    server.stop(signal.SIGKILL)
    (tmp_path / "hard.db").hardlink_to(tmp_path / "state.db")
    for name in ("hard.db", "state.db"):
        second = run("serve", "--port", "0", "--state", f"sqlite:///{tmp_path}/{name}")
        said, _ = second.communicate(timeout=PATIENCE_S)
        assert (second.returncode, "has 2 hard links; keep one" in said) == (2, True)
    (tmp_path / "hard.db").unlink()
    assert outcomes(start_server("--state", url)) == 1


def test_a_state_that_is_replaced_is_said_by_the_first_server(
    start_server: StartServer, url: str, tmp_path: Path
) -> None:
    first = start_server("--state", url)
    for path in tmp_path.glob("state.db*"):
        path.unlink()
    second = start_server("--state", url)
    with RoutingClient(first.address) as client:
        assert "in memory only" in client.record("s3", True).message
    first.wait_for("state cannot be written.*was replaced by another file")
    with RoutingClient(second.address) as client:
        assert client.record("s3", True).message == "recorded"
    assert first.stop() == 0
    first.wait_for("state is lost in part")
    assert second.stop() == 0
    assert outcomes(start_server("--state", url)) == 1


@pytest.mark.parametrize("removed", ["state.db", "state.db-wal"])
def test_a_file_that_is_removed_between_the_last_call_and_the_end_costs_nothing(
    start_server: StartServer, url: str, tmp_path: Path, removed: str
) -> None:
    server = start_server("--state", url)
    with RoutingClient(server.address) as client:
        for _ in range(20):
            assert client.record("s3", True).message == "recorded"
    (tmp_path / removed).unlink()
    assert server.stop() == 0
    assert outcomes(start_server("--state", url)) == 20


def test_commits_that_the_next_start_would_not_see_are_said(
    start_server: StartServer, url: str, tmp_path: Path
) -> None:
    server = start_server("--state", url)
    with RoutingClient(server.address) as client:
        assert client.record("s3", True).message == "recorded"
        (tmp_path / "state.db-wal").unlink()
        assert "in memory only" in client.record("s3", True).message
        server.wait_for("state cannot be written.*state.db-wal was removed or replaced")
        server.wait_for("state is written again")
    server.stop(signal.SIGKILL)
    assert outcomes(start_server("--state", url)) == 2


def test_a_file_in_the_place_of_a_state_in_use_is_refused_and_neither_is_changed(
    start_server: StartServer, url: str, tmp_path: Path
) -> None:
    backup = start_server("--state", f"sqlite:///{tmp_path}/backup.db")
    with RoutingClient(backup.address) as client:
        for _ in range(3):
            client.record("filecoin", True)
    assert backup.stop() == 0
    kept = (tmp_path / "backup.db").read_bytes()
    server = start_server("--state", url)
    with RoutingClient(server.address) as client:
        for _ in range(5):
            assert client.record("s3", True).message == "recorded"
    (tmp_path / "state.db").rename(tmp_path / "aside.db")
    (tmp_path / "backup.db").rename(tmp_path / "state.db")
    for _ in range(2):  # with a file in this place, and with none
        second = run("serve", "--port", "0", "--state", url)
        said, _ = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 2
        assert f"another server uses this state (process {server.process.pid})" in said
        if (tmp_path / "state.db").exists():
            assert (tmp_path / "state.db").read_bytes() == kept
            (tmp_path / "state.db").unlink()
    (tmp_path / "aside.db").rename(tmp_path / "state.db")
    assert server.stop() == 0
    assert outcomes(start_server("--state", url)) == 5


def test_a_file_in_the_place_of_a_state_survives_the_end_of_its_server(
    start_server: StartServer, url: str, tmp_path: Path
) -> None:
    backup = start_server("--state", f"sqlite:///{tmp_path}/backup.db")
    with RoutingClient(backup.address) as client:
        for _ in range(3):
            client.record("filecoin", True)
    assert backup.stop() == 0
    server = start_server("--state", url)
    with RoutingClient(server.address) as client:
        assert client.record("s3", True).message == "recorded"
    (tmp_path / "backup.db").rename(tmp_path / "state.db")
    assert server.stop() == 0
    server.wait_for("state is lost in part.*was replaced by another file")
    assert (tmp_path / "state.db-wal.orphan").exists()
    assert outcomes(start_server("--state", url)) == 3


def test_a_file_is_not_begun_beside_the_commits_of_another(
    start_server: StartServer, url: str, tmp_path: Path
) -> None:
    server = start_server("--state", url)
    with RoutingClient(server.address) as client:
        assert client.record("s3", True).message == "recorded"
    server.stop(signal.SIGKILL)
    (tmp_path / "state.db").rename(tmp_path / "aside.db")
    second = run("serve", "--port", "0", "--state", url)
    said, _ = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 2
    assert "is missing or empty, but state.db-wal holds the latest commits; put the file back" in said
    assert not (tmp_path / "state.db").exists()
    (tmp_path / "aside.db").rename(tmp_path / "state.db")
    assert outcomes(start_server("--state", url)) == 1


def test_sighup_does_not_end_a_server(start_server: StartServer, url: str) -> None:
    server = start_server("--state", url)
    server.send(signal.SIGHUP)
    with RoutingClient(server.address) as client:
        assert client.record("s3", True).message == "recorded"
    assert server.stop() == 0
