"""The order of the house: which floor may import which, and how long a thing may be.

Floors are folders. A new folder gets its line in FLOORS before it gets code.
"""

import ast
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "routing"

PURE = frozenset(
    {
        "array",
        "base64",
        "bisect",
        "collections",
        "dataclasses",
        "difflib",
        "enum",
        "functools",
        "heapq",
        "itertools",
        "json",
        "math",
        "operator",
        "random",
        "struct",
        "types",
        "typing",
        "zlib",
    }
)
"""All that the core may import: nothing that has a clock, waits, logs or opens.
Of `random` it may take the type `Random`, to be handed one."""


OUTSIDE = frozenset({"asyncio", "h2", "logging", "os", "signal", "socket", "ssl", "subprocess", "time"})
"""What a module of `CALCULATORS` must not import; nor grpclib, where it has no reason."""

FLOORS: dict[str, frozenset[str]] = {
    floor: frozenset(below.split())
    for floor, below in (
        ("errors", ""),
        ("timestamps", "errors"),
        ("clock", ""),
        ("contract", ""),
        ("core", "errors contract"),
        ("protobuf", "errors"),
        ("wire", "errors protobuf"),
        ("config", "errors contract core"),
        ("rpc", "errors clock contract core protobuf wire"),
        ("access", "errors contract config rpc"),
        ("http2", "errors config rpc"),
        ("store", "errors clock core config"),
        ("server", "errors clock contract core wire config rpc access http2 store"),
        ("client", "errors contract core wire config server"),
        ("simulation", "errors core config client"),
        ("replay", "errors timestamps clock contract core wire config rpc server client"),
        (
            "cli",
            "errors timestamps contract core protobuf wire config access server client simulation replay",
        ),
        ("__main__", "cli"),
    )
}
"""Each folder or lone module of routing/, in reading order, and the floors that it may import.
`routing` itself, which has the version, is open to all."""

FOR_TESTS_ONLY = {"client.testing": frozenset({"config", "server"})}
"""The one client module that starts a server: the in-process mode."""

CALCULATORS = ("access.rate_limit", "config", "core", "rpc.requests", "rpc.responses", "simulation", "wire")
"""Modules and folders without clock, log, socket or file: bytes and values in, values out."""

KEPT = {
    "routing_pb": {"wire.__init__", "wire.codec", "wire.values", "rpc.health", "rpc.reflection", "cli.check"},
    "argparse": {
        "cli.app",
        "cli.argument_types",
        "cli.check",
        "cli.commands",
        "cli.connect",
        "cli.flags",
        "cli.replay",
        "cli.simulate",
    },
    "betterproto2": set(),
    "betterproto2_compiler": {"protobuf.generator.schema"},
    "dateutil": {"timestamps"},
    "google": set(),
    "grpc": set(),
    "hpack": {"http2.connection", "http2.hpack_cache", "http2.private_names"},
    "hyperframe": {"http2.output", "http2.session"},
    "mabwiser": {"simulation.bandits"},
    "rich": {"cli.output.tables", "cli.output.screen"},
    "shtab": {"cli.app"},
    "signal": {"server.run"},
    "sqlite3": {"store.sqlite"},
    "tomllib": {"config.toml"},
}
"""Packages that only some modules may import; google protobuf and grpcio, none."""

MOST_LINES_IN_A_MODULE = 350
MOST_LINES_IN_A_FUNCTION = 40


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


MODULES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}


def imported(file: Path) -> set[str]:
    """The modules that a file imports anywhere, also for its annotations alone: `routing`'s own as
    `routing.NAME`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively; spell the module out"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inside if name.removeprefix("routing.") in known_names()}
            found |= modules
            if len(modules) < len(inside):
                found.add(str(node.module))
    return found


def known_names() -> set[str]:
    return {name.removesuffix(".__init__") for name in MODULES}


def own_imports(name: str) -> set[str]:
    """The modules of `routing` that a module imports, by the names that FLOORS uses."""
    found = set()
    for module in imported(MODULES[name]):
        if module == "routing" or module.startswith("routing."):
            short = module.removeprefix("routing").removeprefix(".")
            package = f"{short}.__init__".removeprefix(".")
            found.add(package if package in MODULES else short)
    return found


def floor_of(name: str) -> str:
    return name.split(".")[0]


def within(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_every_folder_has_its_floor_and_every_floor_its_folder() -> None:
    assert {floor_of(name) for name in MODULES} == {"__init__", *FLOORS}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_floors_that_its_own_may(name: str) -> None:
    own = floor_of(name)
    floors = {floor_of(other) for other in own_imports(name)} - {own, "__init__"}
    # The package itself names the client's classes, which it imports when they are first used.
    allowed = FLOORS.get(own, frozenset({"client"}))
    if own == "client":
        allowed = (allowed - {"config", "server"}) | FOR_TESTS_ONLY.get(name, frozenset())
    assert floors <= allowed


def test_floors_stand_in_reading_order() -> None:
    order = list(FLOORS)
    for place, (floor, below) in enumerate(FLOORS.items()):
        assert below <= set(order[:place]), floor


def test_no_modules_import_each_other_in_a_circle() -> None:
    tuple(TopologicalSorter({name: own_imports(name) for name in MODULES}).static_order())


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_no_package_that_its_floor_must_not(name: str) -> None:
    packages = {module.split(".")[0] for module in imported(MODULES[name])} - {"routing"}
    if within(name, ["core"]):
        assert packages <= PURE
    if within(name, CALCULATORS):
        assert not packages & OUTSIDE
    assert {package for package in packages if name not in KEPT.get(package, {name})} == set()


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, ["core"])])
def test_the_core_is_handed_its_dice(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert "random" not in {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            assert [alias.name for alias in node.names] == ["Random"]
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "Random"


@pytest.mark.parametrize("name", [name for name in MODULES if not within(name, ["cli", "__main__"])])
def test_only_the_command_line_prints_and_exits(name: str) -> None:
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.Call)
    }
    assert not calls & {"print", "exit", "quit", "sys.exit", "os._exit", "SystemExit"}


@pytest.mark.parametrize("name", MODULES)
def test_no_module_passes_the_wall(name: str) -> None:
    """About 300 lines are the aim; a few more are let pass, so that no last line is squeezed in."""
    assert len(MODULES[name].read_text().splitlines()) <= MOST_LINES_IN_A_MODULE


@pytest.mark.parametrize("name", MODULES)
def test_no_function_passes_its_wall(name: str) -> None:
    """A docstring does not count: it is the part that explains."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            told = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
            assert node.end_lineno - node.lineno + 1 - told <= MOST_LINES_IN_A_FUNCTION, node.name
