"""What each command does, against a real server in a process of its own."""

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import routing.client
import routing.protobuf.generator.generate
from routing.cli import main
from routing.client import Acknowledgement, Location, Selection
from routing.core.factors import FACTORS
from routing.core.report import SECTIONS
from support.certificates import self_signed
from support.server_process import PATIENCE_S, ServerProcess, command, process_environment

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def shared() -> Iterator[ServerProcess]:
    """One server for all tests here; each has content types or backends of its own."""
    with ServerProcess() as process:
        yield process


def asked(server: ServerProcess, *argv: str) -> list[str]:
    """The command line with the server to ask."""
    return [*argv, "--target", server.address]


class Said:
    """The exit code and the outputs of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def ask(shared: ServerProcess, capsys: pytest.CaptureFixture[str]) -> Any:
    def ask(*argv: str) -> Said:
        return Said(main(asked(shared, *argv)), *capsys.readouterr())

    return ask


# select


def test_select_shows_the_choice_with_every_factor_and_the_alternatives(ask: Any) -> None:
    said = ask("select", "--type", "image/png", "--size", "4MB", "--request-id", "shown")
    assert (said.code, said.err) == (0, "")
    heading, why, contributions, expected = said.out.strip().split("\n\n")
    assert heading.startswith("s3  score 0.")
    assert heading.endswith("request shown")
    assert [line.split()[0] for line in why.splitlines()[2:]] == [*FACTORS, "sum"]
    assert [line.split()[0] for line in contributions.splitlines()[2:]] == ["s3", "ipfs", "filecoin"]
    assert [line.split()[0] for line in expected.splitlines()[2:]] == ["s3", "ipfs", "filecoin"]


def test_the_contributions_shown_sum_up_to_the_score(ask: Any) -> None:
    lines = ask("select").out.split("contributions to the score\n")[1].split("\n\n")[0].splitlines()
    for line in lines[1:]:
        _, score, *parts = line.split()
        assert sum(map(float, parts)) == pytest.approx(float(score), abs=0.0005)


def test_select_prints_the_whole_answer_as_json(ask: Any) -> None:
    said = ask("select", "--request-id", "r1", "--json").json
    assert set(said) == {
        *("backend_id", "score", "factor_scores", "alternatives", "request_id", "timestamp", "explanation")
    }
    assert said["request_id"] == "r1"
    assert datetime.fromisoformat(said["timestamp"]).tzinfo is not None
    weights = said["explanation"]["weights"]
    total = sum(weights[factor] * score for factor, score in said["factor_scores"].items())
    assert total == pytest.approx(said["score"], abs=1e-6)


def test_select_says_why_others_are_not_eligible(ask: Any) -> None:
    said = ask("select", "--exclude-backend", "s3", "--size", "40GB")
    assert said.out.startswith("ipfs  ")
    reasons = said.out.split("not eligible\n")[1]
    assert "s3" in reasons
    assert "filecoin  takes objects of at most" in reasons


def test_where_nobody_is_eligible_the_reasons_are_one_line_and_exit_code_1(ask: Any) -> None:
    said = ask("select", "--require-tag", "us", "--exclude-backend", "s3")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("routing: FAILED_PRECONDITION: no eligible backend (")
    assert said.err.count("\n") == 1
    for backend in ("filecoin: ", "ipfs: ", "s3: "):
        assert backend in said.err


def test_what_the_server_refuses_is_one_line_and_exit_code_1(ask: Any) -> None:
    said = ask("select", "--latitude", "91", "--longitude", "0")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("routing: INVALID_ARGUMENT: client_location.latitude: 91.0 is not valid")


class Recorder:
    """In the place of the client: it keeps what it is asked."""

    asked: Mapping[str, Any]

    def __call__(self, target: str, **how: Any) -> "Recorder":
        self.target, self.how = target, how
        return self

    async def __aenter__(self) -> "Recorder":
        return self

    async def __aexit__(self, *raised: object) -> None:
        pass

    async def select(self, **asked: Any) -> Selection:
        self.asked = asked
        return Selection("s3", 0.7, {}, (), "r1", AT)

    async def record(self, *told: Any, **asked: Any) -> Acknowledgement:
        self.told, self.asked = told, asked
        return Acknowledgement(True, "recorded", AT)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(routing.client, "RoutingClient", recorder)
    return recorder


def test_every_flag_of_select_reaches_the_request(client: Recorder) -> None:
    main(
        [
            *("select", "--hash", "bafy", "--type", "image/png", "--size", "4GiB", "--operation", "retrieve"),
            *("--retention-months", "12", "--expected-reads", "0.5", "--strategy", "cost"),
            *(
                "--priority",
                "reliability",
                "--backend",
                "s3",
                "--backend",
                "ipfs",
                "--exclude-backend",
                "old",
            ),
            *("--require-tag", "us", "--require-tag", "hot", "--latitude", "0", "--longitude", "-77.4"),
            *("--region", "us-east-1", "--request-id", "r1", "--at", "2026-03-01T12:00Z"),
        ]
    )
    assert client.asked == {
        "content_hash": "bafy",
        "content_type": "image/png",
        "size_bytes": 4 * 2**30,
        "metadata": {
            "operation": "retrieve",
            "retention_months": 12.0,
            "expected_reads": 0.5,
            "require_tags": ["us", "hot"],
            "exclude_backends": ["old"],
        },
        "strategy": "cost",
        "priority": "reliability",
        "available_backends": ["s3", "ipfs"],
        "location": Location(0.0, -77.4, "us-east-1"),
        "request_id": "r1",
        "at": AT,
        "explain": True,
    }


def test_a_select_without_flags_asks_for_nothing_in_particular(client: Recorder) -> None:
    main(["select"])
    assert client.asked == {
        "content_hash": "",
        "content_type": "",
        "size_bytes": 0,
        "metadata": None,
        "strategy": "",
        "priority": "",
        "available_backends": (),
        "location": Location(),
        "request_id": None,
        "at": None,
        "explain": True,
    }


@pytest.mark.parametrize(
    ("argv", "target"),
    [
        ([], "localhost:50051"),
        (["--host", "router.example", "--port", "443"], "router.example:443"),
        (["--host", "::1"], "[::1]:50051"),
        (["--port", "1", "--target", "other:2"], "other:2"),
    ],
)
def test_the_server_to_ask_has_a_host_and_a_port(client: Recorder, argv: list[str], target: str) -> None:
    main(["select", *argv, "--timeout", "2.5"])
    assert client.target == target
    assert client.how == {"tls": False, "token": None, "timeout_seconds": 2.5}


# record


def test_every_flag_of_record_reaches_the_request(client: Recorder) -> None:
    main(
        [
            *("record", "s3", "--failure", "--request-id", "r1", "--hash", "bafy", "--type", "image/png"),
            *(
                "--size",
                "4MB",
                "--duration-ms",
                "182",
                "--error",
                "timed out",
                "--fault",
                "caller",
                "--at",
                "1 March 2026 13:00 +01:00",
            ),
        ]
    )
    assert client.told == ("s3", False)
    assert client.asked == {
        "request_id": "r1",
        "content_hash": "bafy",
        "content_type": "image/png",
        "size_bytes": 4_000_000,
        "duration_ms": 182,
        "error": "timed out",
        "fault": "caller",
        "at": AT,
    }


def test_a_recorded_outcome_is_linked_to_its_decision(ask: Any) -> None:
    ask("select", "--request-id", "linked", "--backend", "linked-backend")
    said = ask("record", "linked-backend", "--success", "--request-id", "linked")
    assert (said.code, said.out, said.err) == (0, "recorded for its decision\n", "")


def test_an_outcome_too_old_to_count_is_not_recorded_and_exit_code_1(ask: Any) -> None:
    said = ask("record", "s3", "--success", "--at", "2020-01-01", "--json")
    assert said.code == 1
    assert said.json["success"] is False
    assert "168 hours" in said.json["message"]


# insights


def test_insights_show_what_was_recorded(ask: Any) -> None:
    for outcome in ("--success", "--success", "--success", "--failure"):
        ask("record", "shown", outcome, "--duration-ms", "200", "--size", "1MB", "--type", "video/mp4")
    said = ask("insights", "--backend", "shown")
    assert (said.code, said.err) == (0, "")
    row = next(line for line in said.out.splitlines() if line.startswith("shown"))
    assert "75.0 %" in row
    assert "durations" in said.out
    assert "factor            weight" in said.out


def test_insights_narrow_to_a_backend_a_type_and_a_window(ask: Any) -> None:
    ask("select", "--backend", "narrow-a", "--type", "text/narrow")
    ask("select", "--backend", "narrow-b", "--type", "text/narrow")
    ask("record", "narrow-a", "--success", "--type", "text/narrow", "--at", hours_ago(30))
    one = ask("insights", "--backend", "narrow-a", "--type", "text/narrow", "--hours", "1", "--json").json
    assert one["content_type_distribution"] == {"text/narrow": {"narrow-a": 1}}
    assert one["backend_usage_stats"]["narrow-a"]["outcome_count"] == 0
    wide = ask("insights", "--type", "text/narrow", "--hours", "48", "--json").json
    assert wide["content_type_distribution"] == {"text/narrow": {"narrow-a": 1, "narrow-b": 1}}
    assert wide["backend_usage_stats"]["narrow-a"]["outcome_count"] == 1


def hours_ago(hours: float) -> str:
    return str(datetime.now(UTC).timestamp() - hours * 3600)


# watch


def test_watch_stops_after_its_count_with_a_line_of_json_each(ask: Any) -> None:
    said = ask("watch", "--count", "2", "--json")
    first, second = map(json.loads, said.out.splitlines())
    assert said.code == 0
    assert set(first) == {"timestamp", "status", "metrics"}
    assert set(first["metrics"]) == {"system", "backends"}
    assert first["timestamp"] < second["timestamp"]


def test_watch_shows_the_sections_that_are_named(ask: Any) -> None:
    flags = [flag for section in SECTIONS for flag in ("--section", section)]
    metrics = json.loads(ask("watch", "--count", "1", *flags, "--json").out)["metrics"]
    assert set(metrics) == set(SECTIONS)
    only = json.loads(ask("watch", "--count", "1", "--section", "latency_stats", "--json").out)["metrics"]
    assert set(only) == {"system", "latency_stats"}


def test_watch_in_a_pipe_prints_one_block_per_update(ask: Any) -> None:
    blocks = ask("watch", "--count", "1").out.split("\n\n")
    assert "UTC  NORMAL  up " in blocks[0]
    assert blocks[1].splitlines()[0] == "backends"


def test_ctrl_c_is_how_watching_ends(shared: ServerProcess) -> None:
    watching = subprocess.Popen(
        [*command(), *asked(shared, "watch", "--json", "--interval", "3600")],
        env=process_environment({"PYTHONUNBUFFERED": ""}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with watching:
        assert watching.stdout is not None
        assert select.select([watching.stdout], [], [], PATIENCE_S)[0], "an update must not wait for the next"
        assert json.loads(watching.stdout.readline())["status"] == "NORMAL"
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=PATIENCE_S)
    assert (watching.returncode, err) == (0, "")


def test_a_terminal_sees_the_table_change_in_place(shared: ServerProcess) -> None:
    seen, code = in_terminal(asked(shared, "watch", "--count", "2"), TERM="xterm")
    assert code == 0
    assert seen.count("UTC  ") >= 2
    assert "\x1b[2K" in seen, "the first update must be wiped out"


def in_terminal(argv: list[str], **environment: str) -> tuple[str, int]:
    """What a command writes to a terminal, and its exit code."""
    ours, theirs = pty.openpty()
    kept = {
        name: value
        for name, value in process_environment().items()
        if name not in ("NO_COLOR", "FORCE_COLOR")
    }
    process = subprocess.Popen([*command(), *argv], env=kept | environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = bytearray()
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # Linux: the other end is closed
        pass
    finally:
        os.close(ours)
    return seen.decode(), process.wait(PATIENCE_S)


def test_no_color_keeps_escape_sequences_off_a_terminal() -> None:
    seen, code = in_terminal(["backends"], TERM="xterm", NO_COLOR="1")
    assert (code, "\x1b" in seen, "─" in seen) == (0, False, True)


# check


def test_check_passes_on_our_own_server(start_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server = start_server()
    assert main(asked(server, "check")) == 0
    out, err = capsys.readouterr()
    *lines, summary = out.splitlines()
    assert all(line.startswith("ok    ") for line in lines)
    assert (summary, err) == (f"all {len(lines)} checks of {server.address} passed", "")


def test_check_prints_its_findings_as_json(ask: Any) -> None:
    said = ask("check", "--json").json
    assert said["passed"] is True
    assert {frozenset(finding) for finding in said["checks"]} == {
        frozenset({"name", "passed", "said", "took_ms"})
    }


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_check_of_nobody_names_the_reason(nobody: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--target", nobody]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("FAIL  health Check")
    assert "Connect call failed" in out
    assert err == f"routing: 1 of 1 checks of {nobody} failed\n"


@pytest.mark.parametrize(
    "argv", [["select"], ["record", "s3", "--success"], ["insights"], ["watch"], ["backends", "--learned"]]
)
def test_nobody_to_ask_is_one_line_and_exit_code_1(
    argv: list[str], nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--target", nobody]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"routing: UNAVAILABLE: {nobody}: ")
    assert err.count("\n") == 1


def test_a_server_with_tls_is_asked_with_its_certificate(start_server: Any, tmp_path: Path) -> None:
    pair = self_signed(tmp_path)
    server = start_server("--use-ssl", "--ssl-cert", str(pair.certificate), "--ssl-key", str(pair.key))
    trusting = run(*asked(server, "check", "--ssl-ca", str(pair.certificate)))
    assert (trusting.returncode, trusting.stderr) == (0, "")
    doubting = run(*asked(server, "insights", "--use-ssl"))
    assert doubting.returncode == 1
    assert doubting.stderr.startswith("routing: UNAVAILABLE: ")
    assert "certificate verify failed" in doubting.stderr


def run(*argv: str) -> "subprocess.CompletedProcess[str]":
    """A command as people run it, whose end does not wait for the peer's part of a TLS goodbye:
    Python has a ResourceWarning for that, which it does not show them."""
    return subprocess.run(
        [sys.executable, "-m", "routing", *argv],
        env=process_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


# backends


def test_backends_prints_the_profiles_of_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "routing.toml"
    config.write_text(
        '[[backends]]\nid = "tape"\nenabled = false\negress_usd_per_gb = 0.5\ntags = ["cold"]\n'
    )
    assert main(["backends", "--config", str(config)]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("\n1 backend, disabled: tape\n")
    assert "0.5" in out
    assert "cold" in out
    assert err == ""
    assert main(["backends", "--config", str(config), "--json"]) == 0
    [profile] = json.loads(capsys.readouterr().out)
    assert (profile["id"], profile["enabled"], profile["tags"]) == ("tape", False, ["cold"])


def test_backends_stops_at_the_first_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "routing.toml"
    config.write_text('[[backends]]\nid = "s3"\nlatency_ms = "fast"\n')
    assert main(["backends", "--config", str(config)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"routing: {config}: backends[0].latency_ms")
    assert err.count("\n") == 1


def test_backends_reads_the_environment_as_serve_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "routing.toml"
    config.write_text('[[backends]]\nid = "tape"\n')
    monkeypatch.setenv("ROUTING_CONFIG", str(config))
    monkeypatch.setenv("ROUTING_PROT", "1")
    assert main(["backends"]) == 0
    out, err = capsys.readouterr()
    assert "tape" in out
    assert err == "routing: ROUTING_PROT is not a setting and is ignored; did you mean ROUTING_PORT?\n"


def test_backends_learned_shows_what_a_running_server_believes(start_server: Any, capsys: Any) -> None:
    server = start_server()

    def ask(*argv: str) -> str:
        assert main(asked(server, *argv)) == 0
        said: str = capsys.readouterr().out
        return said

    before = json.loads(ask("backends", "--learned", "--json"))["backends"]
    assert set(before) == {"filecoin", "ipfs", "s3"}
    assert {row["outcomes"] for row in before.values()} == {0}
    for _ in range(3):
        ask("record", "s3", "--success", "--duration-ms", "900", "--size", "64KiB")
    ask("record", "ipfs", "--failure")
    after = json.loads(ask("backends", "--learned", "--json"))["backends"]
    assert after["filecoin"]["small_ms"] == before["filecoin"]["small_prior_ms"]
    assert after["s3"]["small_ms"] > 5 * before["s3"]["small_ms"]
    assert after["s3"]["small_high_ms"] < before["s3"]["small_high_ms"] * 5
    assert after["s3"]["outcomes"] == 3
    assert after["s3"]["seconds_since_failure"] is None
    assert after["ipfs"]["success_probability"] < before["ipfs"]["success_probability"]
    assert 0.0 <= after["ipfs"]["seconds_since_failure"] < PATIENCE_S
    heading, times, success = ask("backends", "--learned").strip().split("\n\n")
    assert "9 cases of 10" in heading
    assert [line.split()[0] for line in times.splitlines()[2:]] == ["filecoin", "ipfs", "s3"]
    ipfs, s3 = success.splitlines()[3:]
    assert ipfs.endswith(" ago")
    assert s3.split()[:3] == ["s3", "ok", "3"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["--learned", "--config", "routing.toml"],
            "--config: 'routing.toml' is not valid; expected no file",
        ),
        (["--target", "localhost:1"], "--target: 'localhost:1' is not valid; expected a server only with"),
    ],
)
def test_backends_asks_a_server_or_reads_a_file_and_not_both(argv: list[str], said: str, capsys: Any) -> None:
    assert main(["backends", *argv]) == 2
    assert capsys.readouterr().err.startswith(f"routing: {said}")


# generate


@pytest.mark.parametrize(
    ("changed", "flags", "code", "said"),
    [
        ([], [], 0, "gen/ is what the compiler makes of proto/\n"),
        ([], ["--check"], 0, "gen/ is what the compiler makes of proto/\n"),
        (["routing_pb/a.py"], [], 0, "written  gen/routing_pb/a.py\n"),
        (["routing_pb/a.py"], ["--check"], 1, "out of date  gen/routing_pb/a.py\n"),
    ],
)
def test_generate_says_what_changed_and_checks_without_writing(
    changed: list[str],
    flags: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def generate(proto_dir: str, gen_dir: str, *, check: bool) -> list[str]:
        assert (proto_dir, gen_dir, check) == ("proto", "gen", bool(flags))
        return changed

    monkeypatch.setattr(routing.protobuf.generator.generate, "checkout", lambda: ("proto", "gen"))
    monkeypatch.setattr(routing.protobuf.generator.generate, "generate", generate)
    assert main(["generate", *flags]) == code
    assert capsys.readouterr() == (said, "")


def test_generate_outside_a_checkout_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "routing" / "protobuf" / "generator" / "generate.py"
    monkeypatch.setattr(routing.protobuf.generator.generate, "__file__", str(installed))
    assert main(["generate"]) == 2
    said = f"expected a source checkout; {tmp_path.resolve()} has no proto/routing.proto"
    assert capsys.readouterr() == ("", f"routing: routing generate: {said}\n")


# serve


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_well_when_it_is_told_to(start_server: Any, number: signal.Signals) -> None:
    server = start_server()
    assert server.stop(number) == 0
    assert not any("Traceback" in line for line in server.lines)


def test_serve_takes_its_settings_from_flags(start_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server = start_server("--log-format", "json", environment={"ROUTING_LOG_FORMAT": "logfmt"})
    assert all(line.startswith("{") for line in server.lines)
