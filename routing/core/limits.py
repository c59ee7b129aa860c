"""Limits on cost, time and probability of success, and which candidates do not meet them."""

from collections.abc import Iterable
from typing import NamedTuple

from routing.core.factors import cost_usd
from routing.core.model import Candidate, Query


class Limits(NamedTuple):
    """What one operation may cost and take, and how probable its success must be; None is no limit."""

    max_cost_usd: float | None = None
    max_ms: float | None = None
    min_success: float | None = None


class Unmet(NamedTuple):
    """Why a candidate does not meet the limits. `learnable` means that outcomes could
    change that, so the backend is worth a probe now and then; prices they do not change."""

    reason: str
    learnable: bool


def limits_of(query: Query) -> Limits | None:
    """The request's own limits; None if it has none."""
    if query.max_cost_usd is None and query.max_ms is None and query.min_success is None:
        return None
    return Limits(query.max_cost_usd, query.max_ms, query.min_success)


def unmet(limits: Limits | None, query: Query, candidates: Iterable[Candidate]) -> dict[str, Unmet]:
    """{backend that does not meet the limits: why}. Candidates carry mean estimates, so that
    no draw rules out a backend."""
    found: dict[str, Unmet] = {}
    if limits is None:
        return found
    for candidate in candidates:
        reasons = []
        usd = cost_usd(query, candidate.backend)
        dear = limits.max_cost_usd is not None and usd > limits.max_cost_usd
        if dear:
            reasons.append(f"costs ${usd:.6g}, more than max_cost_usd {limits.max_cost_usd:g}")
        expected_ms, success = candidate.estimate.expected_ms, candidate.estimate.success_probability
        if limits.max_ms is not None and expected_ms > limits.max_ms:
            reasons.append(f"is expected to take {expected_ms:,.0f} ms, more than max_ms {limits.max_ms:g}")
        if limits.min_success is not None and success < limits.min_success:
            reasons.append(
                f"succeeds with probability {success:.6f}, less than min_success {limits.min_success:g}"
            )
        if reasons:
            found[candidate.backend.id] = Unmet(" and ".join(reasons), learnable=not dear)
    return found
