"""The command `routing replay`, in this process and against a real server."""

import gzip
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from routing.cli import main
from support.replay_makers import NOON, csv_lines, json_lines, written
from support.server_process import PATIENCE_S, ServerProcess, StartServer, command, process_environment

ROOT = Path(__file__).parents[2]
TRACE = str(ROOT / "examples" / "simulated-trace.csv")
CONFIG = str(ROOT / "examples" / "minimal.toml")
REQUEST_CLOCK = {"ROUTING_CLOCK": "request"}


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ROUTING_")]:
        monkeypatch.delenv(name)


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def replay(capsys: pytest.CaptureFixture[str]) -> Any:
    def replay(*argv: str) -> Said:
        return Said(main(["replay", *argv]), *capsys.readouterr())

    return replay


def test_the_example_is_what_its_program_writes() -> None:
    written = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "simulated_trace.py")], capture_output=True, check=True
    )
    assert written.stdout.decode() == Path(TRACE).read_text()


def test_the_simulated_example_says_that_it_is() -> None:
    assert "made up" in (ROOT / "examples" / "simulated_trace.py").read_text()[:300]


def test_the_output_has_backends_seen_and_modelled_figures_and_a_legend(replay: Any) -> None:
    said = replay(TRACE, "--config", CONFIG)
    assert (said.code, said.err) == (0, "")
    heading, router, *_, backends, seen, modelled, prose = said.out.strip().split("\n\n")
    assert heading == f"{TRACE}  600 rows  2026-03-02 08:00:30 to 2026-03-02 13:59:42 UTC"
    assert router.startswith("router in this process  strategy as in the trace, or hybrid  taught ")
    names = [line.split()[0] for line in backends.splitlines()[2:]]
    assert names == ["bucket-frankfurt", "bucket-oregon", "disk-in-the-cellar"]
    assert seen.splitlines()[2].startswith("logged, all            600    600   91.7 %")
    assert seen.splitlines()[3].startswith("router, weighted")
    assert re.match(r"modelled, \d+ rows\n", modelled)
    assert "each weighted by 1" in prose
    assert all(len(line) <= 120 for line in said.out.splitlines())


def test_the_same_trace_and_seed_print_the_same_bytes(replay: Any) -> None:
    one, same, other = (
        replay(TRACE, "--config", CONFIG, "--strategy", "adaptive", "--json", "--seed", seed).out
        for seed in ("1", "1", "2")
    )
    assert one == same != other


def test_without_propensities_it_says_that_the_rows_may_be_a_selection(replay: Any, tmp_path: Path) -> None:
    said = replay(written(tmp_path, json_lines([{"backend_id": name} for name in ("s3", "ipfs", "s3")])))
    assert "router, where it agreed" in said.out
    assert "Otherwise these rows are a selection" in said.out
    assert "hardly more than an anecdote" in said.out
    assert "doubtful" not in said.out


def test_propensities_that_cannot_be_right_are_doubted(replay: Any, tmp_path: Path) -> None:
    rows = [{"backend_id": "s3", "propensity": 0.25, "timestamp": NOON + at} for at in range(200)]
    said = replay(written(tmp_path, json_lines([*rows, {"backend_id": "ipfs", "propensity": 0.25}])))
    assert "doubtful  The weights have a mean of 3.98 ± 0.02" in said.out


def test_oddities_of_the_trace_are_reported(replay: Any, tmp_path: Path) -> None:
    rows = [
        {"backend_id": "s3", "timestamp": NOON + 5, "mood": "good"},
        {"backend_id": "gone", "timestamp": NOON},
        {"backend_id": "s3", "require_tags": ["on-the-moon"]},
        {"backend_id": "s3", "success": "perhaps"},
    ]
    path = written(tmp_path, json_lines(rows), "t.jsonl")
    said = replay(path, "--skip-invalid", "--teach", "all")
    assert (said.code, said.err) == (0, "")
    assert "rows that stood behind later ones, put in order: 2" in said.out
    assert f"rows skipped: 1; the first: {path}: line 4: success: expected true or false" in said.out
    assert "ignored columns: mood" in said.out
    assert "rows for which no backend was eligible: 1; the first: no eligible backend (" in said.out
    assert "was no candidate for the router (unknown, not eligible or suspended): 1\n" in said.out
    assert "taught 3 outcomes (all)" in said.out
    values = replay(path, "--skip-invalid", "--json").json
    assert values["trace"]["skipped"] == 1
    assert values["trace"]["unknown_columns"] == ["mood"]


@pytest.mark.parametrize(
    ("content", "flags", "said"),
    [
        ("a,b\n", [], "trace: line 1: expected a header with the columns timestamp, backend_id, or one JSON"),
        (csv_lines("timestamp,backend_id"), [], "trace: expected rows, got none"),
        (csv_lines("timestamp,backend_id", "x,s3"), [], "trace: line 2: timestamp: expected a time"),
        (
            csv_lines("timestamp,backend_id", "x,s3"),
            ["--skip-invalid"],
            "trace: expected rows, got 1 invalid ones; the first: trace: line 2: timestamp: expected",
        ),
        (json_lines([{}]), ["--config", "absent.toml"], "absent.toml: expected a file that can be read"),
        (
            json_lines([{}]),
            ["--target", "x:1", "--seed", "1"],
            "--seed: 1 is not valid; expected nothing with",
        ),
        (
            json_lines([{}]),
            ["--target", "x:1", "--config", "c"],
            "--config: 'c' is not valid; expected nothing",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    content: str, flags: list[str], said: str, replay: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, content)
    found = replay("trace", *flags)
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(f"routing: {said}")
    assert found.err.count("\n") == 1


def run(*argv: str, stdin: bytes = b"") -> Said:
    done = subprocess.run(
        [*command(), "replay", *argv],
        input=stdin,
        capture_output=True,
        env=process_environment(),
        timeout=PATIENCE_S,
        check=False,
    )
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("packed", [False, True])
def test_a_dash_reads_the_standard_input(packed: bool) -> None:
    content = json_lines([{"backend_id": "s3"}] * 3).encode()
    said = run("-", stdin=gzip.compress(content) if packed else content)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("standard input  3 rows")


def test_a_closed_standard_input_is_one_line() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *command(), "replay", "-"],
        capture_output=True,
        text=True,
        env=process_environment(),
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "routing: standard input: expected one that is open\n"


def test_a_terminal_shows_progress(tmp_path: Path) -> None:
    """The pipe gives rows, and no end: so the wait is as long as it takes to see the progress."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command(), "replay", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=process_environment({"TERM": "xterm"}),
    )
    os.close(theirs)
    assert process.stdin is not None
    process.stdin.write(json_lines([{"backend_id": "s3"}] * 5).encode())
    process.stdin.flush()
    seen = b""
    while b"replaying standard input  0 rows" not in seen:
        seen += os.read(ours, 1024)
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 0
    os.close(ours)


# --- through a server ---


def test_a_server_chooses_as_a_router_in_this_process_does(start_server: StartServer, replay: Any) -> None:
    """But for what is in flight, which a server cannot be told to forget, and which slows backends:
    two choices of 600 differ, and one of them counts for twenty."""
    server = start_server("--config", CONFIG, environment=REQUEST_CLOCK)
    local = replay(TRACE, "--config", CONFIG, "--json").json
    remote = replay(TRACE, "--target", server.address, "--json").json
    assert remote["router"].pop("target") == server.address
    del local["router"]["target"], local["router"]["seed"], remote["router"]["seed"]
    numbers, others = flat(local), flat(remote)
    assert numbers.keys() == others.keys()
    for name, value in numbers.items():
        if isinstance(value, (int, float)):
            # A standard error doubles with one failure that counts for twenty.
            close = 0.01 if name.endswith("_rate_error") else 1e-9
            value = pytest.approx(value, rel=0.03, abs=6 if isinstance(value, int) else close)
        assert others[name] == value, name
    assert local["taught"] > 200


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def test_teaching_all_outcomes_leaves_a_warm_server(
    start_server: StartServer, replay: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_server("--config", CONFIG, environment=REQUEST_CLOCK)
    said = replay(TRACE, "--target", server.address, "--teach", "all")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[2].startswith(
        f"router {server.address}  strategy as in the trace, or hybrid  taught 600"
    )
    assert main(["backends", "--learned", "--target", server.address, "--json"]) == 0
    learned = json.loads(capsys.readouterr().out)["backends"]
    assert {name: row["outcomes"] for name, row in learned.items()} == {
        "bucket-frankfurt": 289,
        "bucket-oregon": 71,
        "disk-in-the-cellar": 240,
    }
    cellar = learned["disk-in-the-cellar"]
    assert cellar["large_ms"] > 5 * cellar["large_prior_ms"], "the trace's slow line"


def test_a_server_with_a_clock_of_its_own_is_refused_and_learns_nothing(
    server: ServerProcess, replay: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said = replay(TRACE, "--target", server.address)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(
        f'routing: --target {server.address}: expected a server with clock = "request" in [routing] '
    )
    assert said.err.endswith("UTC, the trace begins at 2026-03-02 08:00:30\n")
    main(["insights", "--target", server.address, "--json"])
    assert json.loads(capsys.readouterr().out)["backend_usage_stats"] == {}


def test_a_server_with_a_clock_of_its_own_is_refused_also_by_a_trace_of_the_future(
    server: ServerProcess, replay: Any, tmp_path: Path
) -> None:
    path = written(tmp_path, json_lines([{"timestamp": "2999-01-01T00:00:00Z", "backend_id": "s3"}]))
    said = replay(path, "--target", server.address)
    assert said.code == 2
    assert 'expected a server with clock = "request"' in said.err


def test_a_server_that_has_seen_a_later_trace_is_refused(
    start_server: StartServer, replay: Any, tmp_path: Path
) -> None:
    server = start_server(environment=REQUEST_CLOCK)
    path = written(tmp_path, json_lines([{"backend_id": "s3", "timestamp": NOON + at} for at in (0, 60)]))
    assert replay(path, "--target", server.address).code == 0
    said = replay(path, "--target", server.address)
    assert said.code == 2
    assert "its clock says 2026-03-04 12:01:00 UTC, the trace begins at 2026-03-04 12:00:00" in said.err


def test_a_name_that_a_server_may_not_discover_is_an_error_of_the_row(
    start_server: StartServer, replay: Any, tmp_path: Path
) -> None:
    server = start_server(environment=REQUEST_CLOCK | {"ROUTING_DISCOVER": "false"})
    rows = [{"backend_id": "s3"}, {"backend_id": "x", "available_backends": ["x"]}]
    path = written(tmp_path, json_lines(rows))
    said = replay(path, "--target", server.address)
    assert said.code == 2
    assert said.err.startswith(f"routing: {path}: line 2: available_backends: 'x' is not valid")


def test_refusals_read_the_same_in_process_and_through_a_server(
    start_server: StartServer, replay: Any, tmp_path: Path
) -> None:
    config = written(tmp_path, "[routing]\ndiscover = false\n", "routing.toml")
    server = start_server("--config", config, environment=REQUEST_CLOCK)
    rows = [{"backend_id": "s3"}, {"backend_id": "s3", "require_tags": ["on-the-moon"]}, {"backend_id": "x"}]
    path = written(tmp_path, json_lines(rows))
    local, remote = (
        replay(path, "--teach", "all", "--json", *how).json
        for how in (("--config", config), ("--target", server.address))
    )
    assert (local["taught"], local["untaught"], local["refused"], local["not_offered"]) == (2, 1, 1, 1)
    assert local["first_untaught"].startswith("backend_id: 'x' is not valid; expected the id of a configured")
    assert local["first_refusal"].startswith("no eligible backend (filecoin: lacks the tags on-the-moon")
    counts = ("taught", "untaught", "first_untaught", "refused", "first_refusal", "not_offered", "agreed")
    assert {name: local[name] for name in counts} == {name: remote[name] for name in counts}


def test_a_doubtful_setting_is_reported(replay: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTING_PROT", "1")
    said = replay(written(tmp_path, json_lines([{"backend_id": "s3"}])))
    assert said.code == 0
    assert said.err == "routing: ROUTING_PROT is not a setting and is ignored; did you mean ROUTING_PORT?\n"


def test_a_server_that_is_not_there_is_one_line_and_exit_code_1(replay: Any) -> None:
    said = replay(TRACE, "--target", "127.0.0.1:1", "--timeout", "5")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("routing: UNAVAILABLE: 127.0.0.1:1: ")
