"""Stories in tests/core/scenarios/*.txt: commands, a clock, what came of it, and why.

A story is a list of commands, each followed by `----` and the output that is expected.
`#` begins a comment. A command is a word, its subjects, and fields: `select
strategy=cost size_bytes=5`. The clock starts at 0 and moves only by `wait`.

To write the outputs anew after a change that can be explained:

    python -m pytest tests/core/test_scenarios.py --rewrite

and read the difference before it is committed.
"""

import ast
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from routing.core.model import Backend, Location, Operation, Outcome, Query
from routing.core.report import insights, status
from routing.core.router import Router
from routing.errors import RoutingError
from support.makers import router

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))

READERS: dict[str, Callable[[str], Any]] = {
    "operation": Operation,
    "tags": lambda text: frozenset(text.split(",")),
    "require_tags": lambda text: frozenset(text.split(",")),
    "exclude_backends": lambda text: frozenset(text.split(",")),
    "available_backends": lambda text: tuple(text.split(",")),
    "location": lambda text: (
        Location(region=text) if "/" not in text else Location(*map(float, text.split("/")))
    ),
}
"""Fields that are no plain number, truth or text."""


def read_field(name: str, text: str) -> Any:
    if name in READERS:
        return READERS[name](text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


class Story:
    """What the commands of one scenario act on: servers by name, of which one is spoken to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.profiles: list[Backend] = []
        self.options: dict[str, Any] = {}
        self.servers: dict[str, Router] = {}
        self.name = "one"

    @property
    def router(self) -> Router:
        if self.name not in self.servers:
            self.servers[self.name] = router(self.profiles, **self.options)
        return self.servers[self.name]

    def run(self, line: str) -> str:
        """What a command says, one line or several."""
        word, *rest = shlex.split(line)
        given = dict(part.split("=", 1) for part in rest if "=" in part)
        subjects = [part for part in rest if "=" not in part]
        values = {name: read_field(name, text) for name, text in given.items()}
        try:
            return "\n".join(COMMANDS[word](self, *subjects, **values)) or "ok"
        except RoutingError as error:
            return f"{type(error).__name__}: {error.message}"


def backend(story: Story, backend_id: str, **profile: Any) -> Iterator[str]:
    """`backend ID field=value…`: one more profile, before the first question."""
    assert not story.servers, "profiles come first"
    story.profiles.append(Backend(backend_id, **profile))
    yield from ()


def options(story: Story, **given: Any) -> Iterator[str]:
    """`options name=value…`: what the servers are started with."""
    assert not story.servers, "options come first"
    story.options |= given
    yield from ()


def server(story: Story, name: str) -> Iterator[str]:
    """`server NAME`: from now on the commands go to this one, which begins empty."""
    story.name = name
    yield repr(story.router)


def wait(story: Story, seconds: str) -> Iterator[str]:
    """`wait SECONDS`: time passes (or jumps back)."""
    story.now += float(seconds)
    yield f"{story.now:.10g} s"


def select(story: Story, *, times: int = 1, **asked: Any) -> Iterator[str]:
    """`select field=value…`: the choice, the alternatives, and why the rest was left out.
    With `times=N` only who was chosen, and how often."""
    decisions = [story.router.select(Query(**asked), now=story.now) for _ in range(times)]
    if times > 1:
        chosen = Counter((one.chosen.backend_id, one.probe) for one in decisions)
        yield ", ".join(
            f"{name}{' (probe)' * probe}: {count}" for (name, probe), count in sorted(chosen.items())
        )
        return
    [decision] = decisions
    names = [decision.chosen.backend_id + " (probe)" * decision.probe]
    yield " > ".join([*names, *(one.backend_id for one in decision.others)])
    for name, why in sorted(decision.ineligible.items()):
        yield f"not {name}: {why}"


def record(
    story: Story, backend_id: str, result: str, *, times: int = 1, ago: float = 0, **values: Any
) -> Iterator[str]:
    """`record ID ok|failed field=value…`: an outcome, `ago` seconds old, so many times."""
    if ago:
        values["happened_at"] = story.now - ago
    outcome = Outcome(backend_id, {"ok": True, "failed": False}[result], **values)
    said = Counter(story.router.record(outcome, now=story.now).message for _ in range(times))
    for message, count in said.items():
        yield message if times == 1 else f"{message}: {count}"


def states(story: Story) -> Iterator[str]:
    """`states`: ok, suspended or disabled, for each backend."""
    for one in story.router.backends:
        yield f"{one.id}: {story.router.state(one.id)}"


def counts(story: Story, hours: int = 24, **narrowed: Any) -> Iterator[str]:
    """`counts hours=N`: what GetInsights counts, and the status of StreamMetrics."""
    said = insights(story.router, hours=hours, now=story.now, **narrowed)
    for name, row in said.backend_usage_stats.items():
        timed = said.latency_stats.get(name, {}).get("count", 0)
        yield (
            f"{name}: {row['request_count']} decisions, {row['total_size']} bytes,"
            f" {row['success_count']} of {row['outcome_count']} outcomes succeeded, {timed} timed"
        )
    for content_type, row in said.content_type_distribution.items():
        yield f"{content_type}: {json.dumps(row)}"
    yield f"status {status(story.router, now=story.now).name}"


def inflight(story: Story) -> Iterator[str]:
    """`inflight`: operations decided and not yet reported, for each backend."""
    story.router.advance(story.now)
    for one in story.router.backends:
        yield f"{one.id}: {story.router._placement.inflight(one.id)}"


def restart(story: Story) -> Iterator[str]:
    """`restart`: a fresh server takes in the snapshot of this one, and must not differ."""
    snapshot = story.router.snapshot(now=story.now)
    fresh = router(story.profiles, **story.options)
    fresh.merge(json.loads(json.dumps(snapshot)), now=story.now)
    story.servers[story.name] = fresh
    yield "nothing changed" if fresh.snapshot(now=story.now) == snapshot else "something changed"


def hear(story: Story, name: str) -> Iterator[str]:
    """`hear NAME`: the server takes in all that another one knows."""
    story.router.merge(story.servers[name].snapshot(now=story.now), now=story.now)
    yield repr(story.router)


COMMANDS: dict[str, Callable[..., Iterator[str]]] = {
    one.__name__: one
    for one in (backend, options, server, wait, select, record, states, counts, inflight, restart, hear)
}


def played(text: str) -> str:
    """The scenario with every output as it comes out now."""
    story = Story()
    written: list[str] = []
    output_is_old = False
    for line in text.splitlines():
        if line == "----":
            output_is_old = True
        elif output_is_old:
            output_is_old = line != ""
        elif line and not line.startswith("#"):
            written += [line, "----", story.run(line), ""]
        elif line or written[-1:] != [""]:
            written.append(line)
    return "\n".join(written).rstrip("\n") + "\n"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_story_goes_as_it_is_written(path: Path, pytestconfig: pytest.Config) -> None:
    before = path.read_text()
    now = played(before)
    if pytestconfig.getoption("--rewrite", default=False):
        path.write_text(now)
    else:
        assert now == before


def test_every_command_is_told_somewhere() -> None:
    words = {line.split()[0] for path in SCENARIOS for line in path.read_text().splitlines() if line}
    assert set(COMMANDS) <= words


def test_a_story_that_comes_out_differently_is_noticed() -> None:
    story = "backend a\n----\nok\n\nselect\n----\nb\n"
    assert played(story) == story.replace("\nb\n", "\na\n")


def test_fields_are_those_of_the_nouns() -> None:
    known = {*Query._fields, *(field.name for field in fields(Backend))}
    assert set(READERS) <= known
