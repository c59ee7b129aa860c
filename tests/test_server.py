"""The process: it starts with clear lines, serves, drains, and ends."""

import re
import signal
import socket
from pathlib import Path

import grpc
import pytest
from certificates import self_signed
from conftest import StartServer
from server_process import ServerProcess, run

import routing
from routing import wire

ROUTING = "/ipfs_kit_py.routing.RoutingService"
STOPPING = (signal.SIGTERM, signal.SIGINT)


def select(channel: grpc.Channel, **how: object) -> wire.SelectBackendResponse:
    call = channel.unary_unary(f"{ROUTING}/SelectBackend", bytes, wire.SelectBackendResponse.parse)
    return call(wire.SelectBackendRequest(content_type="image/png"), timeout=20, wait_for_ready=True)


def test_it_says_where_it_serves(server: ServerProcess) -> None:
    first = server.lines[0]
    assert re.fullmatch(
        r"\S+Z INFO routing\.server server starting address=127\.0\.0\.1:\d+ tls=off backends=3 version=\S+",
        first,
    )
    assert f"server ready address={server.address} tls=off backends=3 version={routing.__version__}" in (
        server.wait_for("ready")
    )


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_ends_it_with_exit_code_0(server: ServerProcess, number: signal.Signals) -> None:
    assert server.stop(number) == 0
    assert [re.sub(r"^\S+Z | [a-z_]+=.*", "", line) for line in server.lines] == [
        f"INFO routing.server server {what}" for what in ("starting", "ready", "draining", "ended")
    ]
    assert f"signal={number.name}" in server.lines[2]


def test_a_real_client_gets_a_decision(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        assert select(channel).backend_id in {"ipfs", "filecoin", "s3"}
