"""The order of the house: who may import whom, and how long a thing may be.

FLOORS is also the reading order. A module imports only what stands above it; a new
module gets its line here before it gets code.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
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
        "enum",
        "functools",
        "heapq",
        "itertools",
        "json",
        "math",
        "operator",
        "random",
        "types",
        "typing",
        "zlib",
    }
)
"""All that the core may import: nothing that has a clock, waits, logs or opens.
Of `random` it may take the type `Random`, to be handed one."""


@dataclass(frozen=True)
class Floor:
    """A row of FLOORS. `may` None allows every package that `KEPT` does not keep for
    others. Where `apart` is set, the modules of a floor are rooms that know each
    other only through arguments (a package is one room)."""

    name: str
    modules: tuple[str, ...]
    may: frozenset[str] | None = None
    must_not: frozenset[str] = field(default_factory=frozenset)
    apart: bool = False


OUTSIDE = frozenset(
    {"asyncio", "grpclib", "h2", "logging", "os", "signal", "socket", "ssl", "subprocess", "time"}
)

FLOORS = (
    Floor("nouns", ("__init__", "errors", "core.__init__", "core.model"), PURE | {"importlib"}),
    Floor(
        "pure",
        (
            "core.geography",
            "core.factors",
            "core.scoring",
            "core.sketch",
            "core.counts",
            "core.packed",
            "core.intervals",
            "core.extremes",
            "core.sums",
            "core.windows",
            "core.recent",
            "core.placement",
            "core.suspension",
            "core.registry",
            "core.effects",
            "core.conditions",
            "core.past",
            "core.learning",
            "rate",
        ),
        PURE,
    ),
    Floor("state", ("core.router", "core.learned", "core.report", "core.events"), PURE),
    Floor(
        "translation",
        (
            "wireformat",
            "wire",
            "moments",
            "convert",
            "decided",
            "reported",
            "kinds",
            "limits",
            "options",
            "tables",
            "profiles",
            "config",
        ),
        must_not=OUTSIDE - {"grpclib"},
    ),
    Floor("one call", ("statuses", "caller", "auth", "reply", "exchange", "symbols")),
    Floor(
        "edges",
        (
            "logs",
            "expiry",
            "tls",
            "reload",
            "clock",
            "sockets",
            "loops",
            "admission",
            "calls",
            "service",
            "health",
            "reflection",
            "http2.limits",
            "http2.commons",
            "http2.gate",
            "http2.headers",
            "http2.remembered",
            "http2.streams",
            "http2.connection",
            "http2.lane",
            "http2.answers",
            "http2.protocol",
            "http2.listener",
            "http2.__init__",
            "store.sqlite",
            "store.lock",
            "store.restore",
            "store.compaction",
            "store.journal",
            "store.__init__",
            "client.errors",
            "client.values",
            "client.messages",
            "client.target",
            "client.link",
            "client.retry",
            "client.trial",
            "client.client",
            "client.__init__",
            "client.loop",
            "client.sync",
        ),
        apart=True,
    ),
    Floor("assembly", ("access", "server", "client.testing")),
    Floor(
        "simulation",
        (
            "simulation.__init__",
            "simulation.measured",
            "simulation.scenario",
            "simulation.workload",
            "simulation.truth",
            "simulation.events",
            "simulation.luck",
            "simulation.world",
            "simulation.drawing",
            "simulation.harness",
            "simulation.peers",
            "simulation.bandits",
            "simulation.policies",
            "simulation.served",
            "simulation.measures",
            "simulation.picture",
        ),
        must_not=OUTSIDE,
    ),
    Floor(
        "doors",
        (
            "schema",
            "codefields",
            "codegen",
            "generate",
            "arguments",
            "display",
            "cells",
            "views",
            "screen",
            "check",
            "replay.__init__",
            "replay.teach",
            "replay.columns",
            "replay.source",
            "replay.trace",
            "replay.choice",
            "replay.local",
            "replay.remote",
            "replay.estimates",
            "replay.evaluation",
            "replay.run",
            "replay.view",
            "flags",
            "asking",
            "simulate",
            "commands",
            "replay.command",
            "cli",
            "__main__",
        ),
    ),
)

KEPT = {
    "routing_pb": {"wire", "health", "reflection", "check"},
    "argparse": {"arguments", "flags", "asking", "simulate", "commands", "replay.command", "cli"},
    "betterproto2": set(),
    "betterproto2_compiler": {"schema"},
    "dateutil": {"moments"},
    "google": set(),
    "grpc": set(),
    "hpack": {"http2.protocol", "http2.remembered"},
    "hyperframe": {"http2.connection"},
    "mabwiser": {"simulation.bandits"},
    "rich": {"display", "screen"},
    "shtab": {"cli"},
    "signal": {"server"},
    "sqlite3": {"store.sqlite"},
    "tomllib": {"tables"},
}
"""Packages that only some modules may import; google protobuf and grpcio, nobody."""

MOST_LINES_IN_A_MODULE = 330
MOST_LINES_IN_A_FUNCTION = 40

ORDER = [name for floor in FLOORS for name in floor.modules]
FLOOR_OF = {name: floor for floor in FLOORS for name in floor.modules}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


MODULES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}


def at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from at_run_time(node)


def imported(file: Path) -> set[str]:
    """The modules that a file imports anywhere: `routing`'s own as `routing.NAME`."""
    found = set()
    for node in at_run_time(ast.parse(file.read_text())):
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


def room(name: str) -> str:
    return name.split(".")[0]


def test_every_module_has_its_place_and_every_place_its_module() -> None:
    assert set(ORDER) == set(MODULES)
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_module_imports_only_from_above(name: str) -> None:
    """What stands above cannot lead back, so there is no cycle either."""
    above = set(ORDER[: ORDER.index(name)])
    assert own_imports(name) <= above


@pytest.mark.parametrize("name", [name for name in ORDER if FLOOR_OF[name].apart])
def test_an_edge_knows_no_other_edge(name: str) -> None:
    others = {other for other in own_imports(name) if FLOOR_OF[other] is FLOOR_OF[name]}
    assert {room(other) for other in others} <= {room(name)}


@pytest.mark.parametrize("name", ORDER)
def test_a_module_imports_no_package_that_its_floor_must_not(name: str) -> None:
    floor = FLOOR_OF[name]
    packages = {module.split(".")[0] for module in imported(MODULES[name])} - {"routing"}
    if floor.may is not None:
        assert packages <= floor.may
    assert not packages & floor.must_not
    assert {package for package in packages if name not in KEPT.get(package, {name})} == set()


@pytest.mark.parametrize("name", [name for name in ORDER if name.startswith("core.")])
def test_the_core_is_handed_its_dice(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert "random" not in {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            assert [alias.name for alias in node.names] == ["Random"]
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "Random"


@pytest.mark.parametrize("name", [name for name in ORDER if FLOOR_OF[name].name != "doors"])
def test_only_the_command_line_prints_and_exits(name: str) -> None:
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.Call)
    }
    assert not calls & {"print", "exit", "quit", "sys.exit", "os._exit", "SystemExit"}


@pytest.mark.parametrize("name", ORDER)
def test_no_module_passes_the_wall(name: str) -> None:
    """300 lines is the wall; a few more are let pass, so that nobody squeezes a last one in."""
    assert len(MODULES[name].read_text().splitlines()) <= MOST_LINES_IN_A_MODULE


@pytest.mark.parametrize("name", ORDER)
def test_no_function_passes_its_wall(name: str) -> None:
    """A docstring does not count: it is the part that explains."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            told = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
            assert node.end_lineno - node.lineno + 1 - told <= MOST_LINES_IN_A_FUNCTION, node.name
