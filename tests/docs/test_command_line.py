"""docs/command-line.md shows what the commands print: each is run as it stands there, top to bottom.

`PYTHONPATH=tests python -m tests.docs.test_command_line` writes the outputs anew.
"""

import io
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from math import isclose
from pathlib import Path

import pytest

from routing.cli.app import COMMANDS, main
from support.server_process import ServerProcess

FILE = Path(__file__).parents[2] / "docs" / "command-line.md"
PAGE = FILE.read_text(encoding="utf-8")

ASKING = {"select", "record", "insights", "watch", "check"}
"""The commands that ask a server: the page's listens on the default port, the test's on any."""

PASSING = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|up [\d.]+ \w+|\([\d.,]+/s\)|(?<=  )[\d.]+ m?s(?=  [a-zA-Z\d])"
)
AGO = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|[\d.]+ m?s ago")
"""What differs from run to run: when, for how long, how often. Expected times do not."""

CLOSE = 0.002
CLOSE_SHARE = 0.01
"""What a few seconds of forgetting may change of a score, and of a larger number."""


def shown() -> Iterator[tuple[str, str]]:
    """(command line, output) of everything that the page ran."""
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for part in block.split("$ ")[1:]:
            line, _, output = part.partition("\n")
            yield line, output


def run(line: str, server: ServerProcess) -> None:
    argv = shlex.split(line)[1:]
    here = (argv[0] in ASKING and "--port" not in argv) or "--learned" in argv
    try:
        main([*argv, "--target", server.address] if here else argv)
    except SystemExit:
        pass


def words(output: str, line: str) -> list[str]:
    passing = PASSING if re.search("watch|check", line) else AGO
    return passing.sub("…", output).split()


def alike(one: str, other: str) -> bool:
    try:
        return isclose(float(one), float(other), abs_tol=CLOSE, rel_tol=CLOSE_SHARE)
    except ValueError:
        return one == other


def test_every_output_on_the_page_is_what_the_command_prints(
    server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, output in shown():
        run(line, server)
        said = "".join(capsys.readouterr()).replace(server.address, "localhost:50051")
        found, expected = words(said, line), words(output, line)
        assert len(found) == len(expected), f"{line}\n{said}"
        assert all(map(alike, found, expected)), f"{line}\n{said}"


def test_the_page_lists_every_command() -> None:
    listed = PAGE.split("<!-- commands -->\n")[1].split("<!-- /commands -->")[0]
    assert listed == "".join(f"| `routing {row.name}` | {row.help} |\n" for row in COMMANDS)


def test_the_page_shows_every_command_that_asks_a_server() -> None:
    assert {line.split()[1] for line, _ in shown()} >= ASKING


def rewrite() -> None:
    """Runs the page's commands, and puts what they print in the place of what stands there."""
    text, start = PAGE, 0
    with ServerProcess() as server:
        for line, output in shown():
            said = io.StringIO()
            with redirect_stdout(said), redirect_stderr(said):
                run(line, server)
            before = f"$ {line}\n{output}"
            start = text.index(before, start)
            printed = said.getvalue().replace(server.address, "localhost:50051").rstrip()
            after = f"$ {line}\n{printed}\n"
            text = text[:start] + after + text[start + len(before) :]
            start += len(after)
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
