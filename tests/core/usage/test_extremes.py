"""The extremes against a list."""

from hypothesis import given
from hypothesis import strategies as st

from routing.core.usage.extremes import Extremes

notes = st.lists(st.tuples(st.integers(-30, 60), st.integers(0, 3), st.integers(1, 2**31 - 1)), max_size=40)


@given(notes, st.integers(-40, 70), st.integers(-40, 40))
def test_the_extremes_are_those_of_a_list(noted: list[tuple[int, int, int]], first: int, oldest: int) -> None:
    extremes = Extremes()
    for number, backend, duration_ms in noted:
        extremes.note(number, backend, duration_ms, duration_ms)
    extremes.drop(min(first, oldest))
    for backend in range(5):
        since = [ms for number, name, ms in noted if name == backend and number >= first]
        assert extremes.since(first, backend) == (min(since, default=0), max(since, default=0))
