"""`routing simulate` as a person types it, in process and against a real server."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from routing.access.auth import new_token
from routing.cli import main
from routing.simulation import scenario
from support.server_process import StartServer

FEW = ("--requests", "120")


def said(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    assert main(["simulate", *argv]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def test_a_table_for_each_scenario_and_one_of_the_means(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "outage", "drift", "--policy", "static", "--strategy", "hybrid", *FEW)
    blocks = out.split("\n\n")
    assert blocks[0].startswith("outage: ")
    assert blocks[1].startswith("drift: ")
    assert [line.split()[0] for line in blocks[0].splitlines()[2:]] == ["hybrid", "static"]
    assert blocks[2].splitlines()[1].split() == ["policy", "outage", "drift", "mean"]
    assert "simulated: 120 requests a run, seed 0" in blocks[3]


def test_the_same_seed_gives_the_same_bytes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    outputs, pictures = set(), set()
    for name in ("one.svg", "two.svg"):
        outputs.add(said(capsys, "outage", "--picture", str(tmp_path / name), *FEW))
        pictures.add((tmp_path / name).read_bytes())
    assert len(outputs) == len(pictures) == 1


def test_another_seed_is_another_world(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (said(capsys, "outage", "--seed", seed, "--json", *FEW) for seed in ("0", "1"))
    assert json.loads(one) != json.loads(other)


def test_several_seeds_have_a_spread(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "outage", "--policy", "static", "--seeds", "2", *FEW)
    assert " ± " in out.splitlines()[2]
    assert "seeds 0 to 1, mean ± standard deviation" in out


def test_json_has_every_number_of_every_seed(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "outage", "--policy", "static", "--seeds", "2", "--json", *FEW)
    [one, _] = json.loads(out)["outage"]["static"]
    expected = {
        "regret",
        "affected_regret",
        "success_rate",
        "mean_ms",
        "p99_ms",
        "usd_per_1000",
        "left",
        "back",
    }
    assert set(one) == expected


def test_the_list_names_scenarios_and_policies(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "--list")
    assert "\noutage " in out
    assert "\nducb " in out


def test_a_picture_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said(capsys, "outage", "--picture", str(tmp_path / "a.svg"), *FEW)
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    said(capsys, "outage", "--picture", str(tmp_path / "a.html"), *FEW)
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")


def test_ones_own_scenario_and_backends_are_taken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('title = "mine"\nabout = "my own"\n')
    (tmp_path / "routing.toml").write_text('[[backends]]\nid = "a"\n[[backends]]\nid = "b"\n')
    mine = str(tmp_path / "mine.toml")
    picture = tmp_path / "a.svg"
    out = said(
        capsys, mine, "--config", str(tmp_path / "routing.toml"), "--policy", "random",
        "--picture", str(picture), *FEW,
    )  # fmt: skip
    assert out.startswith("mine: my own\n")
    assert {"a", "b"} <= {one.text for one in ElementTree.parse(picture).iter()}


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            ("outages",),
            "routing: outages: no such scenario; did you mean outage?, or a file that ends in .toml",
        ),
        (
            ("outage", "--picture", "a.png"),
            "routing: --picture: 'a.png' is not valid; expected a file name that ends in .svg or .html",
        ),
        (
            ("outage", "--picture", "no/such/folder/a.svg", "--requests", "5"),
            "routing: --picture: 'no/such/folder/a.svg' is not valid; expected a file that can be written: "
            "No such file or directory",
        ),
        (
            ("--target", "localhost:1"),
            "routing: --target: 'localhost:1' is not valid; expected one scenario, one strategy and one "
            "seed: a server learns from each",
        ),
        (
            ("outage", "--target", "localhost:1", "--policy", "static"),
            "routing: --policy: 'static' is not valid; expected a --strategy, since a server plays no peers",
        ),
        (
            ("--write-config", "a.toml"),
            "routing: --write-config: 'a.toml' is not valid; expected one scenario: each has a world "
            "of its own",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], line: str
) -> None:
    assert said(capsys, *argv, code=2) == f"{line}\n"


def test_backends_that_take_none_of_it_are_an_error_and_one_that_does_is_enough(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "routing.toml"
    config.write_text('[[backends]]\nid = "a"\nmax_object_bytes = 10\n')
    line = said(capsys, "outage", "--config", str(config), *FEW, code=1)
    assert line.startswith("routing: no eligible backend (a: does not take an object of ")
    config.write_text('[[backends]]\nid = "a"\n')
    out = said(capsys, "outage", "--config", str(config), "--policy", "random", *FEW)
    assert out.splitlines()[2].split()[:2] == ["random", "0.000"]


@pytest.mark.parametrize("name", scenario.names())
def test_one_request_is_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    said(capsys, name, "--requests", "1", "--picture", str(tmp_path / "a.svg"))


def test_an_interrupt_ends_it_with_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("routing.cli.simulate.draw", interrupted)
    assert said(capsys, "outage", code=130) == ""


def test_a_served_strategy_decides_as_in_process(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    config = tmp_path / "world.toml"
    said(capsys, "newcomer", "--write-config", str(config), *FEW)
    server = start_server("--config", str(config))
    asked = ("newcomer", "--strategy", "hybrid", "--json", *FEW)
    over_grpc = said(capsys, *asked, "--target", server.address)
    assert json.loads(over_grpc) == json.loads(said(capsys, *asked))
    again = said(capsys, *asked, "--target", server.address, code=1)
    assert again == "routing: the server has already made decisions; start a fresh one\n"


def test_a_server_that_asks_who_calls_is_shown_a_token(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    start_server: StartServer,
) -> None:
    config, rules = tmp_path / "world.toml", tmp_path / "auth.toml"
    said(capsys, "outage", "--write-config", str(config), *FEW)
    token, row = new_token("simulator", "admin")
    rules.write_text(row)
    server = start_server("--config", str(config), "--auth-file", str(rules))
    asked = ("outage", "--strategy", "hybrid", "--target", server.address, *FEW)
    assert "UNAUTHENTICATED" in said(capsys, *asked, code=1)
    monkeypatch.setenv("ROUTING_TOKEN", token)
    assert "hybrid" in said(capsys, *asked)


def test_a_server_with_other_backends_is_refused(
    capsys: pytest.CaptureFixture[str], start_server: StartServer
) -> None:
    line = said(capsys, "outage", "--target", start_server().address, code=1)
    assert line.startswith("routing: the server's backends are not those of this world, for example '")


def test_a_server_with_a_clock_of_its_own_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    config = tmp_path / "world.toml"
    said(capsys, "outage", "--write-config", str(config), *FEW)
    config.write_text(config.read_text().replace('clock = "request"', 'clock = "system"'))
    line = said(capsys, "outage", "--target", start_server("--config", str(config)).address, code=1)
    assert line.startswith("routing: the server uses its own clock (")
