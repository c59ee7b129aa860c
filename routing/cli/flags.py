"""The flags of each command."""

from argparse import Action, ArgumentParser, BooleanOptionalAction
from collections.abc import Callable
from types import MappingProxyType

from routing.cli.argument_types import count, moment, port, positive, seconds, size, text
from routing.contract import DEFAULT_PORT

DEFAULT_HOST = "localhost"
DEFAULT_TIMEOUT_S = 10.0
"""Longer than any answer should take, and not longer than a person waits."""

_FILE = MappingProxyType({"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"})
"""shtab.FILE, which the base install does not have: complete the value as a path."""

WATCHED_SECTIONS = ("system", "backends")
"""What `watch` shows unless the caller names sections."""


def serve(parser: ArgumentParser) -> None:
    """A flag for each option that has one; texts and choices come from the rows of OPTIONS."""
    from routing.config.options import OPTIONS

    _config(parser)
    for option in OPTIONS:
        if option.flag is None:
            continue
        default = "" if option.default in (None, False) else f" (default: {option.default})"
        shown = f"{option.help}{default}".replace("%", "%%")
        if option.validator.switch:
            parser.add_argument(option.flag, dest=option.key, action=BooleanOptionalAction, help=shown)
        else:
            choices = option.validator.choices or None
            metavar = None if choices else option.metavar
            _path(
                parser.add_argument(
                    option.flag, dest=option.key, choices=choices, metavar=metavar, help=shown
                )
            )


def generate(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where gen/ is out of date"
    )


def check(parser: ArgumentParser) -> None:
    _server(parser)


def select(parser: ArgumentParser) -> None:
    """Every field of a SelectBackendRequest, and the keys of its metadata."""
    _content(parser)
    _purpose(parser)
    _choice(parser)
    _place(parser)
    add = parser.add_argument
    add(
        "--request-id",
        type=text,
        default="",
        metavar="ID",
        help="the outcome names it, too (default: a new one)",
    )
    add("--at", type=moment, metavar="TIME", help="the request's time, for a server with clock = request")
    _server(parser)


def record(parser: ArgumentParser) -> None:
    """Every field of a RecordOutcomeRequest."""
    from routing.core.model import Fault

    parser.add_argument("backend", type=text, metavar="BACKEND", help="the backend that did the operation")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--success", dest="success", action="store_true", help="the operation succeeded")
    how.add_argument("--failure", dest="success", action="store_false", help="the operation failed")
    parser.add_argument(
        "--request-id", type=text, default="", metavar="ID", help="the decision that it belongs to"
    )
    _content(parser)
    add = parser.add_argument_group("how it went").add_argument
    add("--duration-ms", type=count, metavar="MS", help="how long the whole operation took")
    add("--error", type=text, default="", metavar="TEXT", help="what went wrong")
    add(
        "--fault",
        choices=tuple(Fault),
        default="",
        metavar="WHOSE",
        help=f"whose failure it was: {', '.join(Fault)} (default: {Fault.BACKEND})",
    )
    add(
        "--at",
        type=moment,
        metavar="TIME",
        help="when it happened, in any usual format; UTC without a time zone",
    )
    _server(parser)


def insights(parser: ArgumentParser) -> None:
    from routing.core.usage.windows import DEFAULT_HOURS

    parser.add_argument("--backend", type=text, default="", metavar="ID", help="only this backend")
    parser.add_argument("--type", type=text, default="", metavar="MIME", help="only this content type")
    hint = f"how far to look back (default: {DEFAULT_HOURS})"
    parser.add_argument("--hours", type=count, default=0, metavar="N", help=hint)
    _server(parser)


def watch(parser: ArgumentParser) -> None:
    from routing.core.report import BACKENDS_SECTION, SECTIONS

    names = (*SECTIONS, BACKENDS_SECTION)
    add = parser.add_argument
    add(
        "--interval", type=count, default=1, metavar="SECONDS", help="between updates, 1 to 3600 (default: 1)"
    )
    add("--count", type=count, default=0, metavar="N", help="stop after so many updates (default: never)")
    hint = f"show this section, repeat for each: {', '.join(names)} (default: {', '.join(WATCHED_SECTIONS)})"
    add("--section", action="append", choices=names, metavar="NAME", help=hint)
    _server(parser)


def backends(parser: ArgumentParser) -> None:
    _config(parser)
    parser.add_argument(
        "--learned", action="store_true", help="show what a running server has learned, and how sure it is"
    )
    _server(parser)


def replay(parser: ArgumentParser) -> None:
    """How to read a trace, and what decides: a router in this process, or a server."""
    from routing.replay.teach import Teach

    _path(
        parser.add_argument(
            "file", metavar="FILE", help="CSV or JSON lines, gzip or not; - reads the standard input"
        )
    )
    add = parser.add_argument
    hint = (
        "which outcomes teach the router: of rows where it agrees with the trace, or all (default: matched)"
    )
    add("--teach", choices=[each.value for each in Teach], default=Teach.MATCHED, help=hint)
    add(
        "--skip-invalid",
        action="store_true",
        help="skip and count invalid rows, rather than stop at the first",
    )
    _weighing(parser)
    _config(parser)
    add("--seed", type=count, metavar="N", help="seed of the random numbers of `adaptive` (default: 0)")
    _calling(
        parser.add_argument_group("a server that decides, rather than a router in this process").add_argument
    )
    _json(parser)


def token(parser: ArgumentParser) -> None:
    from routing.access.auth import ROLES

    add = parser.add_argument
    add("--name", type=text, required=True, metavar="NAME", help="the caller's name, for limits and messages")
    add("--role", choices=tuple(ROLES), required=True, help="what the caller may do")
    _json(parser)


def simulate(parser: ArgumentParser) -> None:
    from routing.core.scoring import STRATEGIES
    from routing.simulation.policies import POLICIES

    add = parser.add_argument
    add("scenario", nargs="*", metavar="SCENARIO", help="a name, or a .toml file of yours (default: all)")
    peers = tuple(name for name in POLICIES if name not in STRATEGIES)
    hint = f"play this strategy, repeat for more: {', '.join(STRATEGIES)}"
    add("--strategy", action="append", choices=tuple(STRATEGIES), metavar="NAME", help=hint)
    hint = f"play this peer, repeat for more: {', '.join(peers)}"
    add("--policy", action="append", choices=peers, metavar="NAME", help=hint)
    add("--requests", type=positive, default=5000, metavar="N", help="how many a run has (default: 5000)")
    add("--seed", type=count, default=0, metavar="N", help="which world to draw (default: 0)")
    add("--seeds", type=positive, default=1, metavar="N", help="play so many, from --seed on (default: 1)")
    hint = "take the backends and weights of this file (default: each world draws its own)"
    _path(add("--config", metavar="FILE", help=hint))
    hint = "draw who got the traffic over time, for the first seed, into a file ending in .svg or .html"
    _path(add("--picture", metavar="FILE", help=hint))
    hint = "write the config file of a server for --target, and play nothing"
    _path(add("--write-config", metavar="FILE", help=hint))
    add("--list", action="store_true", help="list the scenarios and the policies, and play nothing")
    hint = (
        "a server to play against, started with the file of --write-config; one scenario, strategy and seed"
    )
    _calling(parser.add_argument_group(hint).add_argument)
    _json(parser)


def completion(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell that the script is for")


def _purpose(parser: ArgumentParser) -> None:
    from routing.core.model import Operation, Query

    add = parser.add_argument_group("what to do with it").add_argument
    assumed = Query()
    hint = f"{' or '.join(Operation)} (default: {assumed.operation})"
    add("--operation", choices=list(Operation), metavar="WORD", help=hint)
    hint = f"how long it is kept (default: {assumed.retention_months:g})"
    add("--retention-months", type=float, metavar="N", help=hint)
    hint = f"how often it is read (default: {assumed.expected_reads:g})"
    add("--expected-reads", type=float, metavar="N", help=hint)


def _choice(parser: ArgumentParser) -> None:
    add = _weighing(parser)
    add(
        "--exclude-backend",
        dest="exclude_backends",
        action="append",
        type=text,
        metavar="ID",
        help="exclude this backend; repeat for each",
    )
    add(
        "--require-tag",
        dest="require_tags",
        action="append",
        type=text,
        metavar="TAG",
        help="only backends with this tag; repeat for each",
    )
    add(
        "--max-cost-usd", type=float, metavar="DOLLARS", help="only where it is expected to cost at most this"
    )
    add("--max-ms", type=float, metavar="MS", help="only where it is expected to take at most this")
    add("--min-success", type=float, metavar="SHARE", help="only where it succeeds with this probability")


def _weighing(parser: ArgumentParser) -> Callable[..., Action]:
    from routing.core.scoring import PRIORITIES, PRIORITY_ALIASES, STRATEGIES, STRATEGY_ALIASES

    add = parser.add_argument_group("how to choose").add_argument
    hint = f"which weights to use: {', '.join(STRATEGIES)} (default: {STRATEGY_ALIASES['']})"
    add("--strategy", choices=tuple(STRATEGIES), default="", metavar="NAME", help=hint)
    hint = f"how to scale them: {', '.join(PRIORITIES)} (default: {PRIORITY_ALIASES['']})"
    add("--priority", choices=tuple(PRIORITIES), default="", metavar="NAME", help=hint)
    add(
        "--backend", action="append", type=text, metavar="ID", help="choose among these only; repeat for each"
    )
    return add


def _place(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("where the client is").add_argument
    add("--latitude", type=float, metavar="DEGREES", help="north of the equator, -90 to 90")
    add("--longitude", type=float, metavar="DEGREES", help="east of Greenwich, -180 to 180")
    add("--region", type=text, default="", metavar="NAME", help="compared with the backends' regions by name")


def _content(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the content").add_argument
    add("--hash", type=text, default="", metavar="HASH", help="hash that identifies the content")
    add("--type", type=text, default="", metavar="MIME", help="MIME type, such as image/png")
    add(
        "--size",
        type=size,
        default=0,
        metavar="SIZE",
        help="bytes, or with a unit: 10MB, 4GiB (default: unknown)",
    )


def _server(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the server to call").add_argument
    add("--host", default=DEFAULT_HOST, help=f"where it listens (default: {DEFAULT_HOST})")
    add("--port", type=port, default=DEFAULT_PORT, help=f"where it listens (default: {DEFAULT_PORT})")
    _calling(add)
    _json(parser)


def _calling(add: Callable[..., Action]) -> None:
    add("--target", metavar="HOST:PORT", help="host and port in one flag")
    add("--use-ssl", action="store_true", help="call over TLS, with the system's certificate authorities")
    _path(
        add(
            "--ssl-ca",
            metavar="FILE",
            help="call over TLS, with the certificate authorities in this PEM file",
        )
    )
    _path(
        add("--ssl-cert", metavar="FILE", help="call over TLS, with the client certificate in this PEM file")
    )
    _path(add("--ssl-key", metavar="FILE", help="its private key"))
    add(
        "--token",
        help="the caller's token; other users of this machine can see a flag, but not ROUTING_TOKEN",
    )
    _path(add("--token-file", metavar="FILE", help="a file with the token"))
    add(
        "--timeout",
        type=seconds,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help=f"how long to wait for an answer (default: {DEFAULT_TIMEOUT_S:g})",
    )


def _json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")


def _config(parser: ArgumentParser) -> None:
    hint = "TOML file with settings and profiles; ROUTING_CONFIG names one, too"
    _path(parser.add_argument("--config", metavar="FILE", help=hint))


def _path(action: Action) -> None:
    """Lets shells complete the flag as a path, if it takes a file."""
    if action.metavar == "FILE":
        action.complete = dict(_FILE)  # type: ignore[attr-defined]  # read by shtab
