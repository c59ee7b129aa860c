"""Replays a trace in order of time: choose, compare, teach."""

import heapq
from itertools import count

from routing.core.model import Outcome
from routing.replay.choice import Decider, UnusableRow
from routing.replay.evaluation import Evaluation
from routing.replay.teach import Teach
from routing.replay.trace import Trace


class PendingEvents:
    """Future events of replayed rows, by time: outcomes, and ends of choices that were not
    carried out. Bounded by the operations in flight at any one time."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Outcome | str]] = []
        self._serial = count()

    def add(self, at: float, event: Outcome | str) -> None:
        """Schedules an outcome, or the end of the choice for this request id."""
        heapq.heappush(self._waiting, (at, next(self._serial), event))

    async def advance(self, until: float, decider: Decider, evaluation: Evaluation) -> None:
        """Delivers all events up to this time."""
        while self._waiting and self._waiting[0][0] <= until:
            at, _, event = heapq.heappop(self._waiting)
            if isinstance(event, Outcome):
                evaluation.note_taught(await decider.teach(event, at=at))
            else:
                decider.withdraw(event)


async def replay(trace: Trace, decider: Decider, evaluation: Evaluation, *, teach: Teach) -> None:
    """Replays the whole trace and adds it to the evaluation.

    Raises BadTrace for a row that the decider refuses, unless the trace skips such rows.

    An outcome is taught at the time when the operation ended, before any later request. A
    choice that was not carried out counts as in flight for its expected duration.
    """
    pending = PendingEvents()
    for row in trace:
        await pending.advance(row.at, decider, evaluation)
        try:
            choice = await decider.choose(row)
        except UnusableRow as unusable:
            trace.reject(row.line, str(unusable))
            continue
        agree = evaluation.note(row, choice)
        if row.outcome is not None and (agree or teach is Teach.ALL):
            pending.add(row.outcome_known_at, row.outcome)
        elif choice.backend_id and not agree:
            expected_s = choice.beliefs[choice.backend_id].expected_ms / 1e3
            pending.add(row.at + expected_s, row.query.request_id)
    await pending.advance(float("inf"), decider, evaluation)
