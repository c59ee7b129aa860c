"""The command line itself: help, usage mistakes, exit codes, and the streams it writes to."""

import os
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

import pytest

import routing
import routing.client
from routing.cli.app import COMMANDS, main, parser
from routing.config.options import OPTIONS
from routing.errors import InvalidArgument, RoutingError
from support.server_process import PATIENCE_S, command, process_environment

HEAVY = {"asyncio", "betterproto2", "dateutil", "grpclib", "h2", "rich", "routing_pb", "shtab", "ssl"}
"""What `--help` must not wait for."""


BUFFERED = {"PYTHONUNBUFFERED": ""}
"""As outside of tests: what is written to a pipe waits for more."""


def run(*arguments: str | bytes, **how: Any) -> "subprocess.CompletedProcess[str]":
    """One `routing` command as a process of its own."""
    environment = process_environment(BUFFERED | how.pop("environment", {}))
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    return subprocess.run([*command(), *arguments], env=environment, text=True, timeout=PATIENCE_S, **how)


def usage_of(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    """The exit code and both outputs of a command that argparse ends."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    return ended.value.code, *capsys.readouterr()


# Help


def test_the_help_names_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = usage_of(["--help"], capsys)
    assert (code, err) == (0, "")
    for row in COMMANDS:
        assert f"    {row.name}" in out
        assert row.help in out
    assert "exit codes: 0 fine; 1 no" in out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_of(["--version"], capsys) == (0, f"routing {routing.__version__}\n", "")


@pytest.mark.parametrize("argv", [["--help"], ["--version"], *([row.name, "--help"] for row in COMMANDS)])
def test_help_waits_for_nothing_heavy(argv: list[str]) -> None:
    probe = (
        "import sys, routing.cli\n"
        "try: routing.cli.main(sys.argv[1:])\n"
        f"except SystemExit: print(sorted({HEAVY} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *argv], env=process_environment(), capture_output=True, text=True
    )
    assert done.stdout
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_every_example_of_the_help_is_a_command_line(row: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = usage_of([row.name, "--help"], capsys)
    for example in row.examples:
        assert f"\n  {example}" in out
        words = shlex.split(example, comments=True)
        start = words.index("routing") + 1
        end = next((at for at, word in enumerate(words) if word in ("|", ">", ">>")), len(words))
        assert parser().parse_args(words[start:end]).run is row.run


def test_serve_has_a_flag_for_every_server_option_with_its_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = usage_of(["serve", "--help"], capsys)
    told = " ".join(out.split())
    for option in OPTIONS:
        if option.flag:
            assert option.flag in told
            assert option.help in told
        if option.flag and option.default not in (None, False):
            assert f"{option.help} (default: {option.default})" in told


def test_a_flag_of_serve_that_was_not_given_overrides_nothing() -> None:
    given = vars(parser().parse_args(["serve", "--port", "0", "--no-use-ssl"]))
    values = {option.key: given[option.key] for option in OPTIONS if option.flag}
    assert {key: value for key, value in values.items() if value is not None} == {
        "port": "0",
        "use_ssl": False,
    }


# Mistakes


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "routing: the following arguments are required: COMMAND"),
        (["selct"], "routing: argument COMMAND: invalid choice: 'selct'"),
        (["select", "--size", "10X"], "routing select: argument --size: '10X' is no size; expected bytes"),
        (["select", "--strategy", "luck"], "routing select: argument --strategy: invalid choice: 'luck'"),
        (["select", "--strat", "cost"], "routing: unrecognized arguments: --strat cost"),
        (
            ["select", "--latitude", "north"],
            "routing select: argument --latitude: invalid float value: 'north'",
        ),
        (["record", "s3"], "routing record: one of the arguments --success --failure is required"),
        (["record", "s3", "--success", "--failure"], "routing record: argument --failure: not allowed with"),
        (["record", "--success"], "routing record: the following arguments are required: BACKEND"),
        (["record", "s3", "--success", "--at", "soon"], "routing record: argument --at: 'soon' is no time"),
        (
            ["insights", "--port", "0"],
            "routing insights: argument --port: '0' is no port; expected 1 to 65535",
        ),
        (["watch", "--section", "weather"], "routing watch: argument --section: invalid choice: 'weather'"),
        (["serve", "--log-level", "LOUD"], "routing serve: argument --log-level: invalid choice: 'LOUD'"),
        (["completion", "fish"], "routing completion: argument shell: invalid choice: 'fish'"),
    ],
)
def test_a_usage_mistake_is_one_line_and_where_to_look(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = usage_of(argv, capsys)
    assert (code, out) == (2, "")
    mistake, hint = err.splitlines()
    assert mistake.startswith(said)
    assert hint in ("try: routing --help", f"try: routing {argv[0] if argv else ''} --help")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["backends", "--config", "absent.toml"], "routing: absent.toml: expected a file that can be read"),
        (
            ["serve", "--port", "http"],
            "routing: command line: --port: expected a whole number from 0 to 65,535",
        ),
        (
            ["select", "--latitude", "9"],
            "routing: --latitude, --longitude: 9.0 is not valid; expected both or neither",
        ),
        (["select", "--longitude", "9"], "routing: --latitude, --longitude: 9.0 is not valid; expected both"),
        (["insights", "--target", "::"], "routing: target: '::' is not valid; expected HOST:PORT"),
        (["check", "--ssl-ca", "absent.pem"], "routing: TlsFiles: ca: 'absent.pem': expected a PEM file"),
        (["watch", "--target", "h:p"], "routing: target: 'h:p' is not valid; expected HOST:PORT"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_an_argument_that_is_no_utf8_is_a_usage_mistake() -> None:
    done = run("select", "--hash", b"caf\xe9")
    assert done.returncode == 2
    assert done.stderr.startswith("routing select: argument --hash: 'caf\\udce9' is not UTF-8\n")


class Failing:
    """In the place of the client: whatever is asked of it, it raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self, *positional: object, **named: object) -> "Failing":
        raise self._error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RoutingError("it said no"), 1, "routing: it said no\n"),
        (InvalidArgument("size", -1, "more"), 2, "routing: size: -1 is not valid; expected more\n"),
        (KeyboardInterrupt(), 130, ""),
        (OSError("no space left"), 2, "routing: no space left\n"),
    ],
)
def test_each_kind_of_end_has_its_exit_code(
    error: BaseException,
    code: int,
    said: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing.client, "RoutingClient", Failing(error))
    assert main(["insights"]) == code
    assert capfd.readouterr().err == said


def test_a_fault_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing.client, "RoutingClient", Failing(KeyError("ours")))
    with pytest.raises(KeyError):
        main(["insights"])


# Streams


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    """The end to write to of a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("argv", [["--help"], ["backends"], ["backends", "--json"], ["completion", "bash"]])
def test_a_reader_that_has_seen_enough_is_no_error(argv: list[str], closed_pipe: int) -> None:
    done = run(*argv, stdout=closed_pipe)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_that_is_full_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = run("backends", stdout=full)
    assert (done.returncode, done.stderr) == (2, "routing: [Errno 28] No space left on device\n")


def test_an_output_that_was_closed_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >&- 2>&-', "sh", *command(), "backends"],
        env=process_environment(),
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0


def test_what_the_outputs_encoding_lacks_is_written_as_escapes(tmp_path: Any) -> None:
    config = tmp_path / "routing.toml"
    config.write_text('[[backends]]\nid = "célèbre"\n', encoding="utf-8")
    done = run("backends", "--config", str(config), environment={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "c\\xe9l\\xe8bre" in done.stdout


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_completion_script_knows_commands_flags_and_choices(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for row in COMMANDS:
        assert row.name in script
    for word in ("exclude-backend", "geographic", "ssl-cert", "usage_stats"):
        assert word in script


def test_a_completion_script_completes_files_where_a_file_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = capsys.readouterr().out
    for flag in ("serve___config", "serve___ssl_key", "check___ssl_ca", "backends___config"):
        assert f"_shtab_routing_{flag}_COMPGEN=_shtab_compgen_files" in script


def test_the_shell_understands_its_script(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = capsys.readouterr().out
    asked = f'{script}\nCOMP_WORDS=(routing sel); COMP_CWORD=1; _shtab_routing; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.stdout.strip(), done.stderr) == ("select", "")


def test_without_the_extra_completion_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    said = "routing: routing completion needs the extra 'cli': pip install 'routing-server[cli]'\n"
    assert capsys.readouterr() == ("", said)


def test_a_parser_asks_for_its_flags_once() -> None:
    asked: list[ArgumentParser] = []
    one = type(parser())(prog="x", flags=asked.append)
    one.fill()
    one.parse_args([])
    assert asked == [one]
