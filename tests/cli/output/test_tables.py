"""A table has two renderers: aligned text, and rich's."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from routing.cli.output.tables import TONES, Table, TableCell, plain, pretty, printable

PRICES = Table(
    "prices", ("backend", ">dollars"), (("s3", "0.023"), (TableCell("filecoin", "strong"), "1,204"))
)


def drawn(block: object, *, colour: bool = False, width: int = 100) -> str:
    output = io.StringIO()
    console = Console(
        file=output,
        force_terminal=True,
        color_system="standard" if colour else None,
        width=width,
        _environ={},
    )
    console.print(pretty(block))
    return output.getvalue()


def test_plain_columns_are_as_wide_as_their_widest_text_and_two_spaces_apart() -> None:
    assert plain(PRICES) == (
        "prices\n"
        "backend   dollars\n"
        "s3          0.023\n"
        "filecoin    1,204"
    )  # fmt: skip


def test_rich_shows_the_same_texts_in_the_same_order() -> None:
    said = drawn(PRICES).split()
    assert [word for word in said if word.strip("─━╴╶ ")] == plain(PRICES).split()


def test_a_table_without_rows_shows_its_columns() -> None:
    empty = Table("", ("backend", ">score"), ())
    assert plain(empty) == "backend  score"
    assert "backend" in drawn(empty)


def test_one_line_of_cells_is_a_block_too() -> None:
    assert plain(("s3", TableCell("0.7", "good"))) == "s3  0.7"
    assert drawn(("s3", TableCell("0.7", "good"))) == "s3  0.7\n"


@pytest.mark.parametrize("tone", TONES)
def test_a_tone_shows_in_rich_and_never_in_plain_text(tone: str) -> None:
    assert "\x1b[" in drawn((TableCell("x", tone),), colour=True)
    assert plain((TableCell("x", tone),)) == "x"


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    hostile = "s3\x1b[2J\r\n\x9b31m\u202e\ud800"
    assert printable(hostile) == "s3\\x1b[2J\\r\\n\\x9b31m\\u202e\\ud800"
    for block in ((hostile,), Table(hostile, ("backend",), ((hostile,),))):
        assert "\x1b" not in plain(block)
        assert "\x1b" not in drawn(block)


def test_brackets_in_a_name_are_no_markup() -> None:
    name = "[bold red]s3[/] :smile: [/nothing]"
    assert name in drawn((name,))
    assert name in drawn(Table("", ("backend",), ((name,),)))


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=5))
def test_plain_columns_line_up_whatever_stands_in_them(rows: list[tuple[str, str]]) -> None:
    table = Table("", ("name", "end"), tuple((f"{name}|", f"|{end}") for name, end in rows))
    lines = plain(table).splitlines()[1:]
    assert len(lines) == len(rows)
    starts = {columns(line[: line.index("|  ") + 1].ljust(0)) + gap(line) for line in lines if "|  " in line}
    assert len(starts) <= 1


def gap(line: str) -> int:
    rest = line[line.index("|  ") + 1 :]
    return len(rest) - len(rest.lstrip(" "))


def columns(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text if not unicodedata.combining(char))
    return wide + sum(not unicodedata.combining(char) for char in text)


def test_a_narrow_terminal_folds_and_loses_nothing() -> None:
    table = Table("", ("backend",), (("abcdefghijklmnopqrstuvwxyz",),))
    assert "".join(drawn(table, width=12).split()).endswith("abcdefghijklmnopqrstuvwxyz")


def test_a_narrow_terminal_folds_names_before_numbers() -> None:
    table = Table("", ("backend", ">bytes"), (("abcdefghijkl", "1,204,000,000,000"),))
    assert "1,204,000,000,000" in drawn(table, width=24)


@pytest.mark.parametrize(("name", "wide"), [("cafe\u0301", 4), ("東京", 4), ("ab", 2)])
def test_a_column_is_as_wide_as_its_text_looks(name: str, wide: int) -> None:
    _, row = plain(Table("", ("backend", "end"), ((name, "|"),))).splitlines()
    assert row == f"{name}{' ' * (len('backend') - wide)}  |"
