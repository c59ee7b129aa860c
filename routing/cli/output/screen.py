"""A command's output: tables for people, JSON for scripts, errors, a spinner."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from itertools import cycle
from typing import TYPE_CHECKING, Any, TextIO

from routing.cli.output.tables import Block, TableCell, plain, pretty, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_SPINNER_AFTER_S = 1.0
"""A shorter wait shows no spinner, which would only flicker."""

_SPINNER_FRAME_S = 0.1
_PIPED_WIDTH = 120
"""Width of coloured output that is no terminal; all tables fit."""

View = Callable[[Mapping[str, Any]], tuple[Block, ...]]


class Screen:
    """A command's standard output and error, and what they can display.

    Tables are drawn by rich where it is installed and the output is a terminal (or
    FORCE_COLOR is set); NO_COLOR leaves them without any escape sequence.
    """

    def __init__(self, out: TextIO, err: TextIO, environment: Mapping[str, str]) -> None:
        self.out = out
        self.err = err
        self.as_json = False
        self._environment = environment
        self._terminal = out.isatty() and environment.get("TERM") != "dumb"
        wanted = self._terminal or bool(environment.get("FORCE_COLOR"))
        self._pretty = wanted and find_spec("rich") is not None

    def write(self, text: str) -> None:
        """Writes the text unchanged and flushes, so that the reader of a pipe gets it at once."""
        self.out.write(f"{text}\n")
        self.out.flush()

    def say(self, *parts: str | TableCell) -> None:
        """One line for people; nothing with --json."""
        if not self.as_json:
            self._show((parts,))

    def complain(self, text: str) -> None:
        """One line about what went wrong."""
        self.err.write(f"routing: {printable(text)}\n")

    def answer(self, values: object, *blocks: Block) -> None:
        """The whole result: `values` with --json, the blocks for people."""
        if self.as_json:
            self.write(json.dumps(values, indent=2, default=_jsonable))
        else:
            self._show(blocks)

    @contextmanager
    def updates(self, view: View) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Yields a function that shows an update.

        A terminal shows the newest in place; other outputs get each one below the last, with
        --json as one line.
        """
        if self._pretty and self._terminal and not self.as_json:
            yield from self._in_place(view)
        else:
            yield lambda values: self._below(values, view)

    @contextmanager
    def working(self, label: str | Callable[[], str], *, after_s: float = _SPINNER_AFTER_S) -> Iterator[None]:
        """Shows a spinner on the error stream if the block takes longer than `after_s`. A callable
        label is called for each frame, from another thread, and can show progress."""
        if not self.err.isatty() or self._environment.get("TERM") == "dumb":
            yield
            return
        done = threading.Event()
        spinner = threading.Thread(target=self._spin, args=(label, done, after_s), daemon=True)
        spinner.start()
        try:
            yield
        finally:
            done.set()
            spinner.join()

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yields a function to call with the amount just done; a terminal shows the part of
        the total, on the error stream."""
        if not self.err.isatty() or self._environment.get("TERM") == "dumb":
            yield lambda _: None
        elif find_spec("rich") is not None and not self._environment.get("NO_COLOR"):
            yield from self._bar(label, total)
        else:
            yield from self._counted(label, total)

    def _bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        console = Console(file=self.err, force_terminal=True)
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda more: bar.advance(task, more)

    def _counted(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows whole percents in one line, and clears it at the end."""
        done, shown = 0, -1

        def advance(more: int) -> None:
            nonlocal done, shown
            done += more
            percent = 100 * done // max(total, 1)
            if percent != shown:
                shown = percent
                self.err.write(f"\r{label} {percent} %")
                self.err.flush()

        try:
            yield advance
        finally:
            self.err.write("\r" + " " * (len(label) + 6) + "\r")
            self.err.flush()

    def _spin(self, label: str | Callable[[], str], done: threading.Event, after_s: float) -> None:
        if done.wait(after_s):
            return
        widest = 0
        for frame in cycle("|/-\\"):
            said = f"{frame} {label if isinstance(label, str) else label()}"
            widest = max(widest, len(said))
            self.err.write(f"\r{said:<{widest}}")
            self.err.flush()
            if done.wait(_SPINNER_FRAME_S):
                break
        self.err.write("\r" + " " * widest + "\r")
        self.err.flush()

    def _show(self, blocks: tuple[Block, ...]) -> None:
        if self._pretty:
            self._console().print(*_spaced(blocks), sep="\n")
        else:
            self.write("\n\n".join(map(plain, blocks)))

    def _below(self, values: Mapping[str, Any], view: View) -> None:
        if self.as_json:
            self.write(json.dumps(values, default=_jsonable))
        else:
            self._show((*view(values), ()))

    def _in_place(self, view: View) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        from rich.console import Group
        from rich.live import Live

        with Live(console=self._console(), auto_refresh=False) as live:
            yield lambda values: live.update(Group(*_spaced(view(values))), refresh=True)

    def _console(self) -> "Console":
        from rich.console import Console

        sized = self._terminal or "COLUMNS" in self._environment
        return Console(
            file=self.out,
            force_terminal=True,
            color_system=None if self._environment.get("NO_COLOR") else "standard",
            no_color=False,  # else rich reads NO_COLOR itself, and keeps bold and dim
            width=None if sized else _PIPED_WIDTH,
        )


def _spaced(blocks: tuple[Block, ...]) -> "list[RenderableType]":
    """The blocks for rich, separated by empty lines."""
    drawn: list[RenderableType] = []
    for block in blocks:
        drawn += ["", pretty(block)] if drawn else [pretty(block)]
    return drawn


def _jsonable(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
