"""`routing replay`: replays a trace by the flags, and shows the comparison."""

import os
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from routing.cli.connect import FINE, client_of, target
from routing.cli.output.screen import Screen
from routing.errors import BadTrace, InvalidArgument

if TYPE_CHECKING:
    from routing.replay.evaluation import Evaluation
    from routing.replay.trace import Trace


def replay(arguments: Namespace, screen: Screen) -> int:
    """Asks a router about every row of a trace, and compares."""
    import asyncio

    from routing.cli.output.replay_view import replay_view
    from routing.replay.evaluation import Evaluation
    from routing.replay.source import Source
    from routing.replay.trace import Trace

    _check(arguments)
    asked = {
        "strategy": arguments.strategy,
        "priority": arguments.priority,
        "available_backends": arguments.backend,
    }
    with Source(arguments.file) as source:
        trace = Trace(source, asked, skip_invalid=arguments.skip_invalid)
        evaluation = Evaluation()
        with screen.working(lambda: _progress(trace, evaluation)):
            asyncio.run(_replay(arguments, screen, trace, evaluation))
    if not evaluation.rows:
        got = f"{trace.skipped:,} invalid ones; the first: {trace.first_skipped}" if trace.skipped else "none"
        raise BadTrace(trace.name, 0, f"expected rows, got {got}")
    values = _values(arguments, trace, evaluation)
    screen.answer(values, *replay_view(values))
    return FINE


def _check(arguments: Namespace) -> None:
    """Refuses flags that apply only to a router in this process."""
    for flag, value in (("--config", arguments.config), ("--seed", arguments.seed)):
        if arguments.target and value is not None:
            raise InvalidArgument(flag, value, "nothing with --target: a running server has its own")


async def _replay(arguments: Namespace, screen: Screen, trace: "Trace", evaluation: "Evaluation") -> None:
    from routing.replay.run import replay
    from routing.replay.teach import Teach

    teach = Teach(arguments.teach)
    if arguments.target:
        from routing.replay.remote import RemoteDecider

        async with client_of(arguments) as client:
            await replay(trace, RemoteDecider(client, target(arguments)), evaluation, teach=teach)
        return
    from routing.config.load import load
    from routing.replay.local import LocalDecider

    settings = load(path=arguments.config, environment=os.environ)
    for warning in settings.warnings:
        screen.complain(warning)
    await replay(trace, LocalDecider(settings, seed=arguments.seed or 0), evaluation, teach=teach)


def _progress(trace: "Trace", evaluation: "Evaluation") -> str:
    share = trace.share_read
    read = "" if share is None else f"  {share:.0%}"
    return f"replaying {trace.name}{read}  {evaluation.rows:,} rows"


def _values(arguments: Namespace, trace: "Trace", evaluation: "Evaluation") -> dict[str, Any]:
    """Everything that --json prints: the same trace, settings and seed, the same bytes."""
    from routing.wire import write_time

    return {
        "trace": {
            "name": trace.name,
            "first_at": write_time(evaluation.first_at),
            "last_at": write_time(evaluation.last_at),
            "out_of_order": trace.out_of_order,
            "skipped": trace.skipped,
            "first_skipped": trace.first_skipped,
            "unknown_columns": trace.unknown,
        },
        "router": {
            "target": arguments.target,
            "strategy": arguments.strategy,
            "priority": arguments.priority,
            "seed": None if arguments.target else arguments.seed or 0,
            "teach": str(arguments.teach),
        },
        **evaluation.values(weighted=trace.has_propensity),
    }
