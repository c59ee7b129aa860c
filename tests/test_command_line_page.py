"""docs/command-line.md shows what the commands print: each is run as it stands there, top to bottom."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_process import ServerProcess

from routing.cli import COMMANDS, main

PAGE = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8")

ASKING = {"select", "record", "insights", "watch", "check"}
"""The commands that ask a server: the page's listens on the default port, the test's on any."""

PASSING = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|up [\d.]+ \w+|\([\d.,]+/s\)|(?<=  )[\d.]+ m?s(?=  [a-zA-Z\d])"
)
"""What differs from run to run: when, for how long, how often."""

CLOSE = 0.002
"""What a few seconds of forgetting may change of a score."""


def shown() -> Iterator[tuple[str, str]]:
    """(command line, output) of everything that the page ran."""
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for part in block.split("$ ")[1:]:
            line, _, output = part.partition("\n")
            yield line, output


def words(output: str, line: str) -> list[str]:
    steady = PASSING.sub("…", output) if re.search("watch|check", line) else output
    return steady.split()


def alike(one: str, other: str) -> bool:
    try:
        return abs(float(one) - float(other)) <= CLOSE
    except ValueError:
        return one == other


def test_every_output_on_the_page_is_what_the_command_prints(
    server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, output in shown():
        argv = shlex.split(line)[1:]
        here = argv[0] in ASKING and "--port" not in argv
        try:
            main([*argv, "--target", server.address] if here else argv)
        except SystemExit:
            pass
        said = "".join(capsys.readouterr()).replace(server.address, "localhost:50051")
        found, expected = words(said, line), words(output, line)
        assert len(found) == len(expected), f"{line}\n{said}"
        assert all(map(alike, found, expected)), f"{line}\n{said}"


def test_the_page_lists_every_command() -> None:
    listed = PAGE.split("<!-- commands -->\n")[1].split("<!-- /commands -->")[0]
    assert listed == "".join(f"| `routing {row.name}` | {row.help} |\n" for row in COMMANDS)


def test_the_page_shows_every_command_that_asks_a_server() -> None:
    assert {line.split()[1] for line, _ in shown()} >= ASKING
