"""Distances against the haversine formula and against places on the map."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routing.core.geography import MAX_DISTANCE_KM, distance_km, distances_km, place

degrees_north = st.floats(-90.0, 90.0)
degrees_east = st.floats(-180.0, 180.0)
points = st.tuples(degrees_north, degrees_east)

Point = tuple[float, float]


def between(a: Point, b: Point) -> float:
    """The one distance, which the many must be."""
    here, there = place(*a), place(*b)
    km = distance_km(here, there)
    assert distances_km(here, [there, None, there]) == [km, None, km]
    return km


def haversine_km(a: Point, b: Point) -> float:
    """The twin (Sinnott, "Virtues of the haversine", 1984)."""
    north_a, east_a, north_b, east_b = map(math.radians, (*a, *b))
    chord = (
        math.sin((north_b - north_a) / 2) ** 2
        + math.cos(north_a) * math.cos(north_b) * math.sin((east_b - east_a) / 2) ** 2
    )
    return 2 * 6371.0 * math.asin(math.sqrt(min(chord, 1.0)))


@pytest.mark.parametrize(
    ("a", "b", "expected_km"),
    [
        # A quarter of the way around is 10,007.5 km, a degree of the equator 111.2 km.
        ((0.0, 0.0), (90.0, 0.0), 10_007.5),
        ((0.0, 0.0), (0.0, 90.0), 10_007.5),
        ((0.0, 0.0), (0.0, 1.0), 111.19),
        ((0.0, 179.5), (0.0, -179.5), 111.19),
        # London to New York, Sydney to Santiago: as any map service tells.
        ((51.5074, -0.1278), (40.7128, -74.0060), 5570.0),
        ((-33.8688, 151.2093), (-33.4489, -70.6693), 11_340.0),
    ],
)
def test_distances_are_those_of_the_map(a: Point, b: Point, expected_km: float) -> None:
    assert between(a, b) == pytest.approx(expected_km, rel=2e-3)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((0.0, 0.0), (0.0, 180.0)),
        ((90.0, 0.0), (-90.0, 0.0)),
        ((45.0, 45.0), (-45.0, -135.0)),
        ((90.0, 17.0), (-90.0, -60.0)),
    ],
)
def test_antipodes_are_as_far_apart_as_places_can_be(a: Point, b: Point) -> None:
    assert between(a, b) == pytest.approx(MAX_DISTANCE_KM, abs=1e-3)


@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_at_a_pole_every_meridian_is_the_same_place(pole: float) -> None:
    assert between((pole, 0.0), (pole, 123.0)) == pytest.approx(0.0, abs=1e-9)


@given(points, points)
@example((0.0, 0.0), (0.0, 180.0))
@example((1e-7, 0.0), (0.0, 0.0))
def test_a_distance_agrees_with_the_haversine_and_keeps_its_bounds(a: Point, b: Point) -> None:
    km = between(a, b)
    assert 0.0 <= km <= MAX_DISTANCE_KM
    # Near the antipodes either formula loses half of its digits.
    assert km == pytest.approx(haversine_km(a, b), rel=1e-6, abs=0.2 if km > 19_900 else 1e-6)


@given(points, points)
def test_the_way_back_is_as_long(a: Point, b: Point) -> None:
    assert between(a, b) == between(b, a)
