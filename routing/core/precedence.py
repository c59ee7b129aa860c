"""Which candidates come after others whatever their scores: full ones, and doubtful holders."""

from collections.abc import Callable, Mapping, Sequence

from routing.core.holders import Holding
from routing.core.model import Candidate, Query

FULL, NO_HOLDER, DOUBTFUL = 1, 2, 4
"""Reasons to come after others. The later ones outweigh all before them: a full holder takes
longer, and a backend that does not have the content fails."""


def precedence(
    query: Query,
    candidates: Sequence[Candidate],
    holding: Holding,
    *,
    silent: Callable[[str, float], bool],
    now: float,
) -> Mapping[str, int]:
    """{candidate: the sum of its reasons to come after others}, without those that have none.

    A candidate is full when as many operations are in flight as its profile allows; unless it
    is `silent`, that is, its clients do not report, and the number is a guess.
    """
    after: dict[str, int] = {}
    for candidate in candidates:
        inflight = candidate.inflight
        if inflight:
            backend = candidate.backend
            most = backend.max_inflight
            if most is not None and inflight >= most and not silent(backend.id, now):
                after[backend.id] = FULL
    known, doubtful = holding
    if known and query.available_backends:
        for candidate in candidates:
            if candidate.backend.id not in known:
                after[candidate.backend.id] = after.get(candidate.backend.id, 0) + NO_HOLDER
    for name in doubtful:
        after[name] = after.get(name, 0) + DOUBTFUL
    return after
