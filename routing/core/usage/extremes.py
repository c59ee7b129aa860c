"""The shortest and the longest duration per five minutes and backend, and per hour.

All else that the windows count can be taken off again when it grows old; of a minimum
that grows old, nothing tells which is the next one. So they are kept for each interval:
eight bytes for each backend.
"""

from array import array

FIVES_PER_HOUR = 12

_Row = tuple["array[int]", "array[int]"]
"""By number of the backend: the least and the most, 0 where there was no duration."""


class Extremes:
    """{interval: extremes of each backend}, of five minutes and of an hour."""

    def __init__(self) -> None:
        self._fives: dict[int, _Row] = {}
        self._hours: dict[int, _Row] = {}

    def __repr__(self) -> str:
        return f"Extremes(intervals={len(self._fives)}, hours={len(self._hours)})"

    def note(self, number: int, backend: int, least_ms: int, most_ms: int) -> None:
        """Durations in these five minutes, between these two."""
        for rows, at in ((self._fives, number), (self._hours, number // FIVES_PER_HOUR)):
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
        """The extremes from these five minutes on; (0, 0) where there were none."""
        first_hour = -(-first // FIVES_PER_HOUR)
        rows = [self._fives.get(number) for number in range(first, first_hour * FIVES_PER_HOUR)]
        rows += [row for hour, row in self._hours.items() if hour >= first_hour]
        known = [row for row in rows if row is not None and backend < len(row[0])]
        least = min((row[0][backend] for row in known if row[0][backend]), default=0)
        return least, max((row[1][backend] for row in known), default=0)

    def drop(self, oldest: int) -> None:
        """Lets go of all before these five minutes."""
        for rows, limit in ((self._fives, oldest), (self._hours, oldest // FIVES_PER_HOUR)):
            for number in [number for number in rows if number < limit]:
                del rows[number]
