"""Output is for people where people look, and plain where a program reads."""

import io
import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from routing.cli.output import screen as screen_module
from routing.cli.output.screen import Screen
from routing.cli.output.tables import Table, TableCell

TABLE = Table("prices", ("backend", ">dollars"), (("s3", TableCell("0.023", "good")),))


class Terminal(io.StringIO):
    """Text that somebody looks at; `written` is set once there is some."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


def shown(out: io.StringIO, **environment: str) -> str:
    Screen(out, io.StringIO(), {"TERM": "xterm", **environment}).answer(
        {"s3": 0.023}, TABLE, ("that is all",)
    )
    return out.getvalue()


def test_a_pipe_gets_aligned_text() -> None:
    assert shown(io.StringIO()) == "prices\nbackend  dollars\ns3         0.023\n\nthat is all\n"


def test_a_terminal_gets_lines_and_colour() -> None:
    said = shown(Terminal())
    assert "\x1b[32m  0.023" in said
    assert "─" in said


def test_no_color_leaves_no_escape_sequence_at_all() -> None:
    said = shown(Terminal(), NO_COLOR="1")
    assert "─" in said
    assert "\x1b" not in said


def test_an_empty_no_color_or_force_color_counts_as_not_set() -> None:
    assert "\x1b[32m" in shown(Terminal(), NO_COLOR="")
    assert "\x1b" not in shown(io.StringIO(), FORCE_COLOR="")


def test_force_color_colours_a_pipe_and_no_color_beats_it() -> None:
    assert "\x1b[32m  0.023" in shown(io.StringIO(), FORCE_COLOR="1")
    assert "\x1b" not in shown(io.StringIO(), FORCE_COLOR="1", NO_COLOR="1")


def test_only_the_environment_that_it_is_given_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[32m  0.023" in shown(Terminal())


def test_a_dumb_terminal_gets_aligned_text() -> None:
    assert shown(Terminal(), TERM="dumb") == shown(io.StringIO())


def test_a_terminal_without_rich_gets_aligned_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen_module, "find_spec", lambda name: None)
    assert shown(Terminal()) == shown(io.StringIO())


def test_json_is_all_that_is_said() -> None:
    out = io.StringIO()
    screen = Screen(out, io.StringIO(), {})
    screen.as_json = True
    screen.say("not this")
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    screen.answer({"at": at, "tags": frozenset({"b", "a"})}, TABLE)
    assert json.loads(out.getvalue()) == {"at": "2026-03-01T12:00:00+00:00", "tags": ["a", "b"]}


def test_what_has_no_json_is_a_mistake_of_ours() -> None:
    screen = Screen(io.StringIO(), io.StringIO(), {})
    screen.as_json = True
    with pytest.raises(TypeError, match="no JSON for object"):
        screen.answer(object())


def updated(out: io.StringIO, *, as_json: bool = False) -> str:
    screen = Screen(out, io.StringIO(), {"TERM": "xterm"})
    screen.as_json = as_json

    def view(values: Mapping[str, object]) -> tuple[Table | tuple[str, ...], ...]:
        return ((f"update {values['number']}",), TABLE)

    with screen.updates(view) as show:
        show({"number": 1})
        show({"number": 2})
    return out.getvalue()


def test_updates_in_a_pipe_follow_one_another() -> None:
    block = "prices\nbackend  dollars\ns3         0.023\n"
    assert updated(io.StringIO()) == f"update 1\n\n{block}\n\nupdate 2\n\n{block}\n\n"


def test_json_updates_are_one_line_each() -> None:
    lines = updated(io.StringIO(), as_json=True).splitlines()
    assert [json.loads(line) for line in lines] == [{"number": 1}, {"number": 2}]


def test_a_terminal_shows_the_newest_update_in_place() -> None:
    said = updated(Terminal())
    assert said.index("update 1") < said.index("\x1b[1A") < said.index("update 2")
    assert said.endswith("\x1b[?25h"), "the cursor must be back"


def test_a_complaint_is_one_line_of_the_error_stream() -> None:
    err = io.StringIO()
    Screen(io.StringIO(), err, {}).complain("no\nsuch \x1b[31mbackend")
    assert err.getvalue() == "routing: no\\nsuch \\x1b[31mbackend\n"


def test_a_spinner_turns_while_a_person_waits_and_leaves_nothing() -> None:
    err = Terminal()
    with Screen(io.StringIO(), err, {"TERM": "xterm"}).working("asking s3", after_s=0.0):
        assert err.written.wait(10)
    said = err.getvalue()
    assert said.startswith("\r| asking s3")
    assert said.endswith("\r           \r")


def test_a_spinner_asks_again_and_again_how_far_it_is_and_wipes_all_of_it() -> None:
    said = iter(["1 of 10 rows", "9 rows"])
    enough = threading.Event()

    def how_far() -> str:
        label = next(said, None)
        if label is None:
            enough.set()
        return label or "all"

    err = Terminal()
    with Screen(io.StringIO(), err, {"TERM": "xterm"}).working(how_far, after_s=0.0):
        assert enough.wait(10)
    assert err.getvalue().startswith("\r| 1 of 10 rows\r/ 9 rows      \r- all")
    assert err.getvalue().endswith("\r" + " " * len("| 1 of 10 rows") + "\r")


def test_no_spinner_turns_for_what_is_quick() -> None:
    err = Terminal()
    with Screen(io.StringIO(), err, {"TERM": "xterm"}).working("asking s3", after_s=3600.0):
        pass
    assert err.getvalue() == ""


@pytest.mark.parametrize(("err", "term"), [(io.StringIO(), "xterm"), (Terminal(), "dumb")])
def test_no_spinner_turns_where_nobody_sees_it(err: io.StringIO, term: str) -> None:
    before = threading.active_count()
    with Screen(io.StringIO(), err, {"TERM": term}).working("asking s3", after_s=0.0):
        assert threading.active_count() == before
    assert err.getvalue() == ""


def test_a_spinner_ends_when_the_work_fails() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), Screen(io.StringIO(), Terminal(), {"TERM": "xterm"}).working("asking s3"):
        raise KeyError
    assert threading.active_count() == before


def test_a_bar_shows_how_much_is_done_and_leaves_nothing_to_read() -> None:
    err = Terminal()
    with Screen(io.StringIO(), err, {"TERM": "xterm"}).progress("simulating", 4) as advance:
        for _ in range(4):
            advance(1)
    assert "simulating" in err.getvalue()
    assert "100%" in err.getvalue()
    assert err.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {}])
def test_without_rich_or_colours_percents_do(
    environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not environment:
        monkeypatch.setattr(screen_module, "find_spec", lambda _: None)
    err = Terminal()
    with Screen(io.StringIO(), err, {"TERM": "xterm", **environment}).progress("simulating", 4) as advance:
        for _ in range(4):
            advance(1)
    shares = "".join(f"\rsimulating {percent} %" for percent in (25, 50, 75, 100))
    assert err.getvalue() == f"{shares}\r                \r"


@pytest.mark.parametrize(("err", "term"), [(io.StringIO(), "xterm"), (Terminal(), "dumb")])
def test_no_progress_is_shown_where_nobody_sees_it(err: io.StringIO, term: str) -> None:
    with Screen(io.StringIO(), err, {"TERM": term}).progress("simulating", 4) as advance:
        advance(4)
    assert err.getvalue() == ""


def test_a_bar_is_cleared_when_the_work_is_interrupted() -> None:
    err = Terminal()
    with (
        pytest.raises(KeyboardInterrupt),
        Screen(io.StringIO(), err, {"TERM": "xterm", "NO_COLOR": "1"}).progress("simulating", 4) as advance,
    ):
        advance(1)
        raise KeyboardInterrupt
    assert err.getvalue().endswith("\r                \r")
