"""Valid things for the tests of the core: each test changes the one field that matters."""

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from routing.core.model import Backend, Candidate, Decision, Estimate, Outcome, Query, Recorded
from routing.core.router import Router

NOON = 1_700_000_000.0
"""A moment in November 2023, 13 minutes and 20 seconds after the hour."""


def estimate(expected_ms: float = 200.0, success_probability: float = 0.95) -> Estimate:
    """A belief that is all profile."""
    return Estimate(expected_ms, success_probability, expected_ms, success_probability)


def numbers(estimate: Estimate) -> tuple[float, ...]:
    """All that is in it, in one row."""
    return (*estimate[:4], *estimate.evidence)


def candidate(
    backend: Backend | None = None,
    *,
    expected_ms: float = 200.0,
    success_probability: float = 0.95,
    inflight: int = 0,
    distance_km: float | None = None,
) -> Candidate:
    """A backend that may serve a query."""
    return Candidate(
        backend or Backend("a"), estimate(expected_ms, success_probability), inflight, distance_km
    )


def router(backends: Iterable[Backend | str] = ("a", "b", "c"), *, seed: int = 0, **options: Any) -> Router:
    """A router that knows these backends; a bare name stands for a neutral profile."""
    profiles = [Backend(one) if isinstance(one, str) else one for one in backends]
    return Router(profiles, random=Random(seed), **options)


class Clock:
    """A router with the time that goes by around it.

    It keeps what the tests are not about out of their way: a `select` names its request,
    `fail` and `succeed` report outcomes of the chosen backend, or of one by name.
    """

    def __init__(self, subject: Router, *, now: float = NOON) -> None:
        self.router = subject
        self.now = now
        self.requests = 0

    def select(self, **fields: Any) -> Decision:
        """The decision on a query with these fields, under a request id of its own."""
        self.requests += 1
        fields.setdefault("request_id", f"request-{self.requests}")
        return self.router.select(Query(**fields), now=self.now)

    def record(self, backend_id: str, success: bool, **fields: Any) -> Recorded:
        """One outcome."""
        return self.router.record(Outcome(backend_id, success, **fields), now=self.now)

    def fail(self, backend_id: str, times: int = 1, **fields: Any) -> None:
        """So many failures, one after the other."""
        for _ in range(times):
            self.record(backend_id, False, **fields)

    def succeed(self, backend_id: str, times: int = 1, **fields: Any) -> None:
        """So many successes, one after the other."""
        for _ in range(times):
            self.record(backend_id, True, **fields)

    def snapshot(self) -> dict[str, Any]:
        """All that the router remembers."""
        return self.router.snapshot(now=self.now)


def merged(snapshots: Iterable[Mapping[str, Any]], *, now: float, **options: Any) -> Router:
    """A fresh router that took in these snapshots, in this order."""
    fresh = router(**options)
    for one in snapshots:
        fresh.merge(one, now=now)
    return fresh
