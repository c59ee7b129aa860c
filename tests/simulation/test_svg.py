"""The picture: well-formed, complete, with one colour per backend."""

from random import Random
from xml.etree import ElementTree

import pytest

from routing.simulation import scenario
from routing.simulation.generate import draw
from routing.simulation.play import Play
from routing.simulation.policies import make
from routing.simulation.svg import COLOURS, OTHERS, drawn, panel

SVG = "{http://www.w3.org/2000/svg}"


def played(name: str, policy: str = "static", *, requests: int = 200) -> Play:
    play = Play(draw(scenario.load(name), seed=0, requests=requests))
    return play.run(make(policy, play, Random(0)))


def texts(picture: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_each_column_adds_up_to_the_whole() -> None:
    one = panel(played("outage"), "static", 0.5)
    assert len(one.columns) == 60
    assert all(sum(column.values()) == pytest.approx(1.0) for column in one.columns)


def test_a_run_shorter_than_the_picture_is_drawn_too() -> None:
    assert len(panel(played("stationary", requests=7), "static", 0.5).columns) == 7


def test_it_has_title_axes_legend_and_the_event() -> None:
    play = played("outage")
    said = texts(drawn([panel(play, "static", 0.5)], page=False))
    assert "outage, seed 0: static, simulated, regret 0.500" in said
    assert "share of requests" in said
    assert any(text.startswith("requests so far") for text in said)
    assert {choice.backend_id for choice in play.decisions} <= {*said}
    assert any(
        text.startswith(play.world.disturbances[0].backend_id) and text.endswith("% fail") for text in said
    )


def test_a_newcomer_is_said_to_join() -> None:
    play = played("newcomer")
    [name] = play.world.newcomers
    assert f"{name} joins" in texts(drawn([panel(play, "static", 0.5)], page=False))


def test_of_many_backends_the_rest_is_shown_together() -> None:
    picture = drawn([panel(played("hundred", "round-robin"), "round-robin", 1.0)], page=False)
    assert OTHERS in texts(picture)
    fills = [one.get("fill") for one in ElementTree.fromstring(picture).iter(f"{SVG}path")]
    assert len(fills) == len(set(fills)) == len(COLOURS) + 1


def test_a_backend_has_one_colour_in_all_panels_of_a_world() -> None:
    panels = [panel(played("outage", name), name, 0.5) for name in ("static", "round-robin")]
    colours: dict[str, set[str]] = {}
    for path in ElementTree.fromstring(drawn(panels, page=False)).iter(f"{SVG}path"):
        [title] = path
        colours.setdefault(str(title.text), set()).add(str(path.get("fill")))
    assert all(len(found) == 1 for found in colours.values())


def test_a_page_holds_the_picture_and_asks_for_nothing() -> None:
    panels = [panel(played("outage"), "static", 0.5)]
    page = drawn(panels, page=True)
    assert drawn(panels, page=False) in page
    assert "href" not in page
    assert "src" not in page


def test_names_are_escaped() -> None:
    one = panel(played("outage"), "<b>", 0.5)
    assert "<b>" not in drawn([one], page=False)
