"""Messages changed at random: parsed if and only if google's protobuf parses them, and as the same."""

import pytest

from support.differential import GOOGLE, disagreement, fill, mutate
from support.fuzzing import SECONDS, corpus, rounds

NAMES = sorted(GOOGLE)
MUTATIONS = 20
LEAST_MESSAGES = 100_000 if SECONDS else 2_000
"""100,000 take about half a minute, which only a fuzz run has."""


def test_a_changed_message_is_parsed_iff_google_parses_it() -> None:
    for dice in rounds(LEAST_MESSAGES // MUTATIONS):
        name = dice.choice(NAMES)
        data = fill(dice, GOOGLE[name]()).SerializeToString()
        other = fill(dice, GOOGLE[dice.choice(NAMES)]()).SerializeToString()
        for _ in range(MUTATIONS):
            changed = mutate(dice, data, other)
            assert disagreement(name, changed) == "", f"for the corpus: {name} {changed.hex()}"


@pytest.mark.parametrize(("name", "data"), corpus("protobuf.txt"))
def test_what_was_found_stays_right(name: str, data: bytes) -> None:
    assert disagreement(name, data) == ""
