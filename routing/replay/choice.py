"""The router's answer to one row: its choice, and its estimates of the candidates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

from routing.core.factors import REFERENCE, cost_usd
from routing.core.model import Outcome, Query
from routing.replay.columns import TraceRow


class Belief(NamedTuple):
    """The estimate for one backend: expected duration, success probability in [0, 1], cost."""

    expected_ms: float
    success_probability: float
    usd: float


@dataclass(frozen=True, slots=True)
class RouterChoice:
    """The chosen backend, and {candidate: belief} for it and the alternatives.

    If no backend is eligible, `backend_id` is empty and `refusal` says why.
    """

    backend_id: str
    beliefs: Mapping[str, Belief] = field(default_factory=lambda: MappingProxyType({}))
    refusal: str = ""


class UnusableRow(Exception):
    """A row that this decider refuses, for example one with names that it may not discover."""


class Decider(Protocol):
    """A router in this process, or a server.

    Calls come in order of time. `choose` may raise UnusableRow. `teach` returns why the outcome
    was not recorded, or an empty string. `withdraw` cancels a choice that was not carried out,
    after the time that it was expected to take.
    """

    async def choose(self, row: TraceRow) -> RouterChoice: ...

    async def teach(self, outcome: Outcome, *, at: float) -> str: ...

    def withdraw(self, request_id: str) -> None: ...


def dollars(query: Query, cost_score: float) -> float:
    """The cost behind a score of the factor `cost`, which is ref / (ref + dollars).

    Taken from the score, it is the cost that the decision used, even if a server does not
    publish its prices.
    """
    return cost_usd(query, REFERENCE) * (1.0 / cost_score - 1.0)
