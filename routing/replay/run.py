"""Goes through a trace in its own time: asks, compares, teaches."""

import heapq
from itertools import count

from routing.core.model import Outcome
from routing.replay.choice import Decider, UnusableRow
from routing.replay.evaluation import Evaluation
from routing.replay.teach import Teach
from routing.replay.trace import Trace


class PendingEvents:
    """What is still to come of rows that were asked: an outcome, or the end of a choice that
    was not carried out. Bounded by the transfers under way at any one time."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Outcome | str]] = []
        self._serial = count()

    def add(self, at: float, what: Outcome | str) -> None:
        """At this time comes an outcome, or the end of the choice on the request of this id."""
        heapq.heappush(self._waiting, (at, next(self._serial), what))

    async def come(self, until: float, decider: Decider, evaluation: Evaluation) -> None:
        """Lets all come that does until then."""
        while self._waiting and self._waiting[0][0] <= until:
            at, _, what = heapq.heappop(self._waiting)
            if isinstance(what, Outcome):
                evaluation.note_taught(await decider.teach(what, at=at))
            else:
                decider.withdraw(what)


async def replay(trace: Trace, decider: Decider, evaluation: Evaluation, *, teach: Teach) -> None:
    """Adds the whole trace, in order, to the evaluation.

    BadTrace for a row that the decider cannot take, unless the trace skips such rows.

    An outcome is taught when it was over, before the next request that came after it. A
    choice that was not carried out counts as in flight for the time it was expected to take.
    """
    later = PendingEvents()
    for row in trace:
        await later.come(row.at, decider, evaluation)
        try:
            choice = await decider.choose(row)
        except UnusableRow as unfit:
            trace.reject(row.line, str(unfit))
            continue
        agree = evaluation.note(row, choice)
        if row.outcome is not None and (agree or teach is Teach.ALL):
            later.add(row.outcome_known_at, row.outcome)
        elif choice.backend_id and not agree:
            expected_s = choice.beliefs[choice.backend_id].expected_ms / 1e3
            later.add(row.at + expected_s, row.query.request_id)
    await later.come(float("inf"), decider, evaluation)
