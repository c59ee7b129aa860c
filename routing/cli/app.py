"""`routing`: the table of commands, and the exit code of each error.

Exit codes: 0 fine, 1 no (the server refused or none answered, a check failed), 2 the call was wrong.
"""

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import Any, NamedTuple, NoReturn, TextIO

from routing import __version__
from routing.cli import commands, flags
from routing.cli.output.screen import Screen
from routing.cli.replay import replay
from routing.errors import (
    BadTrace,
    ConfigError,
    IncompatibleLibrary,
    InvalidArgument,
    MissingExtra,
    RoutingError,
)

FINE, REFUSED, MISUSED, INTERRUPTED = 0, 1, 2, 130

MISUSES = (BadTrace, ConfigError, IncompatibleLibrary, InvalidArgument, MissingExtra)
"""Errors of the command line, a file or the installation; all others are refusals by the server."""


def _check(arguments: Namespace, screen: Screen) -> int:
    """Imports `check` only when it runs, because it loads the gRPC library."""
    from routing.cli.check import check

    return check(arguments, screen)


class Command(NamedTuple):
    """A row of COMMANDS; `more` follows `help` on the command's own help page, `examples` are shell lines."""

    name: str
    help: str
    flags: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, Screen], int]
    examples: tuple[str, ...]
    more: str = ""


def completion(arguments: Namespace, screen: Screen) -> int:
    """Prints the completion script of a shell, for commands, flags and their choices."""
    try:
        import shtab
    except ImportError:
        raise MissingExtra("routing completion", "cli") from None
    screen.write(shtab.complete(parser(whole=True), shell=arguments.shell))
    return FINE


COMMANDS = (
    Command(
        "serve",
        "start the server",
        flags.serve,
        commands.serve,
        (
            "routing serve",
            "routing serve --port 50052 --config routing.toml",
            "ROUTING_LOG_LEVEL=DEBUG routing serve",
        ),
    ),
    Command(
        "check",
        "test a running server, and report what is wrong",
        flags.check,
        _check,
        ("routing check", "routing check --target router.example:50051 --ssl-ca ca.pem"),
        "Calls the four RPCs, health and reflection. This leaves a trace: one decision and one\n"
        "successful outcome for the backend that was chosen, both with the content type\n"
        "application/x-routing-check and without a duration.",
    ),
    Command(
        "select",
        "select a backend, and explain the choice",
        flags.select,
        commands.select,
        (
            "routing select --type image/png --size 4MB --region eu-west-1",
            "routing select --hash bafy123 --operation retrieve --strategy performance --json",
            "routing select --backend ipfs --backend s3 --size 2GiB --retention-months 12",
        ),
    ),
    Command(
        "record",
        "report how an operation went",
        flags.record,
        commands.record,
        (
            "routing record s3 --success --duration-ms 182 --size 4MB --type image/png",
            "routing record ipfs --failure --error 'timed out' --request-id 7f3a --at '10:30 +01:00'",
        ),
    ),
    Command(
        "insights",
        "show counts, success and latency by backend",
        flags.insights,
        commands.insights,
        (
            "routing insights",
            "routing insights --type image/png --hours 168",
            "routing insights --backend s3 --json",
        ),
    ),
    Command(
        "watch",
        "show metrics as they change",
        flags.watch,
        commands.watch,
        (
            "routing watch",
            "routing watch --section latency_stats --interval 5",
            "routing watch --count 1 --json | jq .metrics.backends",
        ),
        "Ctrl-C ends it, with exit code 0. If the server ends, it waits for its return.",
    ),
    Command(
        "backends",
        "show the profiles, or what a server has learned",
        flags.backends,
        commands.backends,
        (
            "routing backends --config routing.toml",
            "routing backends --json",
            "routing backends --learned --target router.example:50051",
        ),
    ),
    Command(
        "replay",
        "replay a trace: what would have been chosen",
        flags.replay,
        replay,
        (
            "routing replay trace.csv --config routing.toml",
            "routing replay trace.jsonl.gz --strategy performance --teach all --json",
            "routing replay - --target localhost:50051 --skip-invalid",
        ),
        "Compares the router's choices with those of the trace; docs/replay.md has the columns, and\n"
        'what the numbers can tell. A server that is asked needs clock = "request".',
    ),
    Command(
        "simulate",
        "compare strategies in simulated worlds",
        flags.simulate,
        commands.simulate,
        (
            "routing simulate",
            "routing simulate outage flapping --strategy adaptive --policy static --seeds 5",
            "routing simulate outage --picture outage.svg",
            "routing simulate mine.toml --config routing.toml --json",
        ),
        "Everything is simulated: the scenario says what happens, and the seed determines what is random.\n"
        "The same seed gives the same output.",
    ),
    Command(
        "token",
        "make a token, and its row for an auth file",
        flags.token,
        commands.token,
        ("routing token --name uploader --role client >> auth.toml",),
        "The role client may select and record, observer may see insights and metrics, admin may do\n"
        "everything. The token is written to the standard error, once, and stored nowhere. The row\n"
        "holds its hash, and is written to the standard output.",
    ),
    Command(
        "generate",
        "compile proto/ into gen/",
        flags.generate,
        commands.generate,
        ("routing generate", "routing generate --check"),
    ),
    Command(
        "completion",
        "print a shell's completion script",
        flags.completion,
        completion,
        (
            "routing completion bash > ~/.local/share/bash-completion/completions/routing",
            "routing completion zsh > ~/.zfunc/_routing",
        ),
    ),
)


class _Parser(ArgumentParser):
    """An ArgumentParser whose usage error is one line and a hint. It adds its flags when it is
    used, so that no command pays for the flags of the others."""

    def __init__(self, *, flags: Callable[[ArgumentParser], None] | None = None, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)
        self._flags = flags

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.fill()
        return super().parse_known_args(args, namespace)

    def fill(self) -> None:
        """Adds the flags, once."""
        flags, self._flags = self._flags, None
        if flags:
            flags(self)

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"{self.prog}: {message}\ntry: {self.prog} --help\n")


def parser(*, whole: bool = False) -> ArgumentParser:
    """The parser of the command line; `whole` adds the flags of every command at once."""
    top = _Parser(
        prog="routing",
        description="Decides over gRPC which storage backend to use, and learns from every outcome.",
        epilog=(
            "exit codes: 0 fine; 1 no: the server refused, none answered, or a check failed;\n"
            "2 the call was wrong"
        ),
        formatter_class=RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"routing {__version__}")
    rows = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        one = rows.add_parser(
            command.name,
            flags=command.flags,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.\n\n{command.more}".rstrip(),
            epilog="\n".join(("examples:", *(f"  {example}" for example in command.examples))),
            formatter_class=RawDescriptionHelpFormatter,
        )
        one.set_defaults(run=command.run)
        if whole:
            one.fill()
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. For --help, --version and a usage error argparse
    exits the process."""
    screen = Screen(_lenient(sys.stdout), _lenient(sys.stderr), os.environ)
    try:
        try:
            return _run(argv, screen)
        finally:
            screen.out.flush()
    except OSError as error:
        # Buffered output must go somewhere, or the interpreter reports an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), screen.out.fileno())
        if isinstance(error, BrokenPipeError):  # the reader, `head` for example, has closed the pipe
            return FINE
        screen.complain(str(error))
        return MISUSED


def _run(argv: Sequence[str] | None, screen: Screen) -> int:
    arguments = parser().parse_args(argv)
    screen.as_json = getattr(arguments, "json", False)
    try:
        code: int = arguments.run(arguments, screen)
    except RoutingError as error:
        screen.complain(str(error))
        return MISUSED if isinstance(error, MISUSES) else REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _lenient(stream: TextIO | None) -> TextIO:
    """The stream, which writes characters that its encoding lacks as escapes; the null device for a
    stream that was closed before the start."""
    if stream is None:
        return open(os.devnull, "w")
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream
