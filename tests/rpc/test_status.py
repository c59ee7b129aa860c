"""Errors as statuses, and words that fit into a header."""

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import encode_grpc_message
from hypothesis import given
from hypothesis import strategies as st

from routing import errors
from routing.errors import BadMessage, InvalidArgument, NoEligibleBackend, RoutingError
from routing.rpc.status import MAX_MESSAGE_BYTES, STATUSES, status_and_message, status_message

NEVER_IN_A_CALL = {
    RoutingError,
    errors.BadTrace,
    errors.ConfigError,
    errors.IncompatibleLibrary,
    errors.MissingExtra,
}
"""Errors of an operator; a caller who meets one has met a fault of ours."""


def test_every_error_of_the_tree_is_a_status_or_an_operators() -> None:
    tree = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RoutingError)
    }
    assert set(STATUSES) == tree - NEVER_IN_A_CALL


def test_a_more_special_error_has_the_status_of_its_kind() -> None:
    class Negative(InvalidArgument):
        pass

    assert status_and_message(Negative("size", -1, "0 or more"))[0] is Status.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "error", [ValueError("secret"), RoutingError("secret"), errors.MissingExtra("x", "cli")]
)
def test_anything_else_is_internal_and_says_no_more(error: Exception) -> None:
    assert status_and_message(error) == (Status.INTERNAL, "internal error")


def test_a_status_that_somebody_raised_as_such_stays() -> None:
    assert status_and_message(GRPCError(Status.UNIMPLEMENTED)) == (Status.UNIMPLEMENTED, "")
    assert status_and_message(GRPCError(Status.ABORTED, "why")) == (Status.ABORTED, "why")


def test_a_short_message_stays_as_it_is() -> None:
    error = NoEligibleBackend({"a": "disabled", "b": "lacks the tag eu"})
    assert status_message(error) == error.message


@given(st.text(max_size=3000))
def test_a_long_message_is_cut_to_what_arrives(text: str) -> None:
    said = status_message(BadMessage(text))
    assert len(encode_grpc_message(said)) <= MAX_MESSAGE_BYTES
    assert said == text or (said.endswith("…") and text.startswith(said[:-1]))


def test_a_cut_message_keeps_most_of_what_fits() -> None:
    assert len(status_message(BadMessage("x" * 100_000))) > MAX_MESSAGE_BYTES / 2


@given(st.integers(1, 1024), st.integers(1, 256), st.sampled_from(["a", "é", "\n"]))
def test_reasons_that_do_not_fit_are_left_out_whole_and_counted(count: int, length: int, letter: str) -> None:
    reasons = {f"{n:04}{letter * length}": "disabled" for n in range(count)}
    said = status_message(NoEligibleBackend(reasons))
    assert len(encode_grpc_message(said)) <= MAX_MESSAGE_BYTES
    named = [name for name in reasons if f"{name}: disabled" in said]
    assert named == list(reasons)[: len(named)]
    left_out = f"; … and {count - len(named):,} more)"
    assert said.endswith(left_out if len(named) < count else ": disabled)")
