"""A new snapshot out of the old one and the journal, made by a process of its own.

The event loop could not spare the time: a snapshot of a busy week takes more than a
second, and a thread would take the interpreter's lock for as long. But the file says
everything, so another process can read it, do what a restart does, and write the
snapshot. It may be killed at any moment, and so may the server.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import routing
from routing.config.options import Settings
from routing.core.model import Backend
from routing.core.router import Router
from routing.store.restore import restore
from routing.store.sqlite import SqliteFile, StoreError

NICENESS = 10
"""Decisions come first where processors are few."""

COMMAND = "from routing.store.compaction import main; main()"


async def compact(path: Path, settings: Settings, *, latest: float) -> int:
    """Folds the journal into the snapshot, and answers how large that is; StoreError if it
    cannot be done.

    `latest` as in `restore`.
    """
    parent = str(Path(routing.__file__).parent.parent)
    kept = os.environ.get("PYTHONPATH")
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{parent}{os.pathsep}{kept}" if kept else parent},
            start_new_session=True,  # a Ctrl-C at the terminal is meant for the server
        )
    except OSError as error:
        raise StoreError(f"{path}: no process for a compaction ({error})") from error
    try:
        answer, said = await process.communicate(_task(path, settings, latest))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = said.decode(errors="replace").split("\n")
        raise StoreError(next((line for line in reversed(lines) if line), f"exit code {process.returncode}"))
    return int(answer)


def main() -> None:
    """The process: what to do comes from its standard input, the size of the snapshot goes out."""
    os.nice(NICENESS)
    task = json.load(sys.stdin)
    file = SqliteFile(Path(task["path"]))
    router = Router(
        [Backend(**{**one, "tags": frozenset(one["tags"])}) for one in task["backends"]],
        random=Random(0),  # noqa: S311 - it decides nothing
        **task["routing"],
    )
    file.open()
    try:
        fold(file, router, latest=task["latest"])
    finally:
        size_bytes = file.position().snapshot_bytes
        file.close()
    sys.stdout.write(str(size_bytes))


def fold(file: SqliteFile, router: Router, *, latest: float) -> None:
    """Tells a fresh router what the file says, and writes what it then knows."""
    read = restore(file, router, latest=latest)
    snapshot = router.snapshot(now=float("-inf"))
    file.write_snapshot(snapshot, instead_of=read.position.generation, through=read.last_number)


def _task(path: Path, settings: Settings, latest: float) -> bytes:
    kept = ("discover", "max_backends", "max_content_types", "retention_hours")
    backends = [{each.name: getattr(one, each.name) for each in fields(one)} for one in settings.backends]
    task = {
        "path": str(path),
        "latest": latest,
        "routing": {name: getattr(settings.routing, name) for name in kept},
        "backends": backends,
    }
    return json.dumps(task, default=_plain).encode()


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else sorted(value)
