"""One operation on one backend, from its start until its outcome is known."""

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

from routing.client.values import Selection
from routing.core.model import Fault, Outcome

_MOST_ERROR_CHARACTERS = 1024
"""The server keeps this many characters of an error; sending more is useless."""


class Trial:
    """The object that a block of `route` receives: the selection, and the outcome to report.

    The block may set `size_bytes` and `duration_ms` to override the request's size and the
    measured time, and `fault` if a failure is not the backend's.
    """

    __slots__ = (
        "_asked",
        "_failure",
        "_fault_of",
        "_started_s",
        "backend_id",
        "duration_ms",
        "fault",
        "selection",
        "size_bytes",
    )

    def __init__(
        self,
        selection: Selection,
        backend_id: str,
        asked: Mapping[str, Any],
        *,
        started_s: float,
        fault: Callable[[Exception], str] | None = None,
    ) -> None:
        self.selection = selection
        self.backend_id = backend_id
        self.size_bytes: int = asked.get("size_bytes", 0)
        self.duration_ms: int | None = None
        self.fault = ""
        self._fault_of = fault
        self._asked = asked
        self._started_s = started_s
        self._failure: str | None = None

    def __repr__(self) -> str:
        verdict = "" if self._failure is None else f", failed: {self._failure}"
        return f"<Trial of {self.backend_id!r}{verdict}>"

    def fail(self, error: str, *, fault: str = "") -> None:
        """Reports a failure although the block does not raise; `fault` as in `record`."""
        self._failure = error
        self.fault = fault

    def outcome(self, raised: BaseException | None, *, now_s: float) -> Outcome | None:
        """The outcome to report; None if the block was cancelled and its result is unknown.

        A BaseException that is no Exception (a cancellation, Ctrl-C, a closed generator)
        comes from outside and says nothing about the backend.
        """
        if raised is not None and not isinstance(raised, Exception):
            return None
        error = self._failure if raised is None else described(raised)
        fault = self.fault
        if raised is not None and self._fault_of is not None and not fault:
            fault = self._fault_of(raised)
        measured_ms = round((now_s - self._started_s) * 1000)
        return Outcome(
            backend_id=self.backend_id,
            success=error is None,
            content_hash=self._asked.get("content_hash", ""),
            content_type=self._asked.get("content_type", ""),
            size_bytes=self.size_bytes,
            duration_ms=measured_ms if self.duration_ms is None else self.duration_ms,
            error=_sendable(error or ""),
            request_id=self.selection.request_id,
            fault=fault or Fault.BACKEND,
        )


def described(error: Exception) -> str:
    """The error's type and message as one text."""
    name, text = type(error).__name__, str(error)
    return f"{name}: {text}" if text else name


def _sendable(text: str) -> str:
    """The text cut to the limit, as valid UTF-8: a path in an OSError may have undecodable bytes."""
    return text[:_MOST_ERROR_CHARACTERS].encode(errors="backslashreplace").decode()


def noted(failures: list[Exception]) -> Exception:
    """The last failure, with a note for each earlier one."""
    *earlier, last = failures
    for error in earlier:
        last.add_note(f"tried before: {described(error)}")
    return last


class Measured:
    """Reports the trial's outcome when the block ends.

    With `failures`, an exception of the block is appended to that list and suppressed.
    """

    __slots__ = ("_clock", "_failures", "_report", "_trial")

    def __init__(
        self,
        trial: Trial,
        report: Callable[[Outcome], Awaitable[None]],
        clock: Callable[[], float],
        failures: list[Exception] | None = None,
    ) -> None:
        self._trial = trial
        self._report = report
        self._clock = clock
        self._failures = failures

    async def __aenter__(self) -> Trial:
        return self._trial

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> bool:
        outcome = self._trial.outcome(raised, now_s=self._clock())
        if outcome is not None:
            await self._report(outcome)
        if self._failures is None or not isinstance(raised, Exception):
            return False
        self._failures.append(raised)
        return True
