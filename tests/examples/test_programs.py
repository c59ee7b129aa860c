"""The example programs, run as a stranger would run them, against a real server."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from routing.client import Insights, sync
from support.server_process import ServerProcess, process_environment

ROOT = Path(__file__).parents[2]
NODE = ROOT / "examples" / "node"
NOBODY = "127.0.0.1:1"
PATIENCE_S = 120

CI = bool(os.environ.get("CI"))


@dataclass(frozen=True)
class Run:
    """How a program ended, and what it said."""

    code: int
    output: str
    complaint: str


def run(*command: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Run:
    ended = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return Run(ended.returncode, ended.stdout, ended.stderr)


def python_example(target: str) -> Run:
    script = str(ROOT / "examples" / "client.py")
    return run(sys.executable, "-W", "error", script, target, environment=process_environment())


@pytest.fixture(scope="module")
def node_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node program in a copy of its own, installed as its README line says."""
    if shutil.which("npm") is None and not CI:
        pytest.skip("npm is not installed")
    copy = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "proto", copy / "proto")
    shutil.copytree(NODE, copy / "examples" / "node", ignore=shutil.ignore_patterns("node_modules"))
    installed = run("npm", "ci", "--ignore-scripts", cwd=copy / "examples" / "node")
    assert installed.code == 0, installed.complaint
    return copy / "examples" / "node" / "main.mjs"


@pytest.fixture
def server(server: ServerProcess) -> Iterator[ServerProcess]:
    """A real server that has nothing to complain of when it ends."""
    yield server
    assert server.stop() == 0
    assert [line for line in server.lines if " ERROR " in line or " WARNING " in line] == []


def learned(server: ServerProcess) -> Insights:
    with sync.RoutingClient(server.address) as client:
        return client.insights()


def counts(insights: Insights) -> tuple[int, int, int]:
    """Requests, outcomes and failures, over all backends."""
    used = insights.backend_usage_stats.values()
    return (
        sum(usage.request_count for usage in used),
        sum(usage.outcome_count for usage in used),
        sum(usage.failure_count for usage in used),
    )


def test_the_python_program_stores_and_reports(server: ServerProcess) -> None:
    ended = python_example(server.address)
    assert (ended.code, ended.complaint) == (0, "")
    lines = ended.output.splitlines()
    stored = [
        re.fullmatch(r"bafy-\w+: (\w+) \(score 0\.\d{3}\), \1://pretended/\d+", line) for line in lines[:3]
    ]
    assert all(stored), lines
    tried = re.fullmatch(r"second choice: (\w+)://pretended/5000, after (\w+)", lines[3])
    assert tried is not None
    assert tried[1] != tried[2]
    assert lines[-2:] == [f"update {number}: NORMAL, backends filecoin, ipfs, s3" for number in (1, 2)]
    insights = learned(server)
    assert counts(insights) == (4, 5, 1)
    assert insights.backend_usage_stats[tried[2]].failure_count == 1


def test_the_python_program_prints_what_the_server_knows(server: ServerProcess) -> None:
    output = python_example(server.address).output
    for backend_id, usage in learned(server).backend_usage_stats.items():
        assert (
            f"{backend_id}: {usage.request_count} requests, {usage.outcome_count} outcomes, success "
            in output
        )


def test_the_python_program_says_that_nobody_is_there() -> None:
    ended = python_example(NOBODY)
    assert (ended.code, ended.output) == (1, "")
    assert ended.complaint.startswith(f"the router says UNAVAILABLE: {NOBODY}: ")
    assert "Traceback" not in ended.complaint


@pytest.mark.node
def test_the_node_program_stores_and_reports(node_example: Path, server: ServerProcess) -> None:
    ended = run("node", str(node_example), server.address)
    assert (ended.code, ended.complaint) == (0, "")
    lines = ended.output.splitlines()
    selected = re.fullmatch(r"selected: (\w+) \(score (0\.\d{3})\)", lines[0])
    assert selected is not None
    insights = learned(server)
    factors = dict(line.strip().split(": ") for line in lines[1:7])
    assert list(factors) == list(insights.factor_weights)
    weighed = sum(float(factors[factor]) * weight for factor, weight in insights.factor_weights.items())
    assert weighed == pytest.approx(float(selected[2]), abs=2e-3)
    assert lines[7:] == [
        "recorded: the pretended upload succeeded",
        f"insights: {selected[1]}: 1 requests, 1 outcomes",
        *(f"update {number}: NORMAL, backends filecoin, ipfs, s3" for number in (1, 2)),
    ]
    assert counts(insights) == (1, 1, 0)
    assert insights.content_type_distribution == {"image/png": {selected[1]: 1}}
    assert insights.latency_stats[selected[1]].count == 1


@pytest.mark.node
def test_the_node_program_says_that_nobody_is_there(node_example: Path) -> None:
    ended = run("node", str(node_example), NOBODY)
    assert (ended.code, ended.output) == (1, "")
    assert ended.complaint.startswith("the router says UNAVAILABLE: ")


def test_the_lock_file_names_no_machine() -> None:
    """Versions and checksums only, so that it installs from whichever registry is set up."""
    lock = json.loads((NODE / "package-lock.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert "node_modules/@grpc/grpc-js" in packages
    assert not {name for name, each in packages.items() if "resolved" in each}
    assert {name for name, each in packages.items() if not each["integrity"].startswith("sha512-")} == set()
    manifest = json.loads((NODE / "package.json").read_text())
    assert lock["packages"][""]["dependencies"] == manifest["dependencies"]


def test_what_is_pretended_says_so() -> None:
    for program in (ROOT / "examples" / "client.py", NODE / "main.mjs"):
        assert "pretended" in program.read_text()[:400]
