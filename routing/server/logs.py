"""Formats log records as one line each, `key=value` or JSON, and writes them without blocking.

A call such as `log.info("server ready address=%s tls=%s", address, tls)` is a fixed
phrase followed by keys. The formatters parse the template, so one call serves both formats:

    2026-01-31T12:00:00.000Z INFO routing.server.run server ready address=127.0.0.1:50051 tls=off
    {"time": "2026-01-31T12:00:00.000Z", "level": "INFO", "logger": "routing.server.run",
     "message": "server ready", "address": "127.0.0.1:50051", "tls": "off"}
"""

import json
import logging
import os
import re
import select
import time
from collections.abc import Callable, Mapping
from typing import TextIO

MAX_LINE_BYTES = 4096
"""A pipe that polls as writable accepts this much without blocking (Linux: one page).
A longer line could block the event loop until the reader continues."""

MAX_VALUE_CHARACTERS = 512
MAX_TRACEBACK_CHARACTERS = 2_000
"""The longest value and traceback in a line. Enough for every message of ours and for the last few
frames of a traceback; a longer value would leave no room for the others."""

_KEY = re.compile(r"(\w+)=(%(?:[-+ #0]*\d*(?:\.\d+)?[sdifgr]))")
_UNQUOTED = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def quoted(text: str) -> str:
    r"""The text as the value of a `key=value` pair, quoted and escaped if necessary.

    >>> print(quoted("s3"), quoted(""), quoted('two "words"\n'))
    s3 "" "two \"words\"\n"
    """
    return text if _UNQUOTED.fullmatch(text) else one_line(json.dumps(text, ensure_ascii=False))


def one_line(text: str) -> str:
    r"""The text with all control characters and line separators escaped, so no value can forge a line.

    >>> print(one_line("a\nb\x1b[0m"))
    a\nb\u001b[0m
    """
    return _CONTROL_CHARACTERS.sub(lambda found: json.dumps(found.group())[1:-1], text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[:MAX_VALUE_CHARACTERS] + "…"


class ParsedRecord:
    """A log record as its fixed phrase and its values by key."""

    __slots__ = ("phrase", "values")

    def __init__(self, record: logging.LogRecord) -> None:
        template, arguments = str(record.msg), record.args
        keys = _KEY.findall(template)
        fits = isinstance(arguments, tuple) and keys and len(keys) == len(arguments) == template.count("%")
        if fits and isinstance(arguments, tuple):
            self.phrase = template[: template.index(f"{keys[0][0]}={keys[0][1]}")].rstrip()
            self.values = {
                key: value
                if form in ("%s", "%d") and isinstance(value, int | float)
                else _cut(form % (value,))
                for (key, form), value in zip(keys, arguments, strict=True)
            }
        else:
            self.phrase = _cut(record.getMessage())
            self.values = {}


class _LineFormatter(logging.Formatter):
    def parse(self, record: logging.LogRecord) -> tuple[str, ParsedRecord]:
        """The time in UTC with milliseconds, and the parsed record, a traceback among its values."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parsed = ParsedRecord(record)
        if record.exc_info:
            parsed.values["traceback"] = self.formatException(record.exc_info)[-MAX_TRACEBACK_CHARACTERS:]
        return f"{at}.{int(record.msecs):03d}Z", parsed


class LogfmtFormatter(_LineFormatter):
    """Time, level, logger and phrase, then `key=value` pairs."""

    def format(self, record: logging.LogRecord) -> str:
        at, parsed = self.parse(record)
        line = [at, record.levelname, record.name, one_line(parsed.phrase)]
        line += [f"{key}={quoted(str(value))}" for key, value in parsed.values.items()]
        return " ".join(line)


class JsonFormatter(_LineFormatter):
    """One JSON object; numbers and booleans keep their types."""

    def format(self, record: logging.LogRecord) -> str:
        at, parsed = self.parse(record)
        fixed = {"time": at, "level": record.levelname, "logger": record.name, "message": parsed.phrase}
        line = fixed | {key: value for key, value in parsed.values.items() if key not in fixed}
        return one_line(json.dumps(line, ensure_ascii=False))


FORMATS: Mapping[str, Callable[[], logging.Formatter]] = {"logfmt": LogfmtFormatter, "json": JsonFormatter}


class LossyHandler(logging.Handler):
    """Writes lines to a file descriptor; drops lines instead of blocking or raising.

    It polls the descriptor first, so a pipe without a reader does not block, and ignores the errors
    of a full disk or a closed output. The first line that can be written again is preceded by the
    number of lost lines.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self.lost:
            note = logging.LogRecord(
                __name__, logging.WARNING, __file__, 0, "log lines lost count=%s", (self.lost,), None
            )
            if not self._write(note):
                self.lost += 1
                return
            self.lost = 0
        if not self._write(record):
            self.lost += 1

    def _write(self, record: logging.LogRecord) -> bool:
        line = self._line(record)
        try:
            # poll also returns for POLLERR and POLLHUP; the write then raises, which counts as a lost line.
            return bool(self._poll.poll(0)) and os.write(self._descriptor, line) == len(line)
        except OSError:
            return False

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            text = self.format(record)
        except (TypeError, ValueError) as error:
            # A wrong log call is a bug, but it must not fail the RPC that logs.
            text = f"log record failed template={quoted(str(record.msg))} error={quoted(str(error))}"
        line = text.encode(errors="backslashreplace")
        if len(line) >= MAX_LINE_BYTES:
            line = line[: MAX_LINE_BYTES - 4] + "…".encode()
        return line + b"\n"


def configure(level: str, log_format: str, output: TextIO | None = None) -> None:
    """Sends this package's records from `level` up, and all others from WARNING up, to `output`.

    Other packages stay at WARNING whatever the level: hpack's DEBUG records contain the values of
    all headers, credentials included, and grpclib logs each cancelled call at INFO. If the process
    has no standard error (`2>&-`), nothing is logged.
    """
    handler: logging.Handler = logging.NullHandler() if output is None else LossyHandler(output.fileno())
    handler.setFormatter(FORMATS[log_format]())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("routing").setLevel(level)
