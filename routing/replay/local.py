"""A router in this process that uses the trace's times."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from routing.clock import RequestClock
from routing.config.options import Settings
from routing.core.factors import FACTORS
from routing.core.model import Outcome, Ranked
from routing.errors import InvalidArgument, LimitReached, NoEligibleBackend
from routing.replay.choice import Belief, RouterChoice, UnusableRow, dollars
from routing.replay.columns import TraceRow
from routing.server.assembly import assemble

_COST = tuple(FACTORS).index("cost")


class LocalDecider:
    """Decides as a fresh server with these settings would. The same seed gives the same choices."""

    def __init__(self, settings: Settings, *, seed: int) -> None:
        # The state file of a server with these settings is neither read nor written.
        stateless = replace(settings, server=replace(settings.server, state=None))
        dice = Random(seed)  # noqa: S311 (explores backends, keeps no secret)
        self._router = assemble(stateless, random=dice, clock=RequestClock()).router

    async def choose(self, row: TraceRow) -> RouterChoice:
        try:
            decision = self._router.select(row.query, now=row.at)
        except NoEligibleBackend as error:
            return RouterChoice("", refusal=error.message)
        except (InvalidArgument, LimitReached) as error:
            raise UnusableRow(error.message) from None
        candidates = (decision.chosen, *decision.others)
        return RouterChoice(decision.chosen.backend_id, self._beliefs(row, candidates))

    async def teach(self, outcome: Outcome, *, at: float) -> str:
        try:
            recorded = self._router.record(outcome, now=at)
        except (InvalidArgument, LimitReached) as error:
            return error.message
        return "" if recorded.recorded else recorded.message

    def withdraw(self, request_id: str) -> None:
        self._router.cancel(request_id)

    def _beliefs(self, row: TraceRow, candidates: tuple[Ranked, ...]) -> Mapping[str, Belief]:
        return {
            one.backend_id: Belief(
                one.estimate.expected_ms,
                one.estimate.success_probability,
                dollars(row.query, one.factor_scores[_COST]),
            )
            for one in candidates
        }
