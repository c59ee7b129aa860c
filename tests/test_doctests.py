"""The examples in docstrings are run, in the source tree as in an installed wheel."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(file for file in (ROOT / "routing").rglob("*.py") if ">>> " in file.read_text())


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("file", EXAMPLES, ids=name_of)
def test_the_examples_of_a_module_are_true(file: Path) -> None:
    tried = doctest.testmod(import_module(name_of(file)))
    assert tried.attempted
    assert not tried.failed
