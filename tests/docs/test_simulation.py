"""docs/simulation.md lists what a scenario file may hold.

`PYTHONPATH=tests python -m tests.docs.test_simulation` writes the lists anew.
"""

import re
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

from routing.simulation import scenario
from routing.simulation.policies import POLICIES, STRATEGY_POLICIES
from support.doc_tables import markdown_table

PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"


def listed(name: str) -> str:
    rows = [
        (f"`{one.name}`", shown(one.default), one.metadata["validator"].expected, one.metadata["help"])
        for one in fields(scenario.TABLES[name])
    ]
    return markdown_table(("key", "default", "expected", "meaning"), rows)


def scenarios() -> str:
    rows = [(f"`{name}`", scenario.load(name).about) for name in scenario.names()]
    return markdown_table(("scenario", "what happens"), rows)


BLOCKS = {"scenarios": scenarios, **{name: partial(listed, name) for name in scenario.TABLES}}


def shown(value: object) -> str:
    """As one would write it in TOML."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, frozenset):
        return f"`{sorted(value)}`"
    if isinstance(value, tuple):
        low, high = value
        return f"`{low:g}`" if low == high else f"`[{low:g}, {high:g}]`"
    return f"`{value}`"


def between(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(\n?<!-- /{name} -->)", re.DOTALL)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_page_lists_every_scenario_and_key(name: str) -> None:
    found = between(name).search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    assert found[2] == BLOCKS[name]()


def test_the_page_names_every_peer() -> None:
    peers = set(POLICIES) - {row.name for row in STRATEGY_POLICIES}
    text = PAGE.read_text(encoding="utf-8").split("## Policies")[1]
    assert peers <= set(re.findall(r"`([a-z-]+)`", text))


def test_the_scenario_on_the_page_can_be_read(tmp_path: Path) -> None:
    block = re.search(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    (tmp_path / "mine.toml").write_text(block[1])
    assert scenario.load(str(tmp_path / "mine.toml")).title == "two go"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    for each, text in BLOCKS.items():
        page = between(each).sub(
            lambda match, name=each, text=text: f"{match[1]}{text()}\n<!-- /{name} -->", page
        )
    PAGE.write_text(page, encoding="utf-8")
