"""What the nouns promise: defaults that say nothing, and values that do not change."""

from dataclasses import FrozenInstanceError

import pytest

from routing.core.model import Backend, Operation, Outcome, Query, State, SystemStatus
from support.makers import candidate


@pytest.mark.parametrize(
    ("size_bytes", "assumed"), [(0, 1_048_576), (1, 1), (1_048_576, 1_048_576), (2**63 - 1, 2**63 - 1)]
)
def test_an_unknown_size_is_taken_for_1_mib(size_bytes: int, assumed: int) -> None:
    assert Query(size_bytes=size_bytes).assumed_bytes == assumed


def test_a_query_that_says_nothing_asks_for_the_default_of_everything() -> None:
    query = Query()
    assert (query.operation, query.strategy, query.priority) == (Operation.STORE, "hybrid", "balanced")
    assert (query.retention_months, query.expected_reads) == (1.0, 1.0)
    assert query.location is None


def test_an_outcome_that_says_nothing_knows_no_duration_and_no_time() -> None:
    outcome = Outcome("a", True)
    assert (outcome.duration_ms, outcome.happened_at) == (None, None)


def test_the_words_and_numbers_of_the_contract() -> None:
    assert [*Operation] == ["store", "retrieve"]
    assert [*State] == ["ok", "suspended", "disabled"]
    assert [(one.name, one.value) for one in SystemStatus] == [("NORMAL", 0), ("WARNING", 1), ("CRITICAL", 2)]


@pytest.mark.parametrize("value", [Backend("a"), Query(), Outcome("a", True), candidate()])
def test_a_value_does_not_change(value: object) -> None:
    field = next(iter(getattr(value, "__slots__", ()) or getattr(value, "_fields", ())))
    with pytest.raises((FrozenInstanceError, AttributeError)):
        setattr(value, field, None)
