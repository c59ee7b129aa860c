"""What each command does: read the flags, ask, show.

Whatever is heavy is imported inside the command that needs it: `routing --help` must
not wait for a gRPC library.
"""

import os
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from routing.asking import credential, target, tls
from routing.cells import duration_text
from routing.display import Cell
from routing.errors import ConfigError, InvalidArgument
from routing.screen import Screen
from routing.views import decision_view, insights_view, learned_view, profiles_view, update_view

if TYPE_CHECKING:
    from routing.check import Finding
    from routing.client import RoutingClient
    from routing.client.values import Metrics
    from routing.core.model import Location

Result = TypeVar("Result")

FINE, REFUSED = 0, 1

_METADATA = {
    "operation": "operation",
    "retention_months": "retention_months",
    "expected_reads": "expected_reads",
    "require_tag": "require_tags",
    "exclude_backend": "exclude_backends",
}
"""The flags of `select` that travel in the request's metadata, and their keys there."""

_ALWAYS_SHOWN = ("system", "backends")
"""What `watch` shows where no section is named."""


def select(arguments: Namespace, screen: Screen) -> int:
    """Asks for a choice and shows why it fell as it did."""
    metadata = {key: getattr(arguments, flag) for flag, key in _METADATA.items()}
    selection = _ask(
        arguments,
        screen,
        lambda client: client.select(
            content_hash=arguments.hash,
            content_type=arguments.type,
            size_bytes=arguments.size,
            metadata={key: value for key, value in metadata.items() if value is not None} or None,
            strategy=arguments.strategy,
            priority=arguments.priority,
            available_backends=arguments.backend or (),
            location=_location(arguments),
            request_id=arguments.request_id or None,
            at=arguments.at,
            explain=True,
        ),
    )
    values = answer_values(selection)
    screen.answer(values, *decision_view(values))
    return FINE


def _location(arguments: Namespace) -> "Location":
    from routing.core.model import Location

    if (arguments.latitude is None) != (arguments.longitude is None):
        given = arguments.latitude if arguments.longitude is None else arguments.longitude
        raise InvalidArgument("--latitude, --longitude", given, "both or neither")
    return Location(arguments.latitude, arguments.longitude, arguments.region)


def record(arguments: Namespace, screen: Screen) -> int:
    """Reports one outcome; an outcome that the server did not take is a refusal."""
    answer = _ask(
        arguments,
        screen,
        lambda client: client.record(
            arguments.backend,
            arguments.success,
            request_id=arguments.request_id,
            content_hash=arguments.hash,
            content_type=arguments.type,
            size_bytes=arguments.size,
            duration_ms=arguments.duration_ms,
            error=arguments.error,
            at=arguments.at,
        ),
    )
    screen.answer(answer_values(answer), (answer.message,))
    return FINE if answer.recorded else REFUSED


def insights(arguments: Namespace, screen: Screen) -> int:
    """Shows what the server has learned."""
    answer = _ask(
        arguments,
        screen,
        lambda client: client.insights(
            backend_id=arguments.backend, content_type=arguments.type, hours=arguments.hours
        ),
    )
    values = answer_values(answer)
    screen.answer(values, *insights_view(values))
    return FINE


def check(arguments: Namespace, screen: Screen) -> int:
    """Runs every check, says each as it ends, and refuses where one failed."""
    import asyncio

    findings = asyncio.run(_check(arguments, screen))
    failed = sum(not finding.passed for finding in findings)
    if screen.as_json:
        checks = plain_values(findings)
        screen.answer({"target": target(arguments), "passed": not failed, "checks": checks})
    if failed:
        screen.complain(f"{failed} of {len(findings)} checks of {target(arguments)} failed")
        return REFUSED
    screen.say(f"all {len(findings)} checks of {target(arguments)} passed")
    return FINE


async def _check(arguments: Namespace, screen: Screen) -> "list[Finding]":
    from routing.check import CHECKS, Probe, examine
    from routing.client import RoutingClient
    from routing.client.link import bearer
    from routing.client.target import opener

    server, trust, secret = target(arguments), tls(arguments), credential(arguments)
    width = max(len(name) for name, _ in CHECKS)
    findings = []
    channel = opener(server, trust)()
    try:
        async with RoutingClient(
            server, tls=trust, token=secret, timeout_seconds=arguments.timeout, retries=0
        ) as client:
            async for finding in examine(Probe(client, channel, arguments.timeout, bearer(secret))):
                findings.append(finding)
                mark = Cell("ok  ", "good") if finding.passed else Cell("FAIL", "bad")
                took = duration_text(finding.took_ms)
                screen.say(mark, f"{finding.name:<{width}}", f"{took:>8}", finding.said)
    finally:
        channel.close()
    return findings


def watch(arguments: Namespace, screen: Screen) -> int:
    """Shows updates until it is stopped, which is how it is meant to end."""
    import asyncio

    try:
        asyncio.run(_watch(arguments, screen))
    except KeyboardInterrupt:
        pass
    return FINE


async def _watch(arguments: Namespace, screen: Screen) -> None:
    from contextlib import aclosing

    wanted = arguments.section or _ALWAYS_SHOWN
    async with client_of(arguments) as client:
        stream = client.metrics(
            interval_seconds=arguments.interval,
            sections=tuple(dict.fromkeys(("system", *(name for name in wanted if name != "backends")))),
            include_backends="backends" in wanted,
        )
        async with aclosing(stream) as updates:
            with screen.working("waiting for the first update"):
                update = await anext(updates, None)
            with screen.updates(update_view) as show:
                shown = 0
                while update is not None:
                    show(_update_values(update))
                    shown += 1
                    update = None if shown == arguments.count else await anext(updates, None)


def serve(arguments: Namespace, _screen: Screen) -> int:
    """Runs the server until it is told to stop."""
    import asyncio

    from routing.config import load
    from routing.loops import loop_factory
    from routing.options import OPTIONS
    from routing.server import serve

    flags = {option.key: getattr(arguments, option.key) for option in OPTIONS if option.flag}
    settings = load(path=arguments.config, environment=os.environ, flags=flags)
    with asyncio.Runner(loop_factory=loop_factory(settings.server.event_loop)) as runner:
        runner.run(serve(settings))
    return FINE


def backends(arguments: Namespace, screen: Screen) -> int:
    """Shows what a server has learned; without --learned, the profiles, from the settings
    that `serve` would read."""
    if arguments.learned:
        return _learned(arguments, screen)
    if arguments.target:
        raise InvalidArgument("--target", arguments.target, "a server only with --learned")
    from routing.config import load

    settings = load(path=arguments.config, environment=os.environ)
    for warning in settings.warnings:
        screen.complain(warning)
    profiles = plain_values(settings.backends)
    screen.answer(profiles, *profiles_view(profiles))
    return FINE


def _learned(arguments: Namespace, screen: Screen) -> int:
    from contextlib import aclosing

    if arguments.config:
        raise InvalidArgument("--config", arguments.config, "no file with --learned")

    async def first(client: "RoutingClient") -> "Metrics":
        async with aclosing(client.metrics(sections=("learned",))) as updates:
            return await anext(updates)

    update = _ask(arguments, screen, first)
    values = {"timestamp": update.at, "backends": plain_values(update.learned)}
    screen.answer(values, *learned_view(values))
    return FINE


def token(arguments: Namespace, screen: Screen) -> int:
    """Makes a token and its row, and keeps neither: a secret, and what goes into a file, on
    outputs of their own."""
    from routing.auth import NAME, new_token
    from routing.kinds import Mismatch

    try:
        made, row = new_token(NAME.read(arguments.name), arguments.role)
    except Mismatch as mismatch:
        raise ConfigError("command line", "--name", str(mismatch)) from None
    if screen.as_json:
        screen.answer({"token": made, "row": row})
    else:
        screen.err.write(f"{made}\n")
        screen.write(row)
    return FINE


def simulate(arguments: Namespace, screen: Screen) -> int:
    """Plays policies through simulated worlds."""
    from routing.simulate import simulate

    return simulate(arguments, screen)


def generate(arguments: Namespace, screen: Screen) -> int:
    """Compiles proto/ and says what changed; with --check, what would, as a refusal."""
    from routing.generate import checkout, generate

    with screen.working("compiling proto/"):
        changed = generate(*checkout(), check=arguments.check)
    for name in changed:
        screen.say(Cell("out of date" if arguments.check else "written", "warn"), f"gen/{name}")
    if not changed:
        screen.say("gen/ is what the compiler makes of proto/")
    return REFUSED if changed and arguments.check else FINE


def _ask(
    arguments: Namespace, screen: Screen, call: Callable[["RoutingClient"], Awaitable[Result]]
) -> Result:
    """The answer to one call, on a connection of its own."""
    import asyncio

    async def ask() -> Result:
        async with client_of(arguments) as client:
            return await call(client)

    with screen.working(f"asking {target(arguments)}"):
        return asyncio.run(ask())


def client_of(arguments: Namespace) -> "RoutingClient":
    """A client of the server to ask."""
    from routing.client import RoutingClient

    return RoutingClient(
        target(arguments),
        tls=tls(arguments),
        token=credential(arguments),
        timeout_seconds=arguments.timeout,
    )


def answer_values(answer: object) -> dict[str, Any]:
    """An answer of the client under the contract's field names."""
    names = {"at": "timestamp", "recorded": "success"}
    return {names.get(key, key): value for key, value in plain_values(answer).items()}


def _update_values(update: "Metrics") -> dict[str, Any]:
    sections = plain_values(update)
    fixed = {"timestamp": sections.pop("at"), "status": sections.pop("status").name}
    sections |= sections.pop("other")
    return {**fixed, "metrics": {name: section for name, section in sections.items() if section is not None}}


def plain_values(value: Any) -> Any:
    """Dataclasses and mappings as dicts, all the way down; what is neither stays as it is."""
    if is_dataclass(value):
        return {field.name: plain_values(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain_values(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain_values(each) for each in value]
    return value
