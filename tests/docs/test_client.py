"""docs/client.md is true: every example in it runs, and prints what stands below it."""

import ast
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status

from routing import client as client_package
from routing.client.errors import RoutingCallError, call_error
from support.server_process import ServerProcess

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<output>.*?)```)?", re.DOTALL)
DEFAULT = "localhost:50051"


async def run(code: str, names: dict[str, Any]) -> None:
    """As `python -m asyncio` would: await stands where it likes."""
    compiled = compile(code, "docs/client.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = eval(compiled, names)
    if inspect.isawaitable(waiting):
        await waiting


async def test_every_example_prints_what_stands_below_it(
    server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    examples = list(EXAMPLE.finditer(PAGE))
    for example in examples:
        code = example["code"].replace("Client()", f"Client('{DEFAULT}')").replace(DEFAULT, server.address)
        await run(code, names)
        assert capsys.readouterr().out == (example["output"] or ""), example["code"]
    assert len(examples) == PAGE.count("```python") >= 9


def rows(name: str) -> Mapping[str, str]:
    """{first cell: second cell} of the table between two comments."""
    table = PAGE.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()[2:]]
    return {first.strip("`"): second for first, second, *_ in cells}


def test_every_error_stands_in_the_table_with_its_statuses() -> None:
    told = {status: kind for kind, statuses in rows("errors").items() for status in statuses.split(", ")}
    for status in Status:
        if status is not Status.OK:
            expected = type(call_error(status.name, "")).__name__
            assert told.get(status.name, told["all others"]) == expected
    kinds = {name for name in vars(client_package) if is_call_error(getattr(client_package, name))}
    assert kinds == set(rows("errors"))


def is_call_error(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, RoutingCallError) and thing is not RoutingCallError
