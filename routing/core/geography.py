"""Distances on the globe, and the round-trip time that they add."""

import math
from collections.abc import Iterable
from typing import NamedTuple

EARTH_RADIUS_KM = 6371.0
"""Mean radius (IUGG). Half the circumference is then the contract's 20,015 km."""

MAX_DISTANCE_KM = 20_015.0
"""The distance of two opposite places; none are farther apart."""

ROUND_TRIP_MS_PER_KM = 0.016
"""Least-absolute-deviation fit of round-trip time over great-circle distance on the 4,692
pairs of cloud regions that the Skyplane project measured in April 2022: 10 ms + 0.016 ms/km,
mean error 31 ms. Light in fibre alone needs 0.010; the rest are detours. The constant 10 ms is
part of a profile's `latency_ms`."""


class Place(NamedTuple):
    """A point on the unit sphere, so that a distance takes one arcsine and no other trigonometry."""

    x: float
    y: float
    z: float


def place(latitude: float, longitude: float) -> Place:
    """The point at this latitude and longitude in degrees."""
    north, east = math.radians(latitude), math.radians(longitude)
    flat = math.cos(north)
    return Place(flat * math.cos(east), flat * math.sin(east), math.sin(north))


def distance_km(here: Place, there: Place) -> float:
    """Great-circle distance in [0, 20,015].

    Computed from the chord, which is exact for places that are close together; the arccosine
    of the dot product is not.

    >>> round(distance_km(place(38.95, -77.45), place(50.11, 8.68)))
    6553
    """
    # Rounding may make the chord of opposite places longer than the diameter.
    return min(2.0 * EARTH_RADIUS_KM * math.asin(min(0.5 * math.dist(here, there), 1.0)), MAX_DISTANCE_KM)


def distances_km(here: Place, places: Iterable[Place | None]) -> list[float | None]:
    """`distance_km` to each of these places, without a call for each; None for an unknown place."""
    return [
        None
        if there is None
        else km
        if (km := 2.0 * EARTH_RADIUS_KM * math.asin(min(0.5 * math.dist(here, there), 1.0))) < MAX_DISTANCE_KM
        else MAX_DISTANCE_KM
        for there in places
    ]
