"""The real server as a process of its own: started, watched by its log lines, stopped."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

PATIENCE_S = 30.0
"""For one log line or the end of the process; only a failing test waits for so long."""


class ServerProcess:
    """`python -m routing serve` on a loopback port that was free.

    `address` is host:port, from the line that says the server is ready. Every line that
    the process writes to either output is kept in `lines`.
    """

    def __init__(self, *flags: str, environment: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._ended = False
        self.process = run("serve", "--host", "127.0.0.1", "--port", "0", *flags, environment=environment)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address, self.host, self.port = "", "", 0

    def __enter__(self) -> Self:
        try:
            ready = self.wait_for(r"\bserver ready\b")
        except AssertionError:
            self.__exit__(None, None, None)
            raise
        found = re.search(r"\baddress\b\W+?(([\w.]+|\[[\w:]+\]):(\d+))", ready)
        assert found, ready
        self.address, self.host, self.port = found.group(1), found.group(2).strip("[]"), int(found.group(3))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def wait_for(self, pattern: str) -> str:
        """The first line that matches, once it is there."""
        with self._said:
            self._said.wait_for(lambda: self._match(pattern) or self._ended, PATIENCE_S)
        line = self._match(pattern)
        assert line is not None, f"no line matches {pattern!r} in:\n" + "\n".join(self.lines)
        return line

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended by itself and said all it had to say."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal, and waits for the exit code."""
        self.send(number)
        return self.wait()

    def _match(self, pattern: str) -> str | None:
        return next((line for line in list(self.lines) if re.search(pattern, line)), None)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                self._said.notify_all()
        with self._said:
            self._ended = True
            self._said.notify_all()


StartServer = Callable[..., ServerProcess]
"""What the fixture `start_server` gives; not in conftest.py, of which each folder has its own."""


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """A `routing` command as a process; what it writes comes through `stdout`, errors too."""
    return subprocess.Popen(
        [*command(), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=process_environment(environment),
    )


def command() -> Sequence[str]:
    """What starts `routing` with the Python, and the warnings, of the tests."""
    return (sys.executable, "-W", "error", "-m", "routing")


def process_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without ROUTING_* settings, and with our import path: a checkout, or what is installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROUTING_")}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | dict(more or {})
