import pickle

import pytest
from grpclib.const import Status

from routing.client import errors
from routing.errors import RoutingError


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INVALID_ARGUMENT", errors.InvalidRequest),
        ("OUT_OF_RANGE", errors.InvalidRequest),
        ("FAILED_PRECONDITION", errors.NoBackend),
        ("RESOURCE_EXHAUSTED", errors.Overloaded),
        ("UNAVAILABLE", errors.ServerUnavailable),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceeded),
        ("UNAUTHENTICATED", errors.Unauthenticated),
        ("PERMISSION_DENIED", errors.PermissionDenied),
        ("INTERNAL", errors.ServerFault),
        ("UNIMPLEMENTED", errors.ServerFault),
        ("UNKNOWN", errors.ServerFault),
    ],
)
def test_a_status_has_its_type(status: str, kind: type[errors.RoutingCallError]) -> None:
    error = errors.call_error(status, "why")
    assert type(error) is kind
    assert (error.status, error.message, str(error)) == (status, "why", f"{status}: why")


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_type_that_a_caller_can_catch(status: Status) -> None:
    assert isinstance(errors.call_error(status.name, ""), RoutingError)


def test_a_status_without_a_message_says_so() -> None:
    assert errors.call_error("UNAVAILABLE", "").message == "the server gave no reason"


def test_an_error_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(errors.call_error("UNKNOWN", "why")))
    assert type(error) is errors.ServerFault
    assert (error.status, error.message) == ("UNKNOWN", "why")
