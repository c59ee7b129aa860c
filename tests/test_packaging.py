"""What is shipped: the wheel from the sdist, in a fresh environment, serving an official client."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

ROOT = Path(__file__).parent.parent
SOURCES = ("routing", "gen", "proto", "tests", "examples", "benchmarks", "docs")
MADE = shutil.ignore_patterns(
    *(".git", ".tox", ".venv", "build", "dist", "node_modules", "*.egg-info", ".hypothesis"),
    *("__pycache__", ".coverage*", ".*_cache"),
)
TIMEOUT_S = 60
"""Only how long a broken server may keep the test waiting."""


def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def below(folder: Path, pattern: str = "*") -> set[str]:
    """The files in a folder as paths from its parent, without what Python or Node leaves behind."""
    return {
        file.relative_to(folder.parent).as_posix()
        for file in folder.rglob(pattern)
        if file.is_file() and not {"__pycache__", "node_modules"} & set(file.parts)
    }


def test_the_list_of_packages_is_the_tree() -> None:
    listed = config()["options"]["packages"].split()
    folders = {ROOT / "routing", ROOT / "gen" / "routing_pb"}
    inits = {init for folder in folders for init in below(folder, "__init__.py")}
    assert listed == sorted(init.removesuffix("/__init__.py").replace("/", ".") for init in inits)


def test_every_folder_with_modules_is_a_package() -> None:
    for folder in (ROOT / "routing", ROOT / "gen" / "routing_pb"):
        homes = {file.rpartition("/")[0] for file in below(folder, "*.py")}
        assert homes == {file.rpartition("/")[0] for file in below(folder, "__init__.py")}


def test_the_run_time_needs_neither_protobuf_nor_grpcio() -> None:
    needed = config()["options"]["install_requires"].lower()
    assert "protobuf" not in needed
    assert "grpcio" not in needed


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = re.findall(r"^\$ (.*\btox)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text()


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this tree, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("archives")
    # A copy, since a build leaves folders in its source, and others may build at the same time.
    shutil.copytree(ROOT, folder / "source", ignore=MADE)
    build = [sys.executable, "-m", "build", "--outdir", folder, folder / "source"]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def fresh(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that holds the wheel and what it needs, nothing else."""
    home = tmp_path_factory.mktemp("fresh")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    (wheel,) = archives.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel))
    return python


def tried(command: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a command of the fresh environment does, away from this source tree."""
    whole = [command, *arguments]
    return subprocess.run(whole, capture_output=True, text=True, check=False, cwd=command.parent, env=clean())


def run(command: Path, *arguments: str) -> str:
    """What a command of the fresh environment prints; it must end well."""
    done = tried(command, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean() -> dict[str, str]:
    """The environment without anything that leads Python or the server elsewhere."""
    return {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ROUTING_", "COV"))
    }


@pytest.mark.packaging
def test_the_sdist_holds_the_sources_of_everything(archives: Path) -> None:
    (sdist,) = archives.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for folder in SOURCES:
        assert below(archives / "source" / folder) - held == set()
    assert {"README.md", "CHANGELOG.md", "setup.cfg", "pyproject.toml", "tox.ini"} <= held


@pytest.mark.packaging
def test_the_wheel_holds_both_packages_whole_and_nothing_else(archives: Path) -> None:
    (wheel,) = archives.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    source = archives / "source"
    assert held == below(source / "routing") | below(source / "gen" / "routing_pb")


@pytest.mark.packaging
def test_the_fresh_environment_has_neither_protobuf_nor_grpcio(fresh: Path) -> None:
    for module in ("google.protobuf", "grpc"):
        assert "ModuleNotFoundError" in tried(fresh, "-c", f"import {module}").stderr


@pytest.mark.packaging
def test_the_installed_command_knows_its_profiles(fresh: Path) -> None:
    clouds = str(ROOT / "examples" / "clouds.toml")
    assert "aws-us-east-1" in run(fresh.with_name("routing"), "backends", "--config", clouds)


@pytest.fixture
def server(fresh: Path) -> Iterator[subprocess.Popen[str]]:
    """A server from the wheel, listening where its log says."""
    command = [fresh, "-m", "routing", "serve", "--host", "127.0.0.1", "--port", "0"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=fresh.parent, env=clean(), **output) as process:
        yield process
        process.kill()


def address_of(server: subprocess.Popen[str]) -> str:
    """The address in the log's first lines; a server that ends instead has said why."""
    said = ""
    for line in server.stdout:
        said += line
        if found := re.search(r"127\.0\.0\.1:[1-9][0-9]*", line):
            return found[0]
    raise AssertionError(said)


@pytest.mark.packaging
def test_a_server_from_the_wheel_answers_an_official_client(server: subprocess.Popen[str]) -> None:
    request_class, response_class = official_classes("SelectBackendRequest", "SelectBackendResponse")
    with grpc.insecure_channel(address_of(server), options=[("grpc.enable_http_proxy", 0)]) as channel:
        select = channel.unary_unary(
            "/ipfs_kit_py.routing.RoutingService/SelectBackend",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        request = request_class(content_type="image/png", content_size=1 << 20, request_id="r-1")
        response = select(request, timeout=TIMEOUT_S, wait_for_ready=True)
    assert response.request_id == "r-1"
    chosen = {response.backend_id, *(other.backend_id for other in response.alternatives)}
    assert chosen == {"ipfs", "filecoin", "s3"}
    server.terminate()
    server.communicate(timeout=TIMEOUT_S)
    assert server.returncode == 0


def official_classes(*names: str) -> list[type]:
    """Google protobuf's own classes for some messages of the shipped descriptors."""
    shipped = files("routing_pb").joinpath("descriptors.bin").read_bytes()
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(shipped).file:
        pool.Add(file)
    return [GetMessageClass(pool.FindMessageTypeByName(f"ipfs_kit_py.routing.{name}")) for name in names]
