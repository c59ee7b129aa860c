"""The README's tables are what the code says.

`PYTHONPATH=tests python -m tests.docs.test_readme` writes them anew.
"""

import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from routing.cli.app import COMMANDS
from routing.core.factors import FACTORS
from routing.core.scoring import PRIORITIES, STRATEGIES, STRATEGY_ALIASES, default_weights, weight_table
from support import server_process
from support.doc_tables import markdown_table
from support.server_process import StartServer

README = Path(__file__).parents[2] / "README.md"
FIRST_CALL = re.compile(r"```console\n\$ \.venv/bin/routing (select .*)\n((?:.*\n)*?)```")


def factor_table() -> str:
    rows = [(f"`{factor.name}`", f"{factor.weight:.2f}", factor.help) for factor in FACTORS.values()]
    return markdown_table(("factor", "default weight", "what scores high"), rows)


def strategy_table() -> str:
    weights = weight_table(default_weights())
    rows = []
    for strategy in STRATEGIES.values():
        aliases = [alias for alias, meant in STRATEGY_ALIASES.items() if meant == strategy.name]
        name = ", ".join((f"`{strategy.name}`", *(f"`{alias}`" if alias else "nothing" for alias in aliases)))
        rows.append((name, strategy.help, *_cells(weights[strategy.name, "balanced"])))
    return markdown_table(("strategy", "picks", *FACTORS), rows)


def priority_table() -> str:
    rows = [
        (f"`{priority.name}`" + ("" if priority.raises else ", nothing"), priority.help)
        for priority in PRIORITIES.values()
    ]
    return markdown_table(("priority", "effect"), rows)


def command_table() -> str:
    return markdown_table(
        ("command", "what it does"), [(f"`routing {command.name}`", command.help) for command in COMMANDS]
    )


TABLES: dict[str, Callable[[], str]] = {
    "factors": factor_table,
    "strategies": strategy_table,
    "priorities": priority_table,
    "commands": command_table,
}


def _cells(weights: Iterable[float]) -> list[str]:
    return [f"{weight:.2f}" for weight in weights]


def _between(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(\n?<!-- /{name} -->)", re.DOTALL)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_what_the_code_says(name: str) -> None:
    found = _between(name).search(README.read_text())
    assert found is not None
    assert found[2] == TABLES[name]()


def test_the_first_call_prints_what_the_readme_shows(start_server: StartServer) -> None:
    shown = FIRST_CALL.search(README.read_text())
    assert shown is not None
    server = start_server("--config", str(README.parent / "examples" / "clouds.toml"))
    asking = server_process.run(*shlex.split(shown[1]), "--port", str(server.port))
    printed, _ = asking.communicate(timeout=server_process.PATIENCE_S)
    assert without_request(printed) == without_request(shown[2])


def without_request(printed: str) -> str:
    """Each request gets a name of its own."""
    return re.sub(r"request \S+", "request …", printed)


if __name__ == "__main__":
    text = README.read_text()
    for name, table in TABLES.items():
        text = _between(name).sub(rf"\g<1>{table()}\n<!-- /{name} -->", text)
    README.write_text(text)
