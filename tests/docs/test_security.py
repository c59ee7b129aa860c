"""docs/security.md is true: its commands run as they stand there, and print what stands below them."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from routing.access.auth import ROLES
from routing.errors import listed
from support.doc_tables import markdown_table
from support.server_process import PATIENCE_S, ServerProcess, process_environment

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(console|toml)\n(.*?)```", re.DOTALL)

ASKING = ("check", "select", "insights")


def steps() -> Iterator[tuple[str, str]]:
    """(command, output), or ("", rows of the auth file)."""
    for kind, block in BLOCK.findall(PAGE):
        if kind == "toml":
            yield "", block
            continue
        for part in block.split("$ ")[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def run(command: str, port: int) -> tuple[int, str]:
    """Its exit code and what it says, with our `routing` and the port of the server in question."""
    words = shlex.split(command)
    ours = shlex.join([sys.executable, "-m", "routing"])
    if words[0] == "routing":
        command = ours + command.removeprefix("routing")
        if words[1] in ASKING:
            command += f" --target localhost:{port}"
    done = subprocess.run(
        command,
        shell=True,
        env=process_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with")
def test_every_command_of_the_page_does_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server: ServerProcess | None = None
    try:
        for command, output in steps():
            if not command:
                with open("auth.toml", "a") as file:
                    file.write(output)
            elif command.startswith("routing serve"):
                if server is not None:
                    assert server.stop() == 0
                    server.__exit__(None, None, None)
                server = ServerProcess(*shlex.split(command)[2:]).__enter__()
                assert not [line for line in server.lines if " WARNING " in line]
            else:
                code, said = run(command, server.port if server else 0)
                assert code == (1 if output else 0), f"{command}\n{said}"
                assert said == output or not output, command
    finally:
        if server is not None:
            server.__exit__(None, None, None)


def test_the_page_shows_the_roles_as_they_are() -> None:
    found = re.search(r"<!-- roles -->\n(.*?)\n<!-- /roles -->", PAGE, re.DOTALL)
    rows = [(f"`{role}`", listed(methods)) for role, methods in ROLES.items()]
    assert found is not None
    assert found[1] == markdown_table(("role", "may call"), rows)


def test_the_page_names_what_is_kept_open() -> None:
    from routing.access.rate_limit import MAX_CALLERS
    from routing.contract import FILES_HEALTH

    assert f"{MAX_CALLERS:,} callers" in PAGE
    assert f"`{FILES_HEALTH}`" in PAGE
