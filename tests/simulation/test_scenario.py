"""Scenario files: all that ship can be read, and a mistake names file, key and what was expected."""

from pathlib import Path

import pytest

from routing.errors import ConfigError
from routing.simulation import scenario
from routing.simulation.generate import draw

HEAD = 'title = "mine"\nabout = "my own"\n'


def written(folder: Path, text: str) -> str:
    file = folder / "mine.toml"
    file.write_text(text)
    return str(file)


def test_the_scenarios_ship_in_their_order() -> None:
    expected = (
        "stationary priors-wrong brown-out outage drift contextual hundred newcomer flapping load "
        "one-region-dead one-type-dead gray-type gray-region gray-large archive two-backends "
        "slow-traffic slow-traffic-dead unit-mistake measured-networks measured-devices queues busy-queues "
        "heavy-tails three-hundred"
    )
    assert scenario.names() == tuple(expected.split())


@pytest.mark.parametrize("name", scenario.names())
def test_each_can_be_read_and_drawn(name: str) -> None:
    world = draw(scenario.load(name), seed=1, requests=60)
    assert len(world.workload.requests) == 60
    assert len(world.backends) == world.scenario.world.backends


def test_what_a_file_leaves_out_keeps_its_default(tmp_path: Path) -> None:
    one = scenario.load(written(tmp_path, HEAD))
    assert one == scenario.Scenario("mine", "mine", "my own")


def test_a_single_number_is_a_range_of_that_number(tmp_path: Path) -> None:
    one = scenario.load(written(tmp_path, HEAD + "[[events]]\nslower = 3\n"))
    assert one.events[0].slower == (3.0, 3.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("about = 'x'", "title: expected 1 to 300 bytes of printable text, got nothing"),
        (HEAD + "[world]\nbackend = 3", "world.backend: unknown key; did you mean backends?"),
        (HEAD + "[world]\nbackends = 1", "world.backends: expected a whole number from 2 to 1,000, got 1"),
        (
            HEAD + "[[events]]\nstarts = [0.4, 0.2]",
            "events[0].starts: expected two numbers from 0 to 1, the smaller first, or one, got a list of 2",
        ),
        (
            HEAD + "[[events]]\nfails = [0.1, 0.2, 0.3]",
            "events[0].fails: expected two numbers from 0 to 1, the smaller first, or one, got a list of 3",
        ),
        (
            HEAD + "[[events]]\nwho = 'best'",
            "events[0].who: expected one of favourite, second, third, any, all, got 'best'",
        ),
        (HEAD + "events = 3", "events: expected [[events]] tables, got 3"),
        (HEAD + "[world]\nservices = ['s4']", "world.services: unknown service; expected some of"),
        (HEAD + "[world]\nbackends = 90\nservices = ['b2']", "world.backends: expected at most 3"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        scenario.load(written(tmp_path, text))
    assert caught.value.message.startswith(f"{tmp_path}/mine.toml: {said}")
    assert "\n" not in caught.value.message


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"^outages: no such scenario; did you mean outage\?"):
        scenario.load("outages")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^absent\.toml: expected a file that can be read"):
        scenario.load("absent.toml")
