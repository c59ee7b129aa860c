"""docs/replay.md agrees with the code, and shows the actual output of the commands.

`PYTHONPATH=tests python -m tests.docs.test_replay` rewrites the table and the outputs.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from routing.cli import main
from routing.replay.columns import COLUMNS
from support.doc_tables import markdown_table
from support.server_process import PATIENCE_S, command, process_environment

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "replay.md"
PAGE = FILE.read_text(encoding="utf-8")
SHOWN = re.compile(r"```console\n\$ (?P<line>.*)\n(?P<output>(?:.*\n)*?)```")
TABLE = re.compile(r"(<!-- columns -->\n)(.*?)(<!-- /columns -->)", re.DOTALL)


def columns_table() -> str:
    rows = [
        (
            f"`{name}`",
            "yes" if column.required else "",
            column.validator.expected.replace("|", "\\|"),
            column.help,
        )
        for name, column in COLUMNS.items()
    ]
    return markdown_table(("column", "required", "expected", "meaning"), rows) + "\n"


def printed(line: str) -> str:
    """Output of a shell, both streams, as in a terminal of 120 columns."""
    done = subprocess.run(
        ["bash", "-c", f'routing() {{ "{command()[0]}" -m routing "$@"; }}; {line}'],
        cwd=ROOT,
        env=process_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.stdout


def test_every_output_on_the_page_is_what_the_command_prints() -> None:
    examples = list(SHOWN.finditer(PAGE))
    assert len(examples) == PAGE.count("```console") == 2
    for example in examples:
        assert printed(example["line"]) == example["output"]


def test_the_table_of_columns_is_that_of_the_code() -> None:
    found = TABLE.search(PAGE)
    assert found is not None
    assert found[2] == columns_table()


def test_every_key_of_the_json_is_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    main(["replay", str(ROOT / "examples" / "simulated-trace.csv"), "--json"])
    documented = set(re.findall(r"`(\w+)`", PAGE.partition("| key | what |")[2]))
    names = {"bucket-frankfurt", "bucket-oregon", "disk-in-the-cellar", "filecoin", "ipfs", "s3"}
    assert keys(json.loads(capsys.readouterr().out)) - names <= documented


def keys(values: dict[str, Any]) -> set[str]:
    below = [keys(value) for value in values.values() if isinstance(value, dict)]
    return set(values).union(*below)


def rewrite() -> None:
    """Replaces the table and the outputs by current ones."""
    text = TABLE.sub(lambda found: found[1] + columns_table() + found[3], PAGE)
    text = SHOWN.sub(
        lambda found: f"```console\n$ {found['line']}\n{printed(found['line'])}```",
        text,
    )
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
