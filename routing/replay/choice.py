"""What the router answers to one row: its choice, and what it believes of the candidates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

from routing.core.factors import REFERENCE, cost_usd
from routing.core.model import Outcome, Query
from routing.replay.columns import TraceRow


class Belief(NamedTuple):
    """What is expected of one backend: milliseconds, a probability in [0, 1], dollars."""

    expected_ms: float
    success_probability: float
    usd: float


@dataclass(frozen=True, slots=True)
class RouterChoice:
    """The backend that was chosen, and {candidate: belief} for it and the alternatives.

    Where none may serve, `backend_id` is empty and `refusal` says why.
    """

    backend_id: str
    beliefs: Mapping[str, Belief] = field(default_factory=lambda: MappingProxyType({}))
    refusal: str = ""


class UnusableRow(Exception):
    """A row that this decider cannot take, such as one with names that it must not learn."""


class Decider(Protocol):
    """Who chooses: a router in this process, or a server.

    All three are told in the order of time. `choose` may raise UnusableRow. `teach` answers why
    the outcome was not taken in, or nothing. `withdraw` says that a choice was not carried
    out, and has had the time that it would have taken.
    """

    async def choose(self, row: TraceRow) -> RouterChoice: ...

    async def teach(self, outcome: Outcome, *, at: float) -> str: ...

    def withdraw(self, request_id: str) -> None: ...


def dollars(query: Query, cost_score: float) -> float:
    """The dollars behind a score of the factor `cost`: it is ref / (ref + dollars).

    Read from the score, they are those that were decided by, also where a server keeps its
    prices to itself.
    """
    return cost_usd(query, REFERENCE) * (1.0 / cost_score - 1.0)
