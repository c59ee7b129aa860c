"""The process: it starts with clear lines, serves, drains, and ends."""

import asyncio
import contextlib
import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from hpack import Encoder
from hyperframe.frame import GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame

import routing
from routing import wire
from support.certificates import self_signed
from support.http2_peer import PREFACE
from support.server_process import PATIENCE_S, ServerProcess, StartServer, run

ROUTING = "/ipfs_kit_py.routing.RoutingService"
STOPPING = (signal.SIGTERM, signal.SIGINT)


def select(channel: grpc.Channel, **how: object) -> wire.SelectBackendResponse:
    call = channel.unary_unary(f"{ROUTING}/SelectBackend", bytes, wire.SelectBackendResponse.parse)
    return call(wire.SelectBackendRequest(content_type="image/png"), timeout=20, wait_for_ready=True)


@contextlib.contextmanager
def half_a_call(server: ServerProcess) -> Iterator[socket.socket]:
    """A connection with a call that has begun, and waits for the rest of its request."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": f"{ROUTING}/SelectBackend", ":authority": "test",
        "te": "trailers", "content-type": "application/grpc",
    }  # fmt: skip
    begun = HeadersFrame(1, data=Encoder().encode(fields), flags=["END_HEADERS"])
    answered = PingFrame(0, opaque_data=b"has come")
    with socket.create_connection((server.host, server.port)) as client:
        client.settimeout(PATIENCE_S)
        client.sendall(PREFACE + b"".join(one.serialize() for one in (SettingsFrame(0), begun, answered)))
        read = b""
        while b"has come" not in read:
            read += client.recv(1 << 16)
        yield client


def test_it_says_where_it_serves(server: ServerProcess) -> None:
    first = server.lines[0]
    assert re.fullmatch(
        r"\S+Z INFO routing\.server\.run server starting"
        r" address=127\.0\.0\.1:\d+ tls=off backends=3 version=\S+",
        first,
    )
    assert f"server ready address={server.address} tls=off backends=3 version={routing.__version__}" in (
        server.wait_for("ready")
    )


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_ends_it_with_exit_code_0(server: ServerProcess, number: signal.Signals) -> None:
    assert server.stop(number) == 0
    assert [re.sub(r"^\S+Z | [a-z_]+=.*", "", line) for line in server.lines] == [
        f"INFO routing.server.run server {what}" for what in ("starting", "ready", "draining", "ended")
    ]
    assert f"signal={number.name}" in server.lines[2]


def test_a_real_client_gets_a_decision(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        assert select(channel).backend_id in {"ipfs", "filecoin", "s3"}


def metrics(channel: grpc.aio.Channel) -> grpc.aio.UnaryStreamCall:
    call = channel.unary_stream(f"{ROUTING}/StreamMetrics", bytes, wire.MetricsUpdate.parse)
    return call(wire.StreamMetricsRequest(update_interval_seconds=1), wait_for_ready=True)


async def ended(server: ServerProcess) -> int:
    return await asyncio.to_thread(server.wait)


@pytest.mark.parametrize("number", STOPPING)
async def test_a_drain_ends_streams_with_unavailable_and_exits_with_0(
    server: ServerProcess, number: signal.Signals
) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stream = metrics(channel)
        await stream.read()
        server.send(number)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            while await stream.read() is not grpc.aio.EOF:
                pass
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "draining" in str(refused.value.details())
        assert await ended(server) == 0
    assert "cut_calls=0" in server.wait_for("server ended")


async def test_a_health_watch_reports_the_drain(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        watch = HealthStub(channel).Watch(HealthCheckRequest(), wait_for_ready=True)
        assert (await watch.read()).status == HealthCheckResponse.SERVING
        server.send(signal.SIGTERM)
        assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await watch.read()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await ended(server) == 0


def test_a_call_that_does_not_end_is_cut_after_the_grace_period(start_server: StartServer) -> None:
    server = start_server("--grace-period-seconds", "0.2")
    with half_a_call(server) as client:
        assert server.stop() == 0
        assert client.recv(1 << 16)
    assert "cut_calls=1" in server.wait_for("server ended")


def test_a_second_signal_ends_it_at_once(start_server: StartServer) -> None:
    server = start_server("--grace-period-seconds", "3600")
    with half_a_call(server):
        server.send(signal.SIGTERM)
        server.wait_for("server draining .* open_calls=1")
        assert server.stop(signal.SIGINT) == -signal.SIGINT
    assert not [line for line in server.lines if "Traceback" in line]


def test_two_signals_at_once_are_a_first_and_a_second(start_server: StartServer) -> None:
    server = start_server("--grace-period-seconds", "3600")
    with half_a_call(server):
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            server.send(number)
        assert server.wait() in (-signal.SIGTERM, -signal.SIGINT)
    assert not [line for line in server.lines if "Traceback" in line or "InvalidStateError" in line]


def test_new_connections_are_refused_from_the_first_moment_of_the_drain(start_server: StartServer) -> None:
    server = start_server("--grace-period-seconds", "3600")
    with half_a_call(server) as client:
        server.send(signal.SIGTERM)
        assert client.recv(9)[3] == GoAwayFrame.type
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, server.port))


def refusal(*flags: str) -> str:
    """What `routing serve` says when it cannot start: one line, and exit code 2."""
    process = run("serve", *flags)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    (line,) = said.splitlines()
    return line


def test_the_limits_are_settings(start_server: StartServer) -> None:
    server = start_server(
        environment={"ROUTING_HTTP2_MAX_STREAMS": "77", "ROUTING_HTTP2_MAX_CONNECTIONS": "1"}
    )
    with half_a_call(server), socket.create_connection((server.host, server.port)) as refused:
        refused.settimeout(PATIENCE_S)
        said = b""
        while more := refused.recv(1 << 16):
            said += more
    assert b"\0\x03\0\0\0\x4d" in said  # MAX_CONCURRENT_STREAMS of 77
    assert b"too many connections" in said


def test_a_port_in_use_is_one_line(server: ServerProcess) -> None:
    line = refusal("--host", server.host, "--port", str(server.port))
    assert line.endswith(
        f"server: port: cannot listen on 127.0.0.1, port {server.port}: "
        "another process listens there; expected a free port, or 0 for any"
    )


def test_an_unknown_host_is_one_line() -> None:
    assert "server: host: 'nowhere.invalid': expected a host name or address" in refusal(
        "--host", "nowhere.invalid", "--port", "0"
    )


def test_an_address_of_another_machine_is_one_line() -> None:
    assert "expected an address of this machine" in refusal("--host", "192.0.2.1", "--port", "0")


def test_a_wrong_key_is_one_line(tmp_path: Path) -> None:
    pair, other = self_signed(tmp_path), self_signed(tmp_path, "other")
    line = refusal("--use-ssl", "--ssl-cert", str(pair.certificate), "--ssl-key", str(other.key))
    assert "server: ssl_key: " in line


def test_an_encrypted_key_is_one_line_and_no_prompt(tmp_path: Path) -> None:
    pair = self_signed(tmp_path, password=b"secret")
    line = refusal("--use-ssl", "--ssl-cert", str(pair.certificate), "--ssl-key", str(pair.key))
    assert "expected an unencrypted private key" in line


def test_it_serves_tls(start_server: StartServer, tmp_path: Path) -> None:
    pair = self_signed(tmp_path)
    server = start_server("--use-ssl", "--ssl-cert", str(pair.certificate), "--ssl-key", str(pair.key))
    assert "tls=on" in server.wait_for("ready")
    trusted = grpc.ssl_channel_credentials(pair.certificate.read_bytes())
    with grpc.secure_channel(f"localhost:{server.port}", trusted) as channel:
        assert select(channel).backend_id
    assert server.stop() == 0


def test_noise_on_the_tls_port_is_no_noise_in_the_log(start_server: StartServer, tmp_path: Path) -> None:
    pair = self_signed(tmp_path)
    server = start_server("--use-ssl", "--ssl-cert", str(pair.certificate), "--ssl-key", str(pair.key))
    for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", PREFACE, b"\x16\x03\x01\x00\x05hello" * 10):
        with socket.create_connection((server.host, server.port)) as client:
            client.sendall(noise)
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while client.recv(1 << 16):
                    pass
    assert server.stop() == 0
    assert [line for line in server.lines if " INFO " not in line] == []


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_is_served_and_shown_in_brackets(start_server: StartServer) -> None:
    server = start_server("--host", "::1")
    assert f"address=[::1]:{server.port}" in server.wait_for("ready")
    with grpc.insecure_channel(f"[::1]:{server.port}") as channel:
        assert select(channel).backend_id


def test_the_log_can_be_json(start_server: StartServer) -> None:
    server = start_server("--log-format", "json")
    assert server.stop() == 0
    said = [json.loads(line) for line in server.lines]
    assert [one["message"].split()[1] for one in said] == ["starting", "ready", "draining", "ended"]
    assert said[1]["address"] == server.address
    assert said[1]["backends"] == 3


def test_it_serves_on_when_the_reader_of_its_log_leaves() -> None:
    with run("serve", "--host", "127.0.0.1", "--port", "0", "--log-level", "DEBUG") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        ready = next(line for line in lines if "server ready" in line)
        process.stdout.close()
        with grpc.insecure_channel(re.findall(r"address=(\S+)", ready)[0]) as channel:
            assert all(select(channel).backend_id for _ in range(10))
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
