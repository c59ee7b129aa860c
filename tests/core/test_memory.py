"""Memory stays flat, whatever is sent and however much of it."""

import gc
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from routing.core.holders import MAX_HASHES, Holders
from routing.core.model import Location, Operation, Outcome, Query
from routing.core.placement import Placement
from routing.core.repeats import Repeats
from routing.core.router import Router
from support.makers import NOON, router

BACKENDS = tuple("abcde")
STEP_S = 0.1
RETENTION_HOURS = 2
"""After 72,000 steps the windows are as full as they will ever be."""


def parts(thing: Any) -> Iterator[Any]:
    """What a value of the core is made of."""
    if isinstance(thing, Mapping):
        yield from thing.keys()
        yield from thing.values()
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from thing
    else:
        yield from (getattr(thing, name) for name in getattr(thing, "__slots__", ()) if hasattr(thing, name))
        yield from getattr(thing, "__dict__", {}).values()


def things(root: object) -> int:
    """How many values hang on this one, each counted as often as it is held."""
    seen: set[int] = set()
    waiting = [root]
    count = 0
    while waiting:
        thing = waiting.pop()
        count += 1
        if isinstance(thing, str | int | float | None) or id(thing) in seen:
            continue
        seen.add(id(thing))
        waiting.extend(parts(thing))
    return count


def storm(subject: Router, steps: range, *, decide_every: int = 1) -> None:
    """Each step is new in everything that can be new: hash, type, place, request."""
    for step in steps:
        now = NOON + step * STEP_S
        backend_id = BACKENDS[step % len(BACKENDS)]
        content_hash, request_id, content_type = f"hash-{step}", f"request-{step}", f"type-{step}/x"
        if step % decide_every == 0:
            subject.select(
                Query(
                    content_hash=content_hash if step % 3 else "",
                    content_type=content_type,
                    request_id=request_id if step % 2 else "",
                    available_backends=(backend_id,),
                    location=Location(step % 180 - 90.0, step % 360 - 180.0, f"region-{step}"),
                    operation=Operation.STORE if step % 7 else Operation.RETRIEVE,
                    strategy="adaptive" if step % 5 else "hybrid",
                ),
                now=now,
            )
        # Every fourth outcome belongs to no decision, and every ninth comes late.
        subject.record(
            Outcome(
                backend_id,
                step % 11 != 0,
                content_hash=content_hash,
                content_type=content_type,
                duration_ms=1 + step * 7919 % 100_000,
                request_id=request_id if step % 4 else "",
                happened_at=now - 3000.0 if step % 9 == 0 else None,
            ),
            now=now,
        )


def test_a_storm_of_new_names_leaves_no_more_behind_the_longer_it_lasts() -> None:
    subject = router(BACKENDS, retention_hours=RETENTION_HOURS, max_content_types=16)
    subject._placement = Placement(max_pending=500)
    subject._placement._repeats = Repeats(max_reported=500)
    subject._holders = Holders(max_hashes=500)
    # Ten times the pace of the clock, so that the windows fill up as early.
    storm(subject, range(0, 90_000, 10))
    before = things(subject)
    storm(subject, range(90_000, 270_000, 10))
    assert things(subject) <= before * 1.02
    # Every third decision was reported by its hash, and is gone from the latest 500.
    assert repr(subject._placement) == "Placement(pending=333, reported=500)"
    assert len(subject._holders) == 500
    assert subject.outcomes_total == 27_000


def test_what_is_forgotten_is_really_gone() -> None:
    """No cycle keeps a decision alive: it is freed without the collector's help."""
    subject = router(BACKENDS)
    storm(subject, range(2000))
    gc.collect()
    gc.disable()
    try:
        storm(subject, range(2000, 6000))
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.slow
def test_two_hundred_thousand_content_types_leave_no_more_than_a_fraction_of_them() -> None:
    subject = router(BACKENDS, retention_hours=RETENTION_HOURS)
    # An hour holds 1,800 decisions; the table of pending ones is full after 5,000.
    subject._placement = Placement(max_pending=5_000)
    storm(subject, range(120_000), decide_every=20)
    before = things(subject)
    storm(subject, range(120_000, 200_000), decide_every=20)
    assert things(subject) <= before * 1.02
    assert subject.outcomes_total == 200_000
    assert len(subject._holders) == MAX_HASHES
    assert len(subject._placement._pending) <= 3600 / STEP_S / 20
    assert len(subject.windows._types) == 256
    counted = subject.windows.totals(1, now=NOON + 200_000 * STEP_S)
    assert sum(cell.outcomes for cell in counted.values()) > 30_000
