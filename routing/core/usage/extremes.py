"""The shortest and the longest duration per backend and interval of five minutes, and per hour.

Every other count can be subtracted from a sum once it is too old. A minimum cannot: the
sum does not know the next larger value. So extremes are kept for each interval, in eight
bytes for each backend.
"""

from array import array

INTERVALS_PER_HOUR = 12

_Row = tuple["array[int]", "array[int]"]
"""Minimum and maximum by the number of the backend; 0 if there was no duration."""


class Extremes:
    """{interval: extremes of each backend}, for intervals of five minutes and for hours."""

    def __init__(self) -> None:
        self._intervals: dict[int, _Row] = {}
        self._hours: dict[int, _Row] = {}

    def __repr__(self) -> str:
        return f"Extremes(intervals={len(self._intervals)}, hours={len(self._hours)})"

    def note(self, number: int, backend: int, least_ms: int, most_ms: int) -> None:
        """Adds durations of this interval, given by their minimum and maximum."""
        for rows, at in ((self._intervals, number), (self._hours, number // INTERVALS_PER_HOUR)):
            row = rows.get(at)
            if row is None:
                row = rows[at] = array("I"), array("I")
            least, most = row
            if len(least) <= backend:
                missing = [0] * (backend + 1 - len(least))
                least.extend(missing)
                most.extend(missing)
            if not least[backend] or least_ms < least[backend]:
                least[backend] = least_ms
            if most_ms > most[backend]:
                most[backend] = most_ms

    def since(self, first: int, backend: int) -> tuple[int, int]:
        """The extremes from this interval on; (0, 0) if there was no duration."""
        first_hour = -(-first // INTERVALS_PER_HOUR)
        rows = [self._intervals.get(number) for number in range(first, first_hour * INTERVALS_PER_HOUR)]
        rows += [row for hour, row in self._hours.items() if hour >= first_hour]
        known = [row for row in rows if row is not None and backend < len(row[0])]
        least = min((row[0][backend] for row in known if row[0][backend]), default=0)
        return least, max((row[1][backend] for row in known), default=0)

    def drop(self, oldest: int) -> None:
        """Removes all earlier intervals."""
        for rows, limit in ((self._intervals, oldest), (self._hours, oldest // INTERVALS_PER_HOUR)):
            for number in [number for number in rows if number < limit]:
                del rows[number]
