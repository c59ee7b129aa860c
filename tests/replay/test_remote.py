"""The remote decider with answers that our own server does not give."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from routing.client import Acknowledgement, InvalidRequest, Overloaded, Selection
from routing.core.model import Outcome
from routing.errors import ConfigError
from routing.replay.choice import UnusableRow
from routing.replay.remote import RemoteDecider
from support.replay_makers import NOON, logged

EPOCH = datetime.fromtimestamp(0, UTC)
AT = datetime.fromtimestamp(NOON, UTC)
CANDIDATE = {"expected_ms": 200.0, "success_probability": 0.9, "factor_scores": {"cost": 0.5}}
SELECTION = Selection("a", 0.7, {}, (), "r", AT, {"candidates": {"a": CANDIDATE}})


@dataclass
class Insights:
    at: datetime


@dataclass
class Client:
    """Stands in for the real client."""

    selection: Selection | Exception = SELECTION
    answer: Acknowledgement | Exception = field(default_factory=lambda: Acknowledgement(True, "recorded", AT))
    clock: datetime = EPOCH
    asked: int = 0

    async def insights(self) -> Insights:
        self.asked += 1
        return Insights(self.clock)

    async def select(self, **kwargs: Any) -> Selection:
        if isinstance(self.selection, Exception):
            raise self.selection
        return self.selection

    async def record(self, *args: Any, **kwargs: Any) -> Acknowledgement:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def at_server(client: Client) -> RemoteDecider:
    return RemoteDecider(client, "router:1")  # type: ignore[arg-type]  # it has the three methods that are called


async def test_an_answer_has_the_choice_and_the_estimates() -> None:
    choice = await at_server(Client()).choose(logged(content_size=10**9))
    assert (choice.backend_id, choice.refusal) == ("a", "")
    belief = choice.beliefs["a"]
    assert (belief.expected_ms, belief.success_probability) == (200.0, 0.9)
    assert belief.usd == pytest.approx(0.113005)


async def test_the_clock_is_asked_for_once() -> None:
    client = Client()
    decider = at_server(client)
    for _ in range(3):
        await decider.choose(logged())
    assert client.asked == 1


@pytest.mark.parametrize("off", [timedelta(days=1), -timedelta(days=1)])
async def test_an_answer_with_a_time_of_its_own_is_of_another_clock(off: timedelta) -> None:
    with pytest.raises(ConfigError, match='--target router:1: expected a server with clock = "request"'):
        await at_server(Client(selection=replace(SELECTION, at=AT + off))).choose(logged())


async def test_a_server_without_explanations_is_refused() -> None:
    with pytest.raises(ConfigError, match="--target router:1: expected a server that explains its choices"):
        await at_server(Client(selection=replace(SELECTION, explanation=None))).choose(logged())


async def test_an_invalid_argument_makes_the_row_unusable() -> None:
    invalid = InvalidRequest("available_backends: 'x' is not valid", "INVALID_ARGUMENT")
    decider = at_server(Client(selection=invalid, answer=invalid))
    with pytest.raises(UnusableRow, match="available_backends: 'x' is not valid"):
        await decider.choose(logged())
    assert await decider.teach(Outcome("x", True), at=NOON) == invalid.message


async def test_a_rate_limit_is_not_an_error_of_the_row() -> None:
    """Otherwise rows would be skipped because they came too fast."""
    enough = Overloaded("too many calls", "RESOURCE_EXHAUSTED")
    decider = at_server(Client(selection=enough, answer=enough))
    with pytest.raises(Overloaded):
        await decider.choose(logged())
    with pytest.raises(Overloaded):
        await decider.teach(Outcome("x", True), at=NOON)


async def test_an_outcome_that_was_not_recorded_has_the_server_s_reason() -> None:
    refused = Acknowledgement(False, "not recorded: it happened longer than 168 hours ago", AT)
    assert await at_server(Client(answer=refused)).teach(Outcome("a", True), at=NOON) == refused.message
    assert await at_server(Client()).teach(Outcome("a", True), at=NOON) == ""
