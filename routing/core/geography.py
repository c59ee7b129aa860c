"""Distances on the globe, and what they cost in time."""

import math
from collections.abc import Iterable
from typing import NamedTuple

EARTH_RADIUS_KM = 6371.0
"""Mean radius (IUGG). Half the circumference is then the contract's 20,015 km."""

FARTHEST_KM = 20_015.0
"""No two places are farther apart."""

ROUND_TRIP_MS_PER_KM = 0.016
"""Least-absolute-deviation fit of round-trip time over great-circle distance on the
4,692 pairs of cloud regions that the Skyplane project measured in April 2022: 10 ms
+ 0.016 ms/km, mean error 31 ms. Light in fibre alone would need 0.010; the rest is
detours. The constant 10 ms is part of a profile's `latency_ms`."""


class Place(NamedTuple):
    """A point on the unit sphere: distances between two need no trigonometry but one arcsine."""

    x: float
    y: float
    z: float


def place(latitude: float, longitude: float) -> Place:
    """The point at these degrees."""
    north, east = math.radians(latitude), math.radians(longitude)
    flat = math.cos(north)
    return Place(flat * math.cos(east), flat * math.sin(east), math.sin(north))


def distance_km(here: Place, there: Place) -> float:
    """Great-circle distance in [0, 20,015].

    From the chord, which stays exact for places close together where the arccosine
    of the dot product does not.

    >>> round(distance_km(place(38.95, -77.45), place(50.11, 8.68)))
    6553
    """
    # The chord of two places on opposite sides may come out a hair longer than it can be.
    return min(2.0 * EARTH_RADIUS_KM * math.asin(min(0.5 * math.dist(here, there), 1.0)), FARTHEST_KM)


def distances_km(here: Place, places: Iterable[Place | None]) -> list[float | None]:
    """`distance_km` to each of these places, without a call for each; None where a place is not known."""
    return [
        None
        if there is None
        else km
        if (km := 2.0 * EARTH_RADIUS_KM * math.asin(min(0.5 * math.dist(here, there), 1.0))) < FARTHEST_KM
        else FARTHEST_KM
        for there in places
    ]
