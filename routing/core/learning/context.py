"""The context of a request: the names of the effects on it, and of the kinds that it is of."""

from functools import lru_cache

from routing.core.model import Location, Operation

OWN = ""
"""The name of the backend's own effect."""

Context = tuple[str, ...]
"""OWN first, then the names of the kinds."""

CELL_DEGREES = 10.0
COARSE_CELLS = 3
"""Places are cells of so many degrees (1,100 km), and coarse cells of three times that."""

CONTEXT_CACHE_SIZE = 4096
"""Contexts whose names are cached, about 2 MB at most. Making them for each decision takes as
long as everything that is looked up with them for three backends."""

BAND_BITS = 4
"""A band of sizes spans a factor of 16: slow start, and fixed costs beside the latency, make small
objects slower and middle ones slower still than latency and throughput alone."""


def context_of(
    operation: Operation | None, location: Location | None, content_type: str, size_bytes: int
) -> Context:
    """The names of the effects: the backend's own, and those of the kinds of this request: its
    operation, region, coarse cell and cell, type, and band of size; of what is not known, none."""
    north = east = None
    region = ""
    if location is not None:
        region = location.region
        if location.latitude is not None and location.longitude is not None:
            north, east = int(location.latitude // CELL_DEGREES), int(location.longitude // CELL_DEGREES)
    return _context(operation, north, east, region, content_type, size_bytes.bit_length() // BAND_BITS)


@lru_cache(CONTEXT_CACHE_SIZE)
def _context(
    operation: Operation | None,
    north: int | None,
    east: int | None,
    region: str,
    content_type: str,
    band: int,
) -> Context:
    names = [OWN]
    if operation is not None:
        names.append(f"operation:{operation.value}")
    if region:
        names.append(f"region:{region}")
    if north is not None and east is not None:
        coarse = COARSE_CELLS
        names.append(f"cell:{coarse * CELL_DEGREES}:{north // coarse}:{east // coarse}")
        names.append(f"cell:{CELL_DEGREES}:{north}:{east}")
    if content_type:
        names.append(f"type:{content_type}")
    if band:
        names.append(f"size:{BAND_BITS * band}")
    return tuple(names)
