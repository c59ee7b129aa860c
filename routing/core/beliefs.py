"""The section `learned`: what was learned about each backend, with intervals, as plain values.

It gives estimates for a small and a large object of unknown type and a client at an unknown
place: the small one shows the learned latency, the large one the learned throughput.
"""

from math import exp
from types import MappingProxyType
from typing import Any

from routing.core.learning.context import context_of
from routing.core.model import Backend
from routing.core.router import Router

SIZES = MappingProxyType({"small": 64 << 10, "large": 1 << 30})
"""64 KiB takes 3 ms at the reference speed, a fiftieth of the reference latency; 1 GiB takes 43
seconds, three hundred times as long."""

SPREADS_OF_90_PERCENT = 1.645
"""A normal distribution has 90 % within so many standard deviations of its mean, so an interval
is wrong for one backend in ten. Two standard deviations would look much less certain than the
decisions are; one would be wrong for every third backend."""


def learned(router: Router, *, now: float) -> dict[str, Any]:
    """{backend: its estimates}, as proto/routing.proto describes the section `learned`."""
    now = router.advance(now)
    backends = sorted(router.backends, key=lambda backend: backend.id)
    return {backend.id: _row(router, backend, now) for backend in backends}


def _row(router: Router, backend: Backend, now: float) -> dict[str, Any]:
    learning = router.learning
    row: dict[str, Any] = {
        "state": router.state(backend.id).value,
        "outcomes": learning.outcomes(backend.id),
    }
    for name, size_bytes in SIZES.items():
        context = context_of(None, None, "", size_bytes)
        estimate = learning.estimate(backend, context, size_bytes, None, now=now)
        log_spread, rate_spread = learning.uncertainty(backend, context, size_bytes, None, now=now)
        factor = exp(SPREADS_OF_90_PERCENT * log_spread)
        row[f"{name}_ms"] = estimate.expected_ms
        row[f"{name}_low_ms"] = estimate.expected_ms / factor
        row[f"{name}_high_ms"] = estimate.expected_ms * factor
        row[f"{name}_prior_ms"] = estimate.prior_ms
    # The probability of success does not depend on the size.
    rate, margin = estimate.success_probability, SPREADS_OF_90_PERCENT * rate_spread
    failed_at = learning.last_failure_at(backend.id)
    return row | {
        "speed_evidence": estimate.evidence.speed,
        "success_probability": rate,
        "success_low": max(0.0, rate - margin),
        "success_high": min(1.0, rate + margin),
        "prior_success": estimate.prior_success,
        "success_evidence": estimate.evidence.success,
        "seconds_since_failure": None if failed_at is None else now - failed_at,
    }
