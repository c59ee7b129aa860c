"""The commands: each reads its flags, calls the server, and shows the answer.

Slow imports are inside the command that needs them, so that `routing --help` does not load
the gRPC library.
"""

import os
from argparse import Namespace
from typing import TYPE_CHECKING

from routing.cli.answers import answer_values, plain_values, update_values
from routing.cli.connect import FINE, REFUSED, ask, client_of
from routing.cli.flags import WATCHED_SECTIONS
from routing.cli.output.screen import Screen
from routing.cli.output.tables import TableCell
from routing.cli.output.views import decision_view, insights_view, learned_view, profiles_view, update_view
from routing.contract import METADATA_KEYS
from routing.errors import ConfigError, InvalidArgument

if TYPE_CHECKING:
    from routing.client import RoutingClient
    from routing.client.values import Metrics
    from routing.core.model import Location


def select(arguments: Namespace, screen: Screen) -> int:
    """Selects a backend and shows the reasons."""
    metadata = {key: getattr(arguments, key) for key in METADATA_KEYS}
    selection = ask(
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
    """Reports one outcome; exits with 1 if the server did not record it."""
    answer = ask(
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
            fault=arguments.fault,
            at=arguments.at,
        ),
    )
    screen.answer(answer_values(answer), (answer.message,))
    return FINE if answer.recorded else REFUSED


def insights(arguments: Namespace, screen: Screen) -> int:
    """Shows what the server has learned."""
    answer = ask(
        arguments,
        screen,
        lambda client: client.insights(
            backend_id=arguments.backend, content_type=arguments.type, hours=arguments.hours
        ),
    )
    values = answer_values(answer)
    screen.answer(values, *insights_view(values))
    return FINE


def watch(arguments: Namespace, screen: Screen) -> int:
    """Shows updates until Ctrl-C, which is its normal end."""
    import asyncio

    try:
        asyncio.run(_watch(arguments, screen))
    except KeyboardInterrupt:
        pass
    return FINE


async def _watch(arguments: Namespace, screen: Screen) -> None:
    from contextlib import aclosing

    from routing.core.report import BACKENDS_SECTION

    wanted = arguments.section or WATCHED_SECTIONS
    sections = ("system", *(name for name in wanted if name != BACKENDS_SECTION))
    async with client_of(arguments) as client:
        stream = client.metrics(
            interval_seconds=arguments.interval,
            sections=tuple(dict.fromkeys(sections)),
            include_backends=BACKENDS_SECTION in wanted,
        )
        async with aclosing(stream) as updates:
            with screen.working("waiting for the first update"):
                update = await anext(updates, None)
            with screen.updates(update_view) as show:
                shown = 0
                while update is not None:
                    show(update_values(update))
                    shown += 1
                    update = None if shown == arguments.count else await anext(updates, None)


def serve(arguments: Namespace, _screen: Screen) -> int:
    """Runs the server until a signal stops it."""
    import asyncio

    from routing.config.load import load
    from routing.config.options import OPTIONS
    from routing.server.event_loop import loop_factory
    from routing.server.run import serve

    flags = {option.key: getattr(arguments, option.key) for option in OPTIONS if option.flag}
    settings = load(path=arguments.config, environment=os.environ, flags=flags)
    with asyncio.Runner(loop_factory=loop_factory(settings.server.event_loop)) as runner:
        runner.run(serve(settings))
    return FINE


def backends(arguments: Namespace, screen: Screen) -> int:
    """Shows a server's estimates with --learned; otherwise the profiles of the settings that
    `serve` would read."""
    if arguments.learned:
        return _learned(arguments, screen)
    if arguments.target:
        raise InvalidArgument("--target", arguments.target, "a server only with --learned")
    from routing.config.load import load

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

    update = ask(arguments, screen, first)
    values = {"timestamp": update.at, "backends": plain_values(update.learned)}
    screen.answer(values, *learned_view(values))
    return FINE


def token(arguments: Namespace, screen: Screen) -> int:
    """Makes a token and its row for the auth file. The secret goes to the standard error, the row
    to the standard output, so that only the row is redirected into a file."""
    from routing.access.auth import NAME, new_token
    from routing.config.validators import Mismatch

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
    from routing.cli.simulate import simulate

    return simulate(arguments, screen)


def generate(arguments: Namespace, screen: Screen) -> int:
    """Compiles proto/ and lists the changed files; with --check writes nothing and exits with 1."""
    from routing.protobuf.generator.generate import checkout, generate

    with screen.working("compiling proto/"):
        changed = generate(*checkout(), check=arguments.check)
    for name in changed:
        screen.say(TableCell("out of date" if arguments.check else "written", "warn"), f"gen/{name}")
    if not changed:
        screen.say("gen/ is what the compiler makes of proto/")
    return REFUSED if changed and arguments.check else FINE
