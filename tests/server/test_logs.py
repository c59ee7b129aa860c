"""Log lines: one event is one line, whatever it holds, and a broken output costs only lines."""

import io
import json
import logging
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.server.run import logs


def record(message: str, *arguments: object, exc_info: object = None) -> logging.LogRecord:
    made = logging.LogRecord("routing.server.run", logging.INFO, __file__, 1, message, arguments, exc_info)  # type: ignore[arg-type]
    made.created, made.msecs = 1_769_860_800.25, 250.0
    return made


def logfmt(message: str, *arguments: object, exc_info: object = None) -> str:
    return logs.LogfmtFormatter().format(record(message, *arguments, exc_info=exc_info))


def as_json(message: str, *arguments: object, exc_info: object = None) -> dict[str, object]:
    return json.loads(logs.JsonFormatter().format(record(message, *arguments, exc_info=exc_info)))


def a_failure() -> object:
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        return sys.exc_info()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose ends may be closed by the test."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


def lossy(descriptor: int) -> logs.LossyHandler:
    handler = logs.LossyHandler(descriptor)
    handler.setFormatter(logs.LogfmtFormatter())
    return handler


def test_a_line_says_time_level_logger_phrase_and_pairs() -> None:
    assert logfmt("server ready address=%s backends=%d", "127.0.0.1:50051", 3) == (
        "2026-01-31T12:00:00.250Z INFO routing.server.run server ready address=127.0.0.1:50051 backends=3"
    )


def test_json_holds_the_same_with_numbers_as_numbers() -> None:
    assert as_json("server ready address=%s backends=%s tls=%s", "[::1]:1", 3, True) == {
        "time": "2026-01-31T12:00:00.250Z",
        "level": "INFO",
        "logger": "routing.server.run",
        "message": "server ready",
        "address": "[::1]:1",
        "backends": 3,
        "tls": True,
    }


def test_a_value_cannot_replace_what_every_line_says() -> None:
    assert as_json("call level=%s", "none")["level"] == "INFO"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", '""'),
        ("two words", '"two words"'),
        ('a"b', '"a\\"b"'),
        ("a=b", '"a=b"'),
        ("a\nb", '"a\\nb"'),
        ("a\x1b[31m", '"a\\u001b[31m"'),
        ("a\u2028b", '"a\\u2028b"'),
        ("größe", "größe"),
    ],
)
def test_a_value_that_could_be_misread_is_quoted(value: str, shown: str) -> None:
    assert logfmt("seen value=%s", value).endswith(f" seen value={shown}")


@given(st.text(), st.text())
def test_whatever_a_value_holds_the_line_stays_one_line(value: str, other: str) -> None:
    for line in (logfmt("seen value=%s", value), logs.JsonFormatter().format(record(other))):
        assert len(line.splitlines()) == 1
        assert line.isprintable() or not any(ord(character) < 32 for character in line)


@given(st.text(max_size=logs.MAX_VALUE_CHARACTERS))
def test_json_gives_every_value_back(value: str) -> None:
    assert as_json("seen value=%s", value)["value"] == value


def test_a_message_of_another_library_is_the_phrase_as_it_is() -> None:
    assert as_json("%s took %d ms", "x\ny", 3)["message"] == "x\ny took 3 ms"
    assert logfmt("100%").endswith(" 100%")


def test_a_traceback_is_a_value_of_its_line() -> None:
    line = logfmt("call failed method=%s", "M", exc_info=a_failure())
    assert len(line.splitlines()) == 1
    assert 'RuntimeError: first\\nsecond"' in line
    assert str(as_json("call failed", exc_info=a_failure())["traceback"]).endswith(
        "RuntimeError: first\nsecond"
    )


def test_a_line_is_never_longer_than_what_a_pipe_takes_without_blocking(pipe: tuple[int, int]) -> None:
    lossy(pipe[1]).handle(record("\x00" * 100_000))
    line = os.read(pipe[0], 100_000)
    assert len(line) <= logs.MAX_LINE_BYTES
    assert line.endswith("…\n".encode())


def test_a_wrong_log_call_is_told_and_costs_nothing_else(pipe: tuple[int, int]) -> None:
    lossy(pipe[1]).handle(record("count %d", "three"))
    assert b"log record failed template=" in os.read(pipe[0], 4096)


def test_an_unread_pipe_loses_lines_and_their_number_is_logged(pipe: tuple[int, int]) -> None:
    handler = lossy(pipe[1])
    while not handler.lost:
        handler.handle(record("filling " + "x" * 500))
    handler.handle(record("lost as well"))
    lost = handler.lost
    os.read(pipe[0], 1 << 20)
    handler.handle(record("read again"))
    lines = os.read(pipe[0], 1 << 20).decode().splitlines()
    assert lost == 2
    assert [line.partition(" ")[2] for line in lines] == [
        "WARNING routing.server.logs log lines lost count=2",
        "INFO routing.server.run read again",
    ]
    assert handler.lost == 0


def test_an_output_whose_reader_left_is_no_error(pipe: tuple[int, int]) -> None:
    handler = lossy(pipe[1])
    os.close(pipe[0])
    handler.handle(record("to nobody"))
    assert handler.lost == 1


def test_a_closed_output_is_no_error(pipe: tuple[int, int]) -> None:
    handler = lossy(pipe[1])
    os.close(pipe[1])
    handler.handle(record("to nobody"))
    handler.handle(record("to nobody"))
    assert handler.lost == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_no_error() -> None:
    with open("/dev/full", "w") as full:
        handler = lossy(full.fileno())
        handler.handle(record("to a full disk"))
    assert handler.lost == 1


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, given back as it was."""
    logger, package = logging.getLogger(), logging.getLogger("routing")
    handlers, level, package_level = list(logger.handlers), logger.level, package.level
    logger.handlers.clear()
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    package.setLevel(package_level)


def test_the_level_is_ours_alone(root: logging.Logger, pipe: tuple[int, int]) -> None:
    with os.fdopen(os.dup(pipe[1]), "w") as output:
        logs.configure("DEBUG", "logfmt", output)
        logging.getLogger("routing.rpc.calls").debug("call method=%s", "M")
        logging.getLogger("hpack.hpack").debug("authorization: secret")
        logging.getLogger("grpclib.server").warning("odd")
    said = os.read(pipe[0], 4096).decode()
    assert "call method=M" in said
    assert "odd" in said
    assert "secret" not in said


def test_without_an_output_nothing_is_logged(root: logging.Logger) -> None:
    logs.configure("INFO", "json", None)
    logging.getLogger("routing.server.run").info("to nobody")
    assert isinstance(root.handlers[0], logging.NullHandler)


def test_an_output_without_a_descriptor_is_refused() -> None:
    with pytest.raises(io.UnsupportedOperation):
        logs.configure("INFO", "json", io.StringIO())
