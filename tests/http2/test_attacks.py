"""What an attack from outside costs the real server, and who is cut off for it."""

from pathlib import Path

import pytest

from support.attacks import ATTACKS, attack
from support.server_process import ServerProcess

ENHANCE_YOUR_CALM, FRAME_SIZE_ERROR, COMPRESSION_ERROR = 11, 6, 9
DUE = {"a frame of 16 MB": FRAME_SIZE_ERROR, "table size updates": COMPRESSION_ERROR}


pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="no /proc to see memory in: Linux"
)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_keeps_little_and_costs_a_bystander_no_call(server: ServerProcess, name: str) -> None:
    seen = attack(server, ATTACKS[name], 20.0 if ATTACKS[name].cut_off else 1.0)
    assert seen.more_mb < ATTACKS[name].most_mb
    if ATTACKS[name].cut_off:
        assert {code for code, _ in seen.goodbyes} == {DUE.get(name, ENHANCE_YOUR_CALM)}
    assert server.stop() == 0
    assert [line for line in server.lines if " INFO " not in line] == []
