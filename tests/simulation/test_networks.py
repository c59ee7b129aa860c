"""Measured networks: the tables, filling of gaps, and backends on nodes."""

import gzip
from importlib.resources import files
from pathlib import Path

import pytest

from routing.core.model import Backend, Location
from routing.errors import ConfigError
from routing.simulation import scenario
from routing.simulation.generate import draw
from routing.simulation.networks import HANDSHAKE_TRIPS, MeasuredBackend, measured_network
from routing.simulation.workload import START_AT
from routing.simulation.world import World

HEAD = "from,to,s0,s2\n"
SCENARIO = (
    'title = "mine"\nabout = "my own"\n[world]\nbackends = 2\nnetwork = "{network}"\nslice_s = 10\n'
    "[workload]\ncities = {cities}\nlocation = 'region'\n"
)


def world(name: str = "measured-networks", *, seed: int = 1, requests: int = 60) -> World:
    return draw(scenario.load(name), seed=seed, requests=requests)


def written(folder: Path, rows: str) -> str:
    file = folder / "rtt.csv"
    file.write_text(HEAD + rows)
    return str(file)


def test_a_round_trip_is_that_of_its_slice(tmp_path: Path) -> None:
    network = measured_network(written(tmp_path, "a,b,5,7\nb,a,6,8\n"), 10.0)
    assert network.nodes == ("a", "b")
    assert network.starts_s == (0.0, 20.0)
    found = [network.rtt_ms("a", "b", START_AT + at) for at in (-1.0, 0.0, 19.9, 20.0, 1e6)]
    assert found == [5.0, 5.0, 5.0, 7.0, 7.0]


def test_what_was_not_measured_is_filled_in(tmp_path: Path) -> None:
    network = measured_network(written(tmp_path, "a,b,5,\na,c,,9\nb,a,6,6\nc,b,,\n"), 10.0)
    assert network.rtts_ms["a", "b"] == (5.0, 5.0)
    assert network.rtts_ms["a", "c"] == network.rtts_ms["c", "a"] == (9.0, 9.0)
    assert network.rtts_ms["c", "b"] == network.rtts_ms["b", "c"] == (6.0, 6.0)  # the median of all


def test_a_compressed_table_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "rtt.csv.gz").write_bytes(gzip.compress(f"{HEAD}a,b,5,7\n".encode()))
    assert measured_network(str(tmp_path / "rtt.csv.gz"), 1.0).rtts_ms["b", "a"] == (5.0, 7.0)


@pytest.mark.parametrize(
    ("rows", "said"), [("a,b,x,7\n", "expected rows of from,to,s0,s1,..."), (None, "expected planetlab, ")]
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path: Path, rows: str | None, said: str) -> None:
    named = str(tmp_path / "absent.csv") if rows is None else written(tmp_path, rows)
    with pytest.raises(ConfigError) as caught:
        measured_network(named, 10.0)
    assert caught.value.message.startswith(f"{named}: {said}")


@pytest.mark.parametrize(("named", "nodes"), [("planetlab", 28), ("seattle", 14)])
def test_the_shipped_tables_are_complete_and_small(named: str, nodes: int) -> None:
    network = measured_network(named, 1.0)
    assert len(network.nodes) == nodes
    assert all(rtt > 0.0 for row in network.rtts_ms.values() for rtt in row)
    shipped = files("routing.simulation").joinpath("data", f"rtt_{named}.csv").read_bytes()
    assert len(gzip.compress(shipped)) < 40_000


def test_backends_and_clients_are_different_nodes_without_coordinates() -> None:
    drawn = world()
    clients = set(drawn.workload.cities)
    for one in drawn.backends.values():
        assert isinstance(one, MeasuredBackend)
        assert one.node not in clients
        assert one.profile.latitude is None
    for request in drawn.workload.requests:
        assert request.query.location == Location(region=request.city)


def test_a_profile_holds_what_the_first_slice_says_and_times_change_with_the_slice() -> None:
    drawn = world("measured-devices")
    [first, *_] = drawn.workload.requests
    for one in drawn.backends.values():
        assert isinstance(one, MeasuredBackend)
        assert one.profile.latency_ms > one.site.latency_ms
        network_ms = one.usual_ms(first) - one.slower * one.site.latency_ms
        assert network_ms >= HANDSHAKE_TRIPS * one.network.rtt_ms(first.city, one.node, first.at)
    [name, *_] = drawn.backends
    rtts = {
        one.network.rtt_ms(first.city, one.node, START_AT + 64.0 * slice_number)
        for slice_number in range(100)
        for one in [drawn.backends[name]]
        if isinstance(one, MeasuredBackend)
    }
    assert len(rtts) > 5


def test_a_table_with_too_few_nodes_is_refused(tmp_path: Path) -> None:
    network = written(tmp_path, "a,b,5,7\nb,c,6,8\n")
    (tmp_path / "mine.toml").write_text(SCENARIO.format(network=network, cities=2))
    with pytest.raises(ConfigError, match="expected at least 4 nodes for backends and clients, got 3"):
        world(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text(SCENARIO.format(network=network, cities=1))
    assert len(world(str(tmp_path / "mine.toml")).backends) == 2


def test_given_backends_stand_on_nodes() -> None:
    given = (Backend("a", latency_ms=5.0), Backend("b"))
    drawn = draw(scenario.load("measured-networks"), seed=0, requests=5, profiles=given)
    assert drawn.profiles == given
    assert drawn.backends["a"].usual_ms(drawn.workload.requests[0]) > 5.0
