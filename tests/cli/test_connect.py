"""Which server is asked, and as whom: flags, a file, the environment."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from routing.access.auth import new_token
from routing.cli.app import main, parser
from routing.cli.connect import credential, tls
from routing.client.target import TlsFiles, opener
from routing.errors import ConfigError, RoutingError
from support import server_process
from support.certificates import self_signed, signed_by
from support.server_process import PATIENCE_S, StartServer


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROUTING_TOKEN", raising=False)


def arguments(*argv: str) -> Any:
    return parser().parse_args(["insights", *argv])


def test_without_anything_no_token_is_shown() -> None:
    assert credential(arguments()) is None


def test_a_flag_beats_the_environment_and_a_file_does_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    monkeypatch.setenv("ROUTING_TOKEN", "of-the-environment")
    assert credential(arguments()) == "of-the-environment"
    assert credential(arguments("--token-file", str(file))) == "of-the-file"
    assert credential(arguments("--token", "of-the-flag")) == "of-the-flag"
    monkeypatch.setenv("ROUTING_TOKEN", "")
    assert credential(arguments()) is None


@pytest.mark.parametrize("wrong", ["", "two\nlines", "ü", "\x7f"])
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "token"
    file.write_text(wrong)
    for argv in (["--token", wrong], ["--token-file", str(file)]):
        with pytest.raises(ConfigError, match="expected one line of ASCII text") as refused:
            credential(arguments(*argv))
        assert not wrong or wrong not in refused.value.message


def test_two_tokens_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(RoutingError, match="expected one of them"):
        credential(arguments("--token", "x", "--token-file", str(tmp_path / "token")))


def test_a_token_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file that can be read: No such file"):
        credential(arguments("--token-file", str(tmp_path / "absent")))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], False),
        (["--use-ssl"], True),
        (["--ssl-ca", "a"], TlsFiles(ca="a")),
        (["--ssl-cert", "c", "--ssl-key", "k"], TlsFiles(certificate="c", key="k")),
        (["--use-ssl", "--ssl-ca", "a", "--ssl-cert", "c", "--ssl-key", "k"], TlsFiles("a", "c", "k")),
    ],
)
def test_a_file_for_tls_asks_for_tls(argv: list[str], expected: object) -> None:
    assert tls(arguments(*argv)) == expected


def test_an_encrypted_key_of_the_client_is_refused_without_a_prompt(tmp_path: Path) -> None:
    locked = self_signed(tmp_path, "locked", password=b"secret")
    with pytest.raises(ConfigError, match="expected an unencrypted private key"):
        opener("localhost", TlsFiles(certificate=str(locked.certificate), key=str(locked.key)))


# With a real server


def run(*argv: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """One command in a process of its own."""
    environment = {"ROUTING_TOKEN": token} if token else {}
    process = server_process.run(*argv, environment=environment)
    said, _ = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(argv, process.returncode, said)


def test_every_command_can_show_who_asks(start_server: StartServer, tmp_path: Path) -> None:
    pair, authority = self_signed(tmp_path), self_signed(tmp_path, "authority")
    client = signed_by(authority, tmp_path, "client", common_name="operator")
    token, row = new_token("operator", "admin")
    (tmp_path / "token").write_text(token)
    (tmp_path / "auth.toml").write_text(f'{row}\n[[certificates]]\ncommon_name = "operator"\nrole = "admin"')
    server = start_server(
        *("--use-ssl", "--ssl-cert", str(pair.certificate), "--ssl-key", str(pair.key)),
        *("--ssl-client-ca", str(authority.certificate), "--ssl-client-auth", "optional"),
        *("--auth-file", str(tmp_path / "auth.toml")),
    )
    there = ("--target", f"localhost:{server.port}", "--ssl-ca", str(pair.certificate))
    for command in (
        ("check",),
        ("select",),
        ("record", "s3", "--success"),
        ("insights",),
        ("watch", "--count", "1"),
    ):
        for shown in (
            ("--token-file", str(tmp_path / "token")),
            ("--ssl-cert", str(client.certificate), "--ssl-key", str(client.key)),
        ):
            assert run(*command, *there, *shown).returncode == 0, (command, shown)
        assert run(*command, *there, token=token).returncode == 0, command
        refused = run(*command, *there)
        assert refused.returncode == 1
        assert "UNAUTHENTICATED" in refused.stdout


def test_a_token_that_was_made_lets_its_caller_in(
    start_server: StartServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "--name", "up 'loader\"", "--role", "client"]) == 0
    row, token = capsys.readouterr()
    token = token.strip()
    (tmp_path / "auth.toml").write_text(row)
    server = start_server("--auth-file", str(tmp_path / "auth.toml"))
    assert run("select", "--port", str(server.port), "--host", server.host, token=token).returncode == 0
    refused = run("insights", "--port", str(server.port), "--host", server.host, token=token)
    assert "PERMISSION_DENIED: GetInsights needs the role observer or admin" in refused.stdout


def test_a_token_for_scripts_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert main(["token", "--name", "one", "--role", "observer", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["token"].startswith("routing_")
    assert 'role = "observer"' in made["row"]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 257])
def test_a_name_that_no_auth_file_may_hold_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--name", name, "--role", "client"]) == 2
    assert "--name: expected 1 to 256 bytes of printable text" in capsys.readouterr().err


def test_the_server_does_not_take_the_token_for_a_setting_of_its_own() -> None:
    from routing.config.load import load

    assert load(environment={"ROUTING_TOKEN": "x"}).warnings == ()
    assert "ROUTING_TOKEN" not in os.environ
