"""The page of promises names tests that exist, and limits that are in force."""

import re
from pathlib import Path

import pytest

from routing.config.http2_limits import Http2Limits

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text()

NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))
LIMITS = re.findall(r"`http2\.(\w+)` \(([\d,.]+)\)", PAGE)


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_test_on_the_page_exists(file: str, test: str) -> None:
    text = (ROOT / "tests" / file).read_text()
    assert re.search(rf"^(async )?def {test}\(", text, re.MULTILINE)


@pytest.mark.parametrize(("name", "shown"), LIMITS)
def test_every_limit_on_the_page_is_the_one_in_force(name: str, shown: str) -> None:
    assert float(shown.replace(",", "")) == getattr(Http2Limits(), name)


def test_every_row_of_promises_names_a_test() -> None:
    before, _, _ = PAGE.partition("## Compared with other servers")
    rows = [line for line in before.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(NAMED) > 50
    assert len(LIMITS) > 15
    assert [row for row in rows if "::" not in row] == ["| promise | held by |"] * before.count("| promise |")
