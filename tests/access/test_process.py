"""The real server and official clients: who gets in, who does not, and what changes while it runs."""

import contextlib
import datetime
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from routing import wire
from routing.access.auth import new_token
from routing.contract import FILES_HEALTH
from support.certificates import Pair, self_signed, signed_by
from support.server_process import PATIENCE_S, ServerProcess, StartServer

SERVICE = "/ipfs_kit_py.routing.RoutingService"
METHODS: dict[str, Any] = {
    "SelectBackend": wire.SelectBackendRequest(),
    "RecordOutcome": wire.RecordOutcomeRequest(backend_id="s3", success=True),
    "GetInsights": wire.GetInsightsRequest(),
    "StreamMetrics": wire.StreamMetricsRequest(),
}
CLIENT, OBSERVER = {"SelectBackend", "RecordOutcome"}, {"GetInsights", "StreamMetrics"}
OK, STRANGER = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
DENIED, EXHAUSTED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

FAST = ("--reload-seconds", "0.1")


@dataclass
class Folder:
    """Files of a server, and clients of it."""

    path: Path

    def __post_init__(self) -> None:
        self.pair = self_signed(self.path)

    def tokens(self, **roles: str) -> dict[str, str]:
        """Writes an auth file with a token for each name; the tokens."""
        made = {name: new_token(name, role) for name, role in roles.items()}
        self.write_auth("\n".join(row for _, row in made.values()))
        return {name: token for name, (token, _) in made.items()}

    def write_auth(self, rows: str) -> None:
        fresh = self.path / "auth.toml.new"
        fresh.write_text(rows)
        fresh.replace(self.path / "auth.toml")

    @property
    def auth(self) -> tuple[str, ...]:
        return "--auth-file", str(self.path / "auth.toml")

    @property
    def tls(self) -> tuple[str, ...]:
        return "--use-ssl", "--ssl-cert", str(self.pair.certificate), "--ssl-key", str(self.pair.key)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@contextlib.contextmanager
def channel(
    server: ServerProcess, *, trust: Pair | None = None, shows: Pair | None = None, token: str = ""
) -> Iterator[grpc.Channel]:
    """An official channel: plain without `trust`; the token is then sent by hand."""
    if trust is None:
        with grpc.insecure_channel(server.address) as plain:
            yield plain
        return
    key, certificate = (shows.key.read_bytes(), shows.certificate.read_bytes()) if shows else (None, None)
    credentials = grpc.ssl_channel_credentials(trust.certificate.read_bytes(), key, certificate)
    if token:
        call = grpc.access_token_call_credentials(token)
        credentials = grpc.composite_channel_credentials(credentials, call)
    with grpc.secure_channel(f"localhost:{server.port}", credentials) as secure:
        yield secure


def ask(open_channel: grpc.Channel, method: str = "SelectBackend", token: str = "") -> grpc.RpcError | None:
    """The error that a call ends with, if any; of a stream, its first message."""
    metadata = [("authorization", f"Bearer {token}")] if token else None
    kind = open_channel.unary_stream if method == "StreamMetrics" else open_channel.unary_unary
    call = kind(f"{SERVICE}/{method}", bytes, bytes)
    try:
        answer = call(METHODS[method], timeout=PATIENCE_S, metadata=metadata)
        if method == "StreamMetrics":
            next(answer)
            answer.cancel()
    except grpc.RpcError as error:
        return error
    return None


def code(error: grpc.RpcError | None) -> grpc.StatusCode:
    return OK if error is None else error.code()


def eventually(condition: Callable[[], bool]) -> None:
    """Asks again until it holds: the server looks at its files ten times a second."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "never came true"


# Tokens and roles


def test_each_token_may_call_what_its_role_says_over_tls(folder: Folder, start_server: StartServer) -> None:
    tokens = folder.tokens(uploader="client", dashboard="observer", operator="admin")
    server = start_server(*folder.tls, *folder.auth)
    may = {"uploader": CLIENT, "dashboard": OBSERVER, "operator": CLIENT | OBSERVER}
    for name, token in tokens.items():
        with channel(server, trust=folder.pair, token=token) as opened:
            for method in METHODS:
                # Several times, so that later ones take the fast path.
                for _ in range(4):
                    error = ask(opened, method)
                    assert code(error) is (OK if method in may[name] else DENIED), (name, method)
                if error is not None:
                    assert f"{method} needs the role" in str(error.details())
    assert server.stop() == 0
    assert not [line for line in server.lines if any(token in line for token in tokens.values())]


def test_a_missing_or_wrong_token_is_refused_with_what_is_expected(
    folder: Folder, start_server: StartServer
) -> None:
    (token,) = folder.tokens(uploader="client").values()
    server = start_server(*folder.auth)
    with channel(server) as opened:
        for wrong, words in (
            ("", "authorization: missing; expected Bearer and a token"),
            ("secret", "authorization: not a token of this server"),
            (f"{token[:-1]}{'A' if token[-1] != 'A' else 'B'}", "the token is unknown"),
        ):
            for method in METHODS:
                for _ in range(4):
                    error = ask(opened, method, token=wrong)
                    assert error is not None
                    assert (error.code(), words in error.details()) == (STRANGER, True)
        assert ask(opened, token=token) is None


def test_one_connection_carries_callers_of_different_roles(folder: Folder, start_server: StartServer) -> None:
    tokens = folder.tokens(uploader="client", dashboard="observer")
    server = start_server(*folder.auth)
    with channel(server) as opened:
        for _ in range(5):
            assert code(ask(opened, token=tokens["uploader"])) is OK
            assert code(ask(opened, token=tokens["dashboard"])) is DENIED
            assert code(ask(opened)) is STRANGER


def test_health_needs_no_token_and_reflection_needs_one(folder: Folder, start_server: StartServer) -> None:
    (token,) = folder.tokens(uploader="client").values()
    server = start_server(*folder.auth)
    with channel(server) as opened:
        check = HealthStub(opened).Check(HealthCheckRequest(), timeout=PATIENCE_S)
        assert check.status == HealthCheckResponse.SERVING

        def reflect(**how: Any) -> None:
            question = ServerReflectionRequest(list_services="")
            next(
                ServerReflectionStub(opened).ServerReflectionInfo(iter([question]), timeout=PATIENCE_S, **how)
            )

        with pytest.raises(grpc.RpcError) as refused:
            reflect()
        assert refused.value.code() is STRANGER
        reflect(metadata=[("authorization", f"Bearer {token}")])


# The auth file changes


def test_a_token_that_is_taken_out_ends_its_calls_and_its_streams(
    folder: Folder, start_server: StartServer
) -> None:
    (token,) = folder.tokens(dashboard="observer").values()
    server = start_server(*folder.auth, *FAST)
    with channel(server) as opened:
        metadata = [("authorization", f"Bearer {token}")]
        stream = opened.unary_stream(f"{SERVICE}/StreamMetrics", bytes, bytes)(
            METHODS["StreamMetrics"], metadata=metadata, timeout=PATIENCE_S
        )
        next(stream)
        (other,) = folder.tokens(other="observer").values()
        server.wait_for("files reloaded what=auth")
        assert code(ask(opened, "GetInsights", token)) is STRANGER
        assert code(ask(opened, "GetInsights", other)) is OK
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        assert ended.value.code() is STRANGER


def test_a_broken_auth_file_keeps_the_rules_says_so_once_and_shows_in_health(
    folder: Folder, start_server: StartServer
) -> None:
    (token,) = folder.tokens(uploader="client").values()
    server = start_server(*folder.auth, *FAST)

    def files_current(opened: grpc.Channel) -> bool:
        status = HealthStub(opened).Check(HealthCheckRequest(service=FILES_HEALTH), timeout=PATIENCE_S).status
        return bool(status == HealthCheckResponse.SERVING)

    with channel(server) as opened:
        assert files_current(opened)
        folder.write_auth("[[tokens]]\nname = 1")
        server.wait_for("WARNING .*files not reloaded what=auth reason=.*tokens.0..name: expected")
        eventually(lambda: not files_current(opened))
        assert code(ask(opened, token=token)) is OK
        assert code(ask(opened)) is STRANGER
        (other,) = folder.tokens(other="client").values()
        eventually(lambda: files_current(opened))
        assert code(ask(opened, token=other)) is OK
    assert server.stop() == 0
    assert len([line for line in server.lines if "files not reloaded" in line]) == 1


# Certificates of clients


def test_a_client_is_known_by_its_certificate(folder: Folder, start_server: StartServer) -> None:
    authority, other = self_signed(folder.path, "authority"), self_signed(folder.path, "other")
    uploader = signed_by(authority, folder.path, "uploader", dns=["uploader.example"])
    watcher = signed_by(authority, folder.path, "watcher", uris=["spiffe://example/watcher"])
    nobody = signed_by(authority, folder.path, "nobody", common_name="nobody")
    forged = signed_by(other, folder.path, "forged", dns=["uploader.example"])
    folder.write_auth(
        '[[certificates]]\ndns = "uploader.example"\nrole = "client"\n'
        '[[certificates]]\nuri = "spiffe://example/watcher"\nrole = "observer"\n'
    )
    server = start_server(*folder.tls, *folder.auth, "--ssl-client-ca", str(authority.certificate))

    def codes(shows: Pair | None) -> list[grpc.StatusCode]:
        with channel(server, trust=folder.pair, shows=shows) as opened:
            return [code(ask(opened, method)) for method in METHODS for _ in range(2)]

    assert codes(uploader) == [OK] * 4 + [DENIED] * 4
    assert codes(watcher) == [DENIED] * 4 + [OK] * 4
    assert codes(nobody) == [STRANGER] * 8
    for unknown in (forged, None):
        with channel(server, trust=folder.pair, shows=unknown) as opened:
            assert code(ask(opened)) is UNAVAILABLE  # no connection
    assert server.stop() == 0
    assert [line for line in server.lines if " INFO " not in line] == []


def test_where_certificates_are_optional_a_token_does_too(folder: Folder, start_server: StartServer) -> None:
    authority = self_signed(folder.path, "authority")
    uploader = signed_by(authority, folder.path, "uploader", common_name="uploader")
    token, row = new_token("script", "client")
    folder.write_auth(f'{row}\n[[certificates]]\ncommon_name = "uploader"\nrole = "client"')
    asking = ("--ssl-client-ca", str(authority.certificate), "--ssl-client-auth", "optional")
    server = start_server(*folder.tls, *folder.auth, *asking)
    for shows, said, expected in ((uploader, "", OK), (None, token, OK), (None, "", STRANGER)):
        with channel(server, trust=folder.pair, shows=shows, token=said) as opened:
            assert code(ask(opened)) is expected


def test_an_authority_that_is_replaced_vouches_for_no_new_connection(
    folder: Folder, start_server: StartServer
) -> None:
    before, after = self_signed(folder.path, "before"), self_signed(folder.path, "after")
    one = signed_by(before, folder.path, "one", common_name="one")
    two = signed_by(after, folder.path, "two", common_name="two")
    server = start_server(*folder.tls, *FAST, "--ssl-client-ca", str(before.certificate))

    def in_anew(shows: Pair) -> bool:
        with channel(server, trust=folder.pair, shows=shows) as opened:
            return ask(opened) is None

    assert in_anew(one)
    assert not in_anew(two)
    after.certificate.replace(before.certificate)
    server.wait_for("files reloaded what=tls")
    assert in_anew(two)
    assert not in_anew(one)


# The server's own certificate changes


def shown(server: ServerProcess) -> str:
    """The certificate that a new connection sees."""
    return ssl.get_server_certificate((server.host, server.port), timeout=PATIENCE_S)


def test_a_renewed_certificate_is_shown_without_a_restart_and_calls_go_on(
    folder: Folder, start_server: StartServer
) -> None:
    server = start_server(*folder.tls, *FAST)
    before = folder.pair.certificate.read_text()
    with channel(server, trust=folder.pair) as opened:
        assert ask(opened) is None
        assert shown(server).split() == before.split()
        renewed = self_signed(folder.path, "renewed")
        renewed.key.replace(folder.pair.key)
        renewed.certificate.replace(folder.pair.certificate)
        server.wait_for("files reloaded what=tls")
        assert shown(server).split() == folder.pair.certificate.read_text().split() != before.split()
        assert ask(opened) is None  # on the connection that there was


def test_an_unusable_certificate_is_logged_once_and_the_old_one_stays_in_force(
    folder: Folder, start_server: StartServer
) -> None:
    server = start_server(*folder.tls, *FAST)
    before = folder.pair.certificate.read_text()
    renewed = self_signed(folder.path, "renewed")
    renewed.certificate.replace(folder.pair.certificate)
    server.wait_for("WARNING .*files not reloaded what=tls reason=.*ssl_key: .*expected the private key of")
    assert shown(server).split() == before.split()
    renewed.key.replace(folder.pair.key)
    server.wait_for("files reloaded what=tls")
    assert shown(server).split() != before.split()
    assert server.stop() == 0
    assert len([line for line in server.lines if "files not reloaded" in line]) == 1


def test_a_certificate_that_expires_soon_is_logged_at_start(
    tmp_path: Path, start_server: StartServer
) -> None:
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    pair = self_signed(tmp_path, until=until)
    server = start_server("--use-ssl", "--ssl-cert", str(pair.certificate), "--ssl-key", str(pair.key))
    line = server.wait_for("certificate expires soon")
    assert f"at={until:%Y-%m-%dT%H:%M:%S}+00:00" in line
    assert " WARNING " in line


# Limits


def test_a_rate_limited_caller_receives_the_retry_delay(folder: Folder, start_server: StartServer) -> None:
    tokens = folder.tokens(eager="client", other="client")
    server = start_server(*folder.auth, "--rate-limit", "0.01", "--rate-burst", "3")
    with channel(server) as opened:
        for _ in range(3):
            assert code(ask(opened, token=tokens["eager"])) is OK
        for method in ("SelectBackend", "RecordOutcome", "GetInsights"):
            error = ask(opened, method, token=tokens["eager"])
            assert error is not None
            assert (error.code(), "more than 0.01 calls a second" in error.details()) == (EXHAUSTED, True)
            trailers = dict(error.trailing_metadata())
            assert 0 < int(trailers["grpc-retry-pushback-ms"]) <= 100_000
        assert code(ask(opened, token=tokens["other"])) is OK
        for _ in range(5):
            HealthStub(opened).Check(HealthCheckRequest(), timeout=PATIENCE_S)


# The log


def test_an_insecure_setting_is_logged_at_start(folder: Folder, start_server: StartServer) -> None:
    folder.write_auth('[[certificates]]\ndns = "x"\nrole = "client"')
    server = start_server(*folder.auth)
    assert server.stop() == 0
    (line,) = [line for line in server.lines if " WARNING " in line]
    assert "setting in doubt reason=" in line
    assert "no client is asked for one" in line
