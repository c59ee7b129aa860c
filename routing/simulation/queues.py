"""Backends with a fixed number of workers and a queue: first come, first served."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from routing.core.model import Backend
from routing.simulation.workload import Request


@dataclass(frozen=True, slots=True)
class QueueingBackend:
    """A backend whose `workers` each serve one operation at a time, of any size alike; other
    operations wait. `slower` is a factor on the service time `site.latency_ms`."""

    profile: Backend
    site: Backend
    slower: float
    sigma: float
    failure_rate: float
    workers: int
    slows_at: float | None = None

    @property
    def id(self) -> str:
        """The backend's name."""
        return self.profile.id

    def usual_ms(self, request: Request) -> float:  # noqa: ARG002 - as the others
        """Median service time, without waiting."""
        return self.slower * self.site.latency_ms

    def with_profile(self, profile: Backend) -> "QueueingBackend":
        """The same backend under another profile."""
        return replace(self, profile=profile)


class Queues:
    """The queues of one play: when each worker of each backend has finished its operations."""

    def __init__(self, workers: Iterable[tuple[str, int]]) -> None:
        # Heaps, the worker that is free first on top; bounded by the workers.
        self._free_at = {name: [0.0] * count for name, count in workers}

    def waits_ms(self, now: float) -> Mapping[str, float]:
        """How long an operation that arrives now would wait, for backends where it would."""
        return {name: (workers[0] - now) * 1e3 for name, workers in self._free_at.items() if workers[0] > now}

    def add(self, name: str, service_ms: float, now: float) -> float:
        """Takes in an operation, and returns its wait in ms."""
        workers = self._free_at.get(name)
        if workers is None:
            return 0.0
        wait_s = max(workers[0] - now, 0.0)
        heapq.heapreplace(workers, now + wait_s + service_ms / 1e3)
        return wait_s * 1e3
