"""Private names of grpclib, h2, hpack and hyperframe: all that `routing` touches are listed, and a
server whose libraries lack one says so, and answers on the plain path or does not start."""

import ast
import importlib
import logging
import os
import shutil
import sys
import types
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import h2.connection
import pytest
from grpclib.server import Stream

from routing.client.sync import RoutingClient
from routing.errors import IncompatibleLibrary
from routing.http2.private_names import PRIVATE_NAMES, PrivateName, fast_path_possible
from support.server_process import StartServer, run

ROUTING = Path(__file__).parents[2] / "routing"
LIBRARIES = ("grpclib", "h2", "hpack", "hyperframe")

BY_NAME = {"getattr", "setattr", "delattr", "hasattr"}

KINDS = (object, type, int, str, bytes, dict, list, set, Exception, types.FunctionType, types.ModuleType)
PYTHONS_OWN = {name for kind in KINDS for name in dir(kind)} | {
    "__aenter__", "__aexit__", "__aiter__", "__all__", "__anext__", "__await__", "__bool__", "__del__",
    "__enter__", "__exit__", "__next__", "__path__", "__post_init__", "__slots__", "__version__",
}  # fmt: skip


def private(name: str) -> bool:
    return name.startswith("_") and name.strip("_") != "" and name not in PYTHONS_OWN


def names_in(tree: ast.AST) -> Iterator[str]:
    """Attributes, definitions and assignments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def names_of_libraries() -> dict[str, set[str]]:
    """The private names of each library module."""
    names = {}
    for library in LIBRARIES:
        root = Path(str(find_spec(library).origin)).parent  # type: ignore[union-attr]
        for file in root.rglob("*.py"):
            module = ".".join((library, *file.relative_to(root).with_suffix("").parts))
            tree = ast.parse(file.read_text())
            names[module.removesuffix(".__init__")] = set(filter(private, names_in(tree)))
    return names


OF_MODULE = names_of_libraries()
OF_LIBRARIES = set().union(*OF_MODULE.values())


def inherited(module: str, name: str) -> set[str]:
    """The private names of the library modules from which a class of ours inherits."""
    own = getattr(importlib.import_module(module), name, None)
    bases = own.__mro__ if isinstance(own, type) else ()
    return set().union(*(OF_MODULE.get(base.__module__, set()) for base in bases))


def scopes(tree: ast.AST, inside: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Every node, with the name of the class of the module that it stands in."""
    for node in ast.iter_child_nodes(tree):
        within = node.name if isinstance(node, ast.ClassDef) and not inside else inside
        yield node, inside
        yield from scopes(node, within)


def touches(source: str, module: str) -> set[str]:
    """The private names of the libraries that a module of ours touches.

    Through `self` and `super()`, as a method or as a class attribute: those that its class inherits.
    Anywhere else: every one that the module does not itself define, or that it defines beside an
    import of a library, where only another name is beyond doubt.
    """
    tree = ast.parse(source)
    imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    modules = imports | {str(node.module) for node in froms}
    uses_library = any(name.partition(".")[0] in LIBRARIES for name in modules)
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and on_self(node)}
    found = {name for name in modules if name.partition(".")[0] in LIBRARIES and "._" in name}
    for node in froms:
        if str(node.module).partition(".")[0] in LIBRARIES:
            found |= {alias.name for alias in node.names if private(alias.name)}
    for node, inside in scopes(tree):
        elsewhere = isinstance(node, ast.Call) or (isinstance(node, ast.Attribute) and not on_self(node))
        for name in OF_LIBRARIES.intersection(named(node)):
            ours = not (elsewhere and (uses_library or name not in own))
            if name.startswith("__") or not ours or (inside and name in inherited(module, inside)):
                found.add(name)
    return found


def named(node: ast.AST) -> Iterator[str]:
    """The name that a node touches, gives to a method, or hands to `getattr` and its like."""
    if isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in BY_NAME:
        yield from (str(one.value) for one in node.args if isinstance(one, ast.Constant))


def on_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


def touched() -> set[tuple[str, str]]:
    found = set()
    for file in sorted(ROUTING.rglob("*.py")):
        module = ".".join(file.relative_to(ROUTING).with_suffix("").parts)
        found |= {(module, name) for name in touches(file.read_text(), f"routing.{module}")}
    return found


def test_each_private_name_that_is_touched_is_listed_and_each_listed_one_touched() -> None:
    listed = {(module, one.name) for one in PRIVATE_NAMES for module in one.touched_in}
    assert touched() == listed


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def f(call): return call._h2_connection", "_h2_connection"),
        ("def f(call): return getattr(call, '_h2_connection')", "_h2_connection"),
        ("from grpclib.events import _DispatchServerEvents", "_DispatchServerEvents"),
        ("import grpclib._registry", "grpclib._registry"),
        ("from grpclib._typing import IServable", "grpclib._typing"),
        ("def f(config): return config.__for_server__()", "__for_server__"),
        ("class Session:\n    def f(self): return self._frame_dispatch_table", "_frame_dispatch_table"),
        ("class Session:\n    def _begin_new_stream(self): ...", "_begin_new_stream"),
        ("class Session:\n    def f(self): return super()._begin_new_stream()", "_begin_new_stream"),
        ("class Mine:\n    def __terminated__(self, why): ...", "__terminated__"),
        ("import grpclib\nclass A:\n    def f(self, o): self._stream = o._stream", "_stream"),
    ],
)
def test_the_scan_finds(source: str, name: str) -> None:
    assert touches(source, "routing.http2.session") == {name}


def test_names_of_our_own_are_no_touches() -> None:
    source = "class A:\n    def f(self, other): self._stream = other._stream; self.__slots__"
    assert touches(source, "routing.http2.session") == set()


@pytest.mark.parametrize("one", PRIVATE_NAMES, ids=lambda one: one.path)
def test_the_installed_libraries_have_each_name(one: PrivateName) -> None:
    assert one.present
    assert one.reason


def test_with_all_names_the_fast_path_is_possible(caplog: pytest.LogCaptureFixture) -> None:
    assert fast_path_possible()
    assert caplog.records == []


def test_missing_names_are_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("_stream_is_closed_by_reset", "_handle_data_on_closed_stream"):
        monkeypatch.delattr(h2.connection.H2Connection, name)
    assert not fast_path_possible()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"fast path is off libraries=h2 {h2.__version__} missing="
        "h2.connection.H2Connection._stream_is_closed_by_reset, "
        "h2.connection.H2Connection._handle_data_on_closed_stream"
    )


def test_a_server_that_cannot_answer_says_what_is_missing() -> None:
    one = PrivateName(Stream, "_gone", (), "", vital=True)
    with pytest.raises(
        IncompatibleLibrary, match=r"^grpclib [\d.]+: grpclib.server.Stream._gone is missing$"
    ):
        fast_path_possible([one])


def renamed(folder: Path, library: str, file: str, old: str, new: str) -> dict[str, str]:
    """The environment of a process whose library has another name for something."""
    source = Path(str(find_spec(library).origin)).parent  # type: ignore[union-attr]
    shutil.copytree(source, folder / library, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / library / file).read_text()
    assert old in text
    (folder / library / file).write_text(text.replace(old, new))
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}


def test_without_a_name_a_call_is_answered_on_the_plain_path(
    tmp_path: Path, start_server: StartServer
) -> None:
    environment = renamed(tmp_path, "h2", "connection.py", "_closed_streams", "_ended_streams")
    server = start_server(environment=environment)
    with RoutingClient(server.address) as client:
        assert client.select(content_type="image/png").backend_id
    warnings = [line for line in server.lines if "WARNING" in line]
    assert len(warnings) == 1
    assert "missing=h2.connection.H2Connection._closed_streams" in warnings[0]


def test_a_server_that_cannot_answer_does_not_start(tmp_path: Path) -> None:
    old, new = "_send_trailing_metadata_done", "_trailers_sent"
    environment = renamed(tmp_path, "grpclib", "server.py", old, new)
    process = run("serve", "--port", "0", environment=environment)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert "grpclib.server.Stream._send_trailing_metadata_done is missing" in said
