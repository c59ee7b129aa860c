"""Compares the router's choices with the logged ones, row by row.

*Seen* figures are the trace's own outcomes. For the router they count where its choice agrees
with the logged one: the replay method of Li, Chu, Langford and Wang, "Unbiased offline
evaluation of contextual-bandit-based news article recommendation algorithms", WSDM 2011. If
the trace has the propensity of each choice, outcomes are weighted by its inverse.

*Modelled* figures are list prices and the router's estimates at that moment for both choices.
Seen and modelled figures are never mixed.
"""

from typing import Any

from routing.replay.choice import Belief, RouterChoice
from routing.replay.columns import TraceRow
from routing.replay.estimates import Mean, ObservedOutcomes


class BackendTally:
    """One backend: how often the log and the router chose it, and its observed outcomes."""

    __slots__ = ("agreed", "logged", "router", "seen")

    def __init__(self) -> None:
        self.logged = self.router = self.agreed = 0
        self.seen = ObservedOutcomes()


class Modelled:
    """Sums of the router's estimates for the choices of one side."""

    __slots__ = ("expected_ms", "success_probability", "usd")

    def __init__(self) -> None:
        self.expected_ms, self.success_probability, self.usd = Mean(), Mean(), 0.0

    def add(self, belief: Belief) -> None:
        """Adds the estimate for one choice."""
        self.expected_ms.add(belief.expected_ms)
        self.success_probability.add(belief.success_probability)
        self.usd += belief.usd

    def values(self) -> dict[str, Any]:
        """Sums and means; None without choices."""
        return {
            "usd": self.usd,
            "expected_ms": self.expected_ms.value,
            "success_probability": self.success_probability.value,
        }


class Evaluation:
    """Figures of a whole trace. Memory grows with the number of backends only."""

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
        """Adds a row with the router's choice; returns whether the two agree."""
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
        """Counts an outcome as taught, or as refused for this reason."""
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
        """With correct propensities the weights of all rows have mean 1: a choice with probability
        p agrees in a share p of the cases, and is weighted by 1/p."""
        weight = 1.0 / (row.propensity or 1.0) if agree else 0.0
        self._weights.add(weight)
        self.agreed += agree
        if agree and row.outcome is not None:
            self._router.add(row.outcome.success, row.outcome.duration_ms, weight)

    def _note_modelled(self, row: TraceRow, choice: RouterChoice) -> None:
        """Adds both sides or neither, so that the same rows are compared."""
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
        """All figures as plain values; docs/replay.md describes them."""
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
