"""Compacts a journal: folds it into a new snapshot, in a process of its own.

A snapshot of a busy week takes more than a second, which the event loop cannot spare, and a thread
would hold the GIL for as long. The file contains the whole state, so another process can read it,
replay it as a restart does, and write the snapshot. That process and the server may be killed at
any moment.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from random import Random
from typing import Any

import routing
from routing.config.options import Settings
from routing.core.model import Backend, SuspensionRules
from routing.core.router import Router
from routing.store.restore import restore
from routing.store.sqlite import SqliteFile, StoreError

NICENESS = 10
"""Lets the server's process run first where there are few processors."""

COMMAND = "from routing.store.compaction import main; main()"


async def compact(path: Path, settings: Settings, *, latest: float) -> int:
    """Folds the journal into a new snapshot and returns its size in bytes; StoreError if it fails.

    `latest` as in `restore`.
    """
    parent = str(Path(routing.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{parent}{os.pathsep}{inherited}" if inherited else parent},
            start_new_session=True,  # Ctrl-C at the terminal must reach the server only
        )
    except OSError as error:
        raise StoreError(f"{path}: cannot start a process for the compaction ({error})") from error
    try:
        output, errors = await process.communicate(_task(path, settings, latest))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = errors.decode(errors="replace").split("\n")
        raise StoreError(next((line for line in reversed(lines) if line), f"exit code {process.returncode}"))
    return int(output)


def main() -> None:
    """The compaction process: reads its task from standard input, prints the size of the snapshot."""
    os.nice(NICENESS)
    task = json.load(sys.stdin)
    file = SqliteFile(Path(task["path"]))
    router = Router(
        [Backend(**{**profile, "tags": frozenset(profile["tags"])}) for profile in task["backends"]],
        random=Random(0),  # noqa: S311 - nothing is drawn from it
        suspension=SuspensionRules(**task["suspension"]),
        **task["routing"],
    )
    file.open(create=False)
    try:
        fold(file, router, latest=task["latest"])
    finally:
        size_bytes = file.position().snapshot_bytes
        file.close()
    sys.stdout.write(str(size_bytes))


def fold(file: SqliteFile, router: Router, *, latest: float) -> None:
    """Restores a new router from the file, and writes its snapshot."""
    restored = restore(file, router, latest=latest)
    snapshot = router.snapshot(now=float("-inf"))
    file.write_snapshot(snapshot, instead_of=restored.position.generation, through=restored.last_number)


def _task(path: Path, settings: Settings, latest: float) -> bytes:
    router_settings = ("discover", "max_backends", "max_content_types", "max_pending", "retention_hours")
    backends = [
        {field.name: getattr(backend, field.name) for field in fields(backend)}
        for backend in settings.backends
    ]
    task = {
        "path": str(path),
        "latest": latest,
        "routing": {name: getattr(settings.routing, name) for name in router_settings},
        "suspension": asdict(settings.suspension),
        "backends": backends,
    }
    return json.dumps(task, default=_json_value).encode()


def _json_value(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else sorted(value)
