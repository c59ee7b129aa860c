"""Tables of a command's output, rendered as plain text or with rich."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

TONES: Mapping[str, str] = {
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
    "strong": "bold",
    "dim": "dim",
}
"""Tone of a cell → style in rich. Plain tables show only the text."""


@dataclass(frozen=True, slots=True)
class TableCell:
    """A cell's text and its tone (a key of TONES, or empty)."""

    text: str
    tone: str = ""


TableRow = tuple[str | TableCell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A column whose name starts with ">" is aligned to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


Block = Table | TableRow
"""A unit of output: a table, or one line of cells."""


def cells(row: TableRow) -> tuple[TableCell, ...]:
    """The row's cells, with printable text."""
    given = (each if isinstance(each, TableCell) else TableCell(each) for each in row)
    return tuple(TableCell(printable(each.text), each.tone) for each in given)


def printable(text: str) -> str:
    """The text with control characters (escapes, line ends) written as escape sequences.

    >>> print(printable("s3" + chr(27) + "[2J"))
    s3\\x1b[2J
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def plain(block: Block) -> str:
    """The block as aligned text, two spaces between columns, no space at a line's end.

    >>> print(plain(Table("sizes", ("name", ">bytes"), (("a", "12"), ("total", "1,204")))))
    sizes
    name   bytes
    a         12
    total  1,204
    """
    if not isinstance(block, Table):
        return "  ".join(cell.text for cell in cells(block))
    header = tuple(printable(column.removeprefix(">")) for column in block.columns)
    lines = [header, *(tuple(cell.text for cell in cells(row)) for row in block.rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    right = [column.startswith(">") for column in block.columns]
    body = [_line(line, widths, right) for line in lines]
    return "\n".join([printable(block.title), *body] if block.title else body)


def _line(texts: Sequence[str], widths: Iterable[int], right: Iterable[bool]) -> str:
    return "  ".join(map(_aligned, texts, widths, right)).rstrip()


def _aligned(text: str, width: int, right: bool) -> str:
    padding = " " * (width - _width(text))
    return padding + text if right else text + padding


def _width(text: str) -> int:
    """The text's width in terminal columns; East Asian wide characters take two."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def pretty(block: Block) -> "RenderableType":
    """The block for rich's console."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    if not isinstance(block, Table):
        return Text("  ").join(map(_text, cells(block)))
    shown = RichTable(
        title=Text(printable(block.title), style="bold") if block.title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in block.columns:
        number = column.startswith(">")
        shown.add_column(
            _text(TableCell(printable(column.removeprefix(">")))),
            justify="right" if number else "left",
            no_wrap=number,  # half a number is worse than half a name
            overflow="fold",
        )
    for row in block.rows:
        shown.add_row(*map(_text, cells(row)))
    return shown


def _text(cell: TableCell) -> "Text":
    """A Text, because rich would read "[...]" in a str as markup."""
    from rich.text import Text

    return Text(cell.text, style=TONES.get(cell.tone, ""))
