"""How long a fuzz run takes, where it starts, and what has been found before.

`ROUTING_FUZZ_SECONDS` is for how long each part goes on beyond its least; `ROUTING_FUZZ_SEED` makes
another run of the same kind. A failure prints the line with which its input joins the corpus.
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

SEED = int(os.environ.get("ROUTING_FUZZ_SEED", "0"))
SECONDS = float(os.environ.get("ROUTING_FUZZ_SECONDS", "0"))

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


def rounds(least: int) -> Iterator[random.Random]:
    """Dice for each round, its own, so that a round can be had again without those before it."""
    until, number = time.monotonic() + SECONDS, 0
    while number < least or time.monotonic() < until:
        yield random.Random(f"{SEED}/{number}")
        number += 1


def corpus(name: str) -> list[tuple[str, bytes]]:
    """Inputs that once went wrong, or nearly: what each is, and its bytes."""
    rows = (line.partition(" ") for line in (CORPUS / name).read_text().splitlines())
    return [
        (about, bytes.fromhex(data.partition("#")[0]))
        for about, _, data in rows
        if about[:1] not in ("", "#")
    ]
