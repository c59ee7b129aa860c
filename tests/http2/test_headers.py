"""What a call's headers become before grpclib's handler sees them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.http2.headers import MIN_TIMEOUT_S, Malformed, as_served, check_request, refusal, timeout_s

CALL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a/B"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


def test_the_shortest_of_several_timeouts_counts() -> None:
    assert timeout_s([("grpc-timeout", "2S"), ("grpc-timeout", "50m"), ("grpc-timeout", "1H")]) == 0.05


@pytest.mark.parametrize(("left_s", "said"), [(0.25, "250000u"), (1e-9, f"{MIN_TIMEOUT_S * 1e6:.0f}u")])
def test_what_is_left_of_a_timeout_is_never_too_little_for_grpclib(left_s: float, said: str) -> None:
    assert as_served([*CALL, ("grpc-timeout", "9S")], left_s) == [*CALL, ("grpc-timeout", said)]


def test_binary_metadata_goes_one_value_to_a_field_and_unpadded() -> None:
    assert as_served([*CALL, ("key-bin", "AA==, AAA"), ("key", "a,b")], None) == [
        *CALL,
        ("key-bin", "AA"),
        ("key-bin", "AAA"),
        ("key", "a,b"),
    ]


def test_the_content_type_loses_its_parameters() -> None:
    assert as_served([*CALL[:-1], ("content-type", "application/grpc; x=y")], None) == CALL


def test_a_missing_te_is_added() -> None:
    assert as_served([field for field in CALL if field[0] != "te"], 1.0) == [
        *(field for field in CALL if field[0] != "te"),
        ("te", "trailers"),
        ("grpc-timeout", "1000000u"),
    ]


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_value_is_either_malformed_or_leads_to_an_answer(value: str) -> None:
    """Nothing but Malformed is raised, whatever bytes come."""
    for name in (":method", ":path", "te", "content-type", "grpc-timeout", "key-bin", "key"):
        headers = [(key, value if key == name else known) for key, known in CALL]
        if name not in dict(CALL):
            headers.append((name, value))
        try:
            check_request(headers)
        except Malformed:
            continue
        if refusal(headers) is None:
            as_served(headers, timeout_s(headers))
