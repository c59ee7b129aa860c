"""Which eligible backends a decision may choose from: without the suspended ones, within limits."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from routing.core.limits import Limits, limits_of, unmet
from routing.core.model import Backend, Candidate, Query

SUSPENDED = "suspended: it keeps failing"


class Availability(NamedTuple):
    """`backends` are those to choose from; `reasons` says why the others are none of them.
    `waiting` are those that wait for a probe and could have this decision. `gave_way` means
    that no candidate meets the server's own limits, which therefore do not hold. `probe` is
    the waiting backend to probe with this decision, or None; it is one of `backends`.
    """

    backends: list[Backend]
    waiting: tuple[str, ...] = ()
    reasons: Mapping[str, str] = MappingProxyType({})
    gave_way: bool = False
    probe: str | None = None

    def with_probe(self, name: str, eligible: Sequence[Backend]) -> "Availability":
        """The same with a probe of this backend, to which neither suspension nor limits apply."""
        kept = {backend.id for backend in self.backends} | {name}
        return self._replace(
            backends=[backend for backend in eligible if backend.id in kept],
            waiting=tuple(one for one in self.waiting if one != name),
            reasons={one: why for one, why in self.reasons.items() if one != name},
            probe=name,
        )


def availability(
    eligible: Sequence[Backend],
    query: Query,
    *,
    suspended: Collection[str],
    limits: Limits | None,
    means: Sequence[Candidate],
) -> Availability:
    """Applies the request's limits, which hold always; then suspension, which holds while
    another backend is available; then the server's own limits, which hold while one meets them.

    In this order a suspended backend serves only where no other meets the request's limits,
    and the server's own `limits` never bring a suspended one into use. `means` are the
    eligible backends with mean estimates, needed where there are limits.
    """
    unmet_of_request, unmet_of_server = unmet(limits_of(query), query, means), unmet(limits, query, means)
    reasons = {name: one.reason for name, one in unmet_of_request.items()}
    backends = [backend for backend in eligible if backend.id not in unmet_of_request]
    if not all(backend.id in suspended for backend in backends):
        reasons |= {backend.id: SUSPENDED for backend in eligible if backend.id in suspended}
        backends = [backend for backend in backends if backend.id not in suspended]
    within = [backend for backend in backends if backend.id not in unmet_of_server]
    learnable = {name for name, one in unmet_of_request.items() if one.learnable}
    if within:
        out = {
            backend.id: unmet_of_server[backend.id] for backend in backends if backend.id in unmet_of_server
        }
        reasons |= {name: one.reason for name, one in out.items()}
        learnable |= {name for name, one in out.items() if one.learnable}
    waiting = (backend.id for backend in eligible if backend.id in suspended or backend.id in learnable)
    return Availability(
        within or backends, tuple(sorted(waiting)), reasons, gave_way=bool(backends) and not within
    )
