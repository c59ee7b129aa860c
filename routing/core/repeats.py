"""Which outcomes were reported within the last hour, so that a repeat is not counted again."""

from collections import deque
from math import inf
from typing import Any

MAX_REPORTED = 200_000
"""The contract's number of requests whose outcomes are recognised, some 40 MB at most: at 50
outcomes a second those of an hour."""

RECOGNISED_S = 3600.0
"""The contract's hour. A client that retries a report does so within minutes."""

MAX_REPORTED_BACKENDS = 33
"""Backends recognised for one request: the chosen one and the contract's 32 alternatives. No
well-behaved client tries more."""


class Repeats:
    """{request_id: the backends of which an outcome was reported}, the oldest out first."""

    def __init__(self, *, max_reported: int = MAX_REPORTED) -> None:
        self._max_reported = max_reported
        # {request_id: (when it was first reported, backend, …)}.
        self._reported: dict[str, tuple[Any, ...]] = {}
        # (when, request_id) in order; an entry is stale if the request was decided anew.
        self._order: deque[tuple[float, str]] = deque()

    def __repr__(self) -> str:
        return f"Repeats(requests={len(self._reported)})"

    def __len__(self) -> int:
        return len(self._reported)

    def known(self, request_id: str, backend_id: str) -> bool:
        """Whether an outcome of this request on this backend was reported before."""
        reported = self._reported.get(request_id)
        return reported is not None and backend_id in reported[1:]

    def note(self, request_id: str, backend_id: str, *, now: float) -> None:
        """An outcome of this request was reported."""
        reported = self._reported.get(request_id)
        if reported is not None:
            self._reported[request_id] = (reported[0], *reported[1:][1 - MAX_REPORTED_BACKENDS :], backend_id)
            return
        self._reported[request_id] = now, backend_id
        self._order.append((now, request_id))
        if len(self._order) > self._max_reported:
            self._forget_oldest()

    def note_decided(self, request_id: str) -> None:
        """The request was decided anew: what is reported from now on is no repeat."""
        self._reported.pop(request_id, None)

    def expire(self, now: float) -> None:
        """Forgets what was reported more than an hour ago."""
        while self._order and self._order[0][0] <= now - RECOGNISED_S:
            self._forget_oldest()

    @property
    def next_at(self) -> float:
        """Nothing expires before."""
        return self._order[0][0] + RECOGNISED_S if self._order else inf

    def snapshot(self) -> list[list[Any]]:
        """Rows of when, request_id and backends, the oldest first."""
        return sorted([reported[0], name, *reported[1:]] for name, reported in self._reported.items())

    def merge(self, rows: list[list[Any]]) -> None:
        """Adds the rows of a snapshot."""
        reported = dict(self._reported)
        for at, name, *backends in rows:
            mine = reported.get(name)
            if mine is None:
                reported[name] = at, *backends
            else:
                union = sorted({*mine[1:], *backends})[-MAX_REPORTED_BACKENDS:]
                reported[name] = min(at, mine[0]), *union
        latest = sorted(reported.items(), key=lambda item: (item[1][0], item[0]))[-self._max_reported :]
        self._reported = dict(latest)
        self._order = deque((entry[0], name) for name, entry in latest)

    def _forget_oldest(self) -> None:
        at, request_id = self._order.popleft()
        reported = self._reported.get(request_id)
        if reported is not None and reported[0] == at:
            del self._reported[request_id]
