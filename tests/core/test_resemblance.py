"""Which known name a mistyped one resembles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.resemblance import CANDIDATES, MAX_COMPARED, Resemblances

KNOWN = ("s3", "ipfs", "filecoin", "bucket-frankfurt", "bucket-virginia", "archive")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("bucket-frankfrut", "bucket-frankfurt"),
        ("Bucket-Frankfurt", "bucket-frankfurt"),
        ("ipsf", "ipfs"),
        ("S3", "s3"),
        ("bucket-virgina", "bucket-virginia"),
        ("archives", "archive"),
    ],
)
def test_a_mistyped_name_resembles_the_one_that_was_meant(name: str, meant: str) -> None:
    assert Resemblances(KNOWN).similar(name) == meant


@pytest.mark.parametrize("name", ["zzz", "", "lighthouse", "🪣"])
def test_another_name_resembles_none_but_has_a_nearest(name: str) -> None:
    assert Resemblances(KNOWN).similar(name) is None
    assert Resemblances(KNOWN).nearest(name) is not None


def test_where_no_name_is_known_there_is_nothing_to_resemble() -> None:
    assert Resemblances(()).nearest("s3") is None
    assert Resemblances(()).similar("s3") is None


def test_only_so_many_names_are_compared() -> None:
    many = Resemblances(f"b{number}" for number in range(2 * MAX_COMPARED))
    assert many.similar(f"b{MAX_COMPARED - 1}") == f"b{MAX_COMPARED - 1}"
    assert many.similar(f"b{MAX_COMPARED}") != f"b{MAX_COMPARED}"


@given(st.lists(st.text(max_size=20), min_size=1, max_size=2 * CANDIDATES, unique=True), st.data())
def test_a_known_name_resembles_itself(names: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names))
    found = Resemblances(names).nearest(name)
    assert found is not None
    assert found[1] == 1.0
    assert found[0].lower() == name.lower()
