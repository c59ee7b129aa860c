"""What the router would have done against what was done, added up row by row.

What is *seen* are the trace's own outcomes. For the router they count where its choice agrees
with the logged one: the replay method of Li, Chu, Langford and Wang, "Unbiased offline
evaluation of contextual-bandit-based news article recommendation algorithms", WSDM 2011. Where
the trace tells with which probability each choice was made, an outcome counts by the inverse
of it.

What is *modelled* are list prices, and what the router believed at that moment about both
choices. Neither ever stands in for the other.
"""

from typing import Any

from routing.replay.choice import Belief, RouterChoice
from routing.replay.columns import TraceRow
from routing.replay.estimates import Mean, ObservedOutcomes


class BackendTally:
    """One backend: how often it was chosen, by whom, and what was seen of it."""

    __slots__ = ("agreed", "logged", "router", "seen")

    def __init__(self) -> None:
        self.logged = self.router = self.agreed = 0
        self.seen = ObservedOutcomes()


class Modelled:
    """Sums of beliefs about one side's choices."""

    __slots__ = ("expected_ms", "success_probability", "usd")

    def __init__(self) -> None:
        self.expected_ms, self.success_probability, self.usd = Mean(), Mean(), 0.0

    def add(self, belief: Belief) -> None:
        """Takes in what is believed of one choice."""
        self.expected_ms.add(belief.expected_ms)
        self.success_probability.add(belief.success_probability)
        self.usd += belief.usd

    def values(self) -> dict[str, Any]:
        """Sums and means; None of nothing."""
        return {
            "usd": self.usd,
            "expected_ms": self.expected_ms.value,
            "success_probability": self.success_probability.value,
        }


class Evaluation:
    """Grows with the backends that are named, and with nothing else."""

    def __init__(self) -> None:
        self.rows = self.agreed = self.refused = self.not_offered = 0
        self.taught = self.untaught = 0
        self.first_at = self.last_at = 0.0
        self.first_refusal = self.first_untaught = ""
        self._weights = Mean()
        self._logged, self._router = ObservedOutcomes(), ObservedOutcomes()
        self._both = 0
        self._logged_modelled, self._router_modelled = Modelled(), Modelled()
        self._backends: dict[str, BackendTally] = {}

    def note(self, row: TraceRow, choice: RouterChoice) -> bool:
        """Takes in one row with the router's answer; whether the two agree."""
        self.first_at = self.first_at if self.rows else row.at
        self.last_at = row.at
        self.rows += 1
        agree = choice.backend_id == row.backend_id
        self._note_backends(row, choice, agree)
        if row.outcome is not None:
            self._logged.add(row.outcome.success, row.outcome.duration_ms)
        if not choice.backend_id:
            self.refused += 1
            self.first_refusal = self.first_refusal or choice.refusal
            return False
        self._note_weight(row, agree)
        self._note_modelled(row, choice)
        return agree

    def note_taught(self, why_not: str) -> None:
        """Takes in whether the router took in an outcome."""
        self.taught += not why_not
        self.untaught += bool(why_not)
        self.first_untaught = self.first_untaught or why_not

    def _note_backends(self, row: TraceRow, choice: RouterChoice, agree: bool) -> None:
        logged = self._tally(row.backend_id)
        logged.logged += 1
        logged.agreed += agree
        if row.outcome is not None:
            logged.seen.add(row.outcome.success, row.outcome.duration_ms)
        if choice.backend_id:
            self._tally(choice.backend_id).router += 1

    def _note_weight(self, row: TraceRow, agree: bool) -> None:
        """Weights of all rows have the mean 1 where the propensities are right: a choice of
        probability p is seen in a share p of the cases, and counts 1/p."""
        weight = 1.0 / (row.propensity or 1.0) if agree else 0.0
        self._weights.add(weight)
        self.agreed += agree
        if agree and row.outcome is not None:
            self._router.add(row.outcome.success, row.outcome.duration_ms, weight)

    def _note_modelled(self, row: TraceRow, choice: RouterChoice) -> None:
        """Both sides or neither, so that the same rows are compared."""
        done = choice.beliefs.get(row.backend_id)
        if done is None:
            self.not_offered += 1
            return
        self._both += 1
        self._logged_modelled.add(done)
        self._router_modelled.add(choice.beliefs[choice.backend_id])

    def _tally(self, backend_id: str) -> BackendTally:
        tally = self._backends.get(backend_id)
        if tally is None:
            tally = self._backends[backend_id] = BackendTally()
        return tally

    def values(self, *, weighted: bool) -> dict[str, Any]:
        """All of it as plain values, as docs/replay.md describes them."""
        decided = self.rows - self.refused
        return {
            "rows": self.rows,
            "agreed": self.agreed,
            "agreed_share": self.agreed / decided if decided else None,
            "taught": self.taught,
            "untaught": self.untaught,
            "first_untaught": self.first_untaught,
            "refused": self.refused,
            "first_refusal": self.first_refusal,
            "not_offered": self.not_offered,
            "weighted": weighted,
            "mean_weight": self._weights.value if weighted else None,
            "mean_weight_error": self._weights.error if weighted else None,
            "seen": {"logged": self._logged.values(), "router": self._router.values()},
            "modelled": {
                "rows": self._both,
                "logged": self._logged_modelled.values(),
                "router": self._router_modelled.values(),
            },
            "backends": {name: self._row(name) for name in sorted(self._backends)},
        }

    def _row(self, name: str) -> dict[str, Any]:
        tally = self._backends[name]
        decided = self.rows - self.refused
        return {
            "logged": tally.logged,
            "logged_share": tally.logged / self.rows,
            "router": tally.router,
            "router_share": tally.router / decided if decided else None,
            "agreed": tally.agreed,
            **tally.seen.values(),
        }
