"""Which of some names another name resembles: most unknown names are known ones, mistyped."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from heapq import nlargest
from itertools import pairwise

MAX_COMPARED = 4096
"""Names that one is compared with. A caller may send unknown names with every call, and each
comparison takes half a microsecond."""

CANDIDATES = 5
"""Names with the most pairs of letters in common, which are then compared letter by letter,
as that takes a hundred times as long. With one, letters that changed places go unnoticed."""

LEAST_RATIO = 0.6
"""Below it two names do not resemble each other; difflib's own limit for close matches."""


class Resemblances:
    """The names that others are compared with, by their pairs of letters."""

    def __init__(self, names: Iterable[str]) -> None:
        self._pairs = {name: _pairs(name) for name, _ in zip(names, range(MAX_COMPARED), strict=False)}

    def nearest(self, name: str) -> tuple[str, float] | None:
        """The name that has most in common with this one, and how much, in [0, 1]; None if
        there are no names."""
        pairs = _pairs(name)

        def common(other: str) -> float:
            others = self._pairs[other]
            return len(pairs & others) / (len(pairs) + len(others))

        likely = nlargest(CANDIDATES, self._pairs, key=common)
        ratios = [(SequenceMatcher(None, name.lower(), other.lower()).ratio(), other) for other in likely]
        if not ratios:
            return None
        ratio, other = max(ratios, key=lambda pair: pair[0])
        return other, ratio

    def similar(self, name: str) -> str | None:
        """The name that this one resembles, or None.

        >>> Resemblances(["bucket-frankfurt", "s3"]).similar("bucket-frankfrut")
        'bucket-frankfurt'
        """
        found = self.nearest(name)
        return found[0] if found is not None and found[1] >= LEAST_RATIO else None


def _pairs(name: str) -> frozenset[str]:
    """The pairs of neighbouring letters, with the ends of the name as neighbours of its ends."""
    letters = f"\n{name.lower()}\n"
    return frozenset(map("".join, pairwise(letters)))
