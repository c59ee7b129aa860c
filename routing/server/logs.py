"""Log lines: one event, one line, `key=value` or JSON, to an output that may be full or gone.

A call such as `log.info("server ready address=%s tls=%s", address, tls)` is a fixed
phrase followed by keys. The template tells them apart, so both formats come from the
same call:

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
"""A pipe that polls as writable takes this much without blocking (Linux: one page).
A longer line could stop the event loop for as long as nobody reads the other end."""

MAX_VALUE_CHARACTERS = 512
MAX_TRACEBACK_CHARACTERS = 2_000
"""What one value may hold of a line. Enough for every message of ours and for the last
few frames of a traceback; with more, one value would push the others off the line."""

_KEY = re.compile(r"(\w+)=(%(?:[-+ #0]*\d*(?:\.\d+)?[sdifgr]))")
_PLAIN = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def quoted(text: str) -> str:
    r"""The text as a value of one `key=value` pair: in quotes, and escaped, where it must be.

    >>> print(quoted("s3"), quoted(""), quoted('two "words"\n'))
    s3 "" "two \"words\"\n"
    """
    return text if _PLAIN.fullmatch(text) else one_line(json.dumps(text, ensure_ascii=False))


def one_line(text: str) -> str:
    r"""The text with every character that could break or forge a line escaped.

    >>> print(one_line("a\nb\x1b[0m"))
    a\nb\u001b[0m
    """
    return _BREAKS.sub(lambda found: json.dumps(found.group())[1:-1], text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[:MAX_VALUE_CHARACTERS] + "…"


class Parts:
    """A record taken apart: the fixed phrase, and the values that follow it by key."""

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
    def parts(self, record: logging.LogRecord) -> tuple[str, Parts]:
        """The time in UTC with milliseconds, and the record with its traceback as one more value."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = Parts(record)
        if record.exc_info:
            parts.values["traceback"] = self.formatException(record.exc_info)[-MAX_TRACEBACK_CHARACTERS:]
        return f"{at}.{int(record.msecs):03d}Z", parts


class LogfmtFormatter(_LineFormatter):
    """Time, level, logger and phrase, then `key=value` pairs."""

    def format(self, record: logging.LogRecord) -> str:
        at, parts = self.parts(record)
        said = [at, record.levelname, record.name, one_line(parts.phrase)]
        said += [f"{key}={quoted(str(value))}" for key, value in parts.values.items()]
        return " ".join(said)


class JsonFormatter(_LineFormatter):
    """One JSON object; values that are numbers or booleans stay so."""

    def format(self, record: logging.LogRecord) -> str:
        at, parts = self.parts(record)
        fixed = {"time": at, "level": record.levelname, "logger": record.name, "message": parts.phrase}
        said = fixed | {key: value for key, value in parts.values.items() if key not in fixed}
        return one_line(json.dumps(said, ensure_ascii=False))


FORMATS: Mapping[str, Callable[[], logging.Formatter]] = {"logfmt": LogfmtFormatter, "json": JsonFormatter}


class LossyHandler(logging.Handler):
    """Writes lines to a file descriptor, and rather loses some than stops or ends the process.

    A pipe that nobody reads is asked first whether it takes a line; a full disk or a
    closed output is an error that is swallowed. When the output takes lines again,
    the first one says how many are missing.
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
            # POLLERR and POLLHUP also answer: the write then raises, which is the loss we count.
            return bool(self._poll.poll(0)) and os.write(self._descriptor, line) == len(line)
        except OSError:
            return False

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            text = self.format(record)
        except (TypeError, ValueError) as error:
            # A wrong log call is a bug of its own, and must not take the call that it reports about with it.
            text = f"log record failed template={quoted(str(record.msg))} error={quoted(str(error))}"
        line = text.encode(errors="backslashreplace")
        if len(line) >= MAX_LINE_BYTES:
            line = line[: MAX_LINE_BYTES - 4] + "…".encode()
        return line + b"\n"


def configure(level: str, log_format: str, output: TextIO | None = None) -> None:
    """Sends the log of this package at `level`, and of all others from WARNING up, to `output`.

    Others stay at WARNING whatever the level: hpack's DEBUG lines hold every header's
    value, credentials too, and grpclib's INFO says each cancelled call. Where the
    process was started without an output (`2>&-`), nothing is logged.
    """
    handler: logging.Handler = logging.NullHandler() if output is None else LossyHandler(output.fileno())
    handler.setFormatter(FORMATS[log_format]())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("routing").setLevel(level)
