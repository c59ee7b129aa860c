"""Compiles proto/ into gen/routing_pb: dataclasses, service bases, stubs, codecs, descriptors."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from routing.errors import ConfigError, MissingExtra, RoutingError

PACKAGE = "routing_pb"
DESCRIPTORS = "descriptors.bin"

_OPTIONS = "client_generation=async,server_generation=async"
_PROGRAMS = ("protoc-gen-python_betterproto2", "ruff")
_RUFF_COMMANDS = (("check", "--quiet", "--fix", "--select", "I,F401", "-"), ("format", "--quiet", "-"))
"""The ruff commands that betterproto2's compiler runs over its output, run over the codecs too."""


def checkout() -> tuple[Path, Path]:
    """proto/ and gen/ of the checkout that this package lies in; ConfigError where it is an
    installed one, which has neither.

    It looks for our own file, since a folder `proto` beside an installed package may be
    another project's.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / "proto" / "routing.proto").is_file():
        raise ConfigError(
            "routing generate", "", f"expected a source checkout; {root} has no proto/routing.proto"
        )
    return root / "proto", root / "gen"


def generate(proto_dir: Path, gen_dir: Path, *, check: bool = False) -> list[str]:
    """Compiles proto/ into gen/routing_pb. Returns the files that differed, deleted ones included.

    Names are relative to `gen_dir` and sorted. With `check` nothing is written. A changed package is
    replaced as a whole, so no reader sees a mixture. Takes some seconds.
    """
    with _compiled(proto_dir.resolve()) as fresh:
        target = gen_dir / PACKAGE
        before, after = _contents(target), _contents(fresh)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if changed and not check:
            _replace(target, fresh)
    return [f"{PACKAGE}/{name}" for name in changed]


@contextmanager
def _compiled(proto_dir: Path) -> Iterator[Path]:
    """The freshly compiled package, in a temporary folder.

    ruff reads the settings of the folder it runs in and of those above, so the output would depend
    on the machine; an empty settings file ends its search. The output is one folder deeper, or ruff
    would sort the package's imports as first-party ones.
    """
    environment = _environment()
    with tempfile.TemporaryDirectory(prefix="routing-generate-") as folder:
        work = Path(folder)
        (work / "ruff.toml").touch()
        fresh = work / "out" / PACKAGE
        fresh.mkdir(parents=True)
        _run_protoc(proto_dir, fresh, work, environment)
        _write_codecs(fresh, work, environment)
        (fresh / "py.typed").touch()
        yield fresh


def _environment() -> Mapping[str, str]:
    """This process's environment, with the interpreter's own scripts first in PATH."""
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join(filter(None, (scripts, os.environ.get("PATH"))))
    if find_spec("grpc_tools") is None or not all(shutil.which(name, path=path) for name in _PROGRAMS):
        raise MissingExtra("code generation", "generate")
    return os.environ | {"PATH": path}


def _run_protoc(proto_dir: Path, fresh: Path, work: Path, environment: Mapping[str, str]) -> None:
    protos = sorted(path.relative_to(proto_dir).as_posix() for path in proto_dir.rglob("*.proto"))
    if not protos:
        raise RoutingError(f"{proto_dir} has no .proto files")
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"-I{proto_dir}"),
        f"--python_betterproto2_out={fresh}",
        f"--python_betterproto2_opt={_OPTIONS}",
        *("--include_imports", f"--descriptor_set_out={fresh / DESCRIPTORS}"),
        *protos,
    ]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise RoutingError(f"protoc: {_first_error(done.stderr)}")


def _first_error(output: str) -> str:
    """The first error of protoc as one line, or the last line of a plugin that crashed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["it failed without a message"]
    return next((line for line in lines if re.match(r"\S+\.proto:\d+:", line)), lines[-1])


def _write_codecs(fresh: Path, work: Path, environment: Mapping[str, str]) -> None:
    from routing.protobuf.generator.emitter import (
        codec_modules,  # needs the extra, which `_environment` has checked for
    )

    for name, source in codec_modules((fresh / DESCRIPTORS).read_bytes()).items():
        for arguments in _RUFF_COMMANDS:
            command = [shutil.which("ruff", path=environment["PATH"]) or "ruff", *arguments]
            source = subprocess.run(  # noqa: S603
                command, input=source, cwd=work, env=environment, capture_output=True, text=True, check=True
            ).stdout
        (fresh / name).write_text(source, encoding="utf-8")


def _contents(package: Path) -> dict[str, bytes]:
    """{name: bytes} of every file in the package, except __pycache__."""
    return {
        path.relative_to(package).as_posix(): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _replace(target: Path, fresh: Path) -> None:
    """Replaces the package by renaming. The new one is copied beside it first: renaming needs one file
    system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".generate-", dir=target.parent) as folder:
        new, old = Path(folder) / "new", Path(folder) / "old"
        shutil.copytree(fresh, new)
        if target.exists():
            target.rename(old)
        new.rename(target)
