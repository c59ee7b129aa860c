"""The content types of a GetInsightsResponse, in as many bytes as there is room for."""

from collections import Counter
from collections.abc import Mapping

from routing.core.usage.windows import OTHER_TYPES
from routing.wire.struct_bytes import ENTRIES_IN_A_STEP, Steps, StructWriter

Distribution = Mapping[str, Mapping[str, int]]
"""{content type: {backend: decisions}}"""


def write_distribution(structs: StructWriter, distribution: Distribution, *, room_bytes: int) -> Steps:
    """The bytes of the Struct, in steps between which counts may grow.

    Where they would be more than `room_bytes`, the types with the fewest decisions are summed as
    `other`: the types with the most are kept, in order of decisions, as long as they and an `other`
    with all backends fit. Ties break by name.
    """
    written: dict[str, bytes] = {}
    entries = 0
    for name in list(distribution):
        row = distribution.get(name)
        if row:  # the last decision of a type may expire between two steps
            written[name] = structs.entry(name, row)
            entries += len(row)
            if entries >= ENTRIES_IN_A_STEP:
                entries = 0
                yield
    if sum(map(len, written.values())) <= room_bytes:
        return b"".join(written.values())
    others: Counter[str] = Counter()
    decisions = {name: sum(distribution.get(name, {}).values()) for name in written}
    backends = {backend: 0 for row in distribution.values() for backend in row}
    left = room_bytes - len(structs.entry(OTHER_TYPES, backends))
    kept = set()
    for name in sorted(written, key=lambda name: (-decisions[name], name)):
        if name == OTHER_TYPES or len(written[name]) > left:
            left = left if name == OTHER_TYPES else 0
            others.update(distribution.get(name, {}))
        else:
            left -= len(written[name])
            kept.add(name)
    return b"".join(row for name, row in written.items() if name in kept) + structs.entry(OTHER_TYPES, others)
