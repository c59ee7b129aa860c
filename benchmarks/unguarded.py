"""The server without its guards, to measure their cost. For trusted clients on this machine only.

Takes the arguments of `routing serve`. Removed are the frame filter, the frame budget, the
validation of request headers, and all numeric limits. What an answer needs stays: header blocks,
flow-control windows, ordering.
"""

import asyncio
import sys
from dataclasses import fields, replace

from grpclib.protocol import EventsProcessor

from routing.cli.app import parser
from routing.config.load import load
from routing.config.options import OPTIONS
from routing.http2 import Http2Limits
from routing.http2.budget import Budget
from routing.http2.events import Processor
from routing.http2.frame_filter import SETTINGS, FrameFilter
from routing.server.event_loop import loop_factory
from routing.server.run import serve

BOUNDLESS = 1 << 30

KEPT = {"max_header_list_bytes", "small_data_bytes", "linger_seconds", "pause_seconds", "fast"}
"""Limits that do not bound a resource of a client."""


def without_guards() -> Http2Limits:
    """Disables the guards in this process; returns limits without bounds."""

    def admit(frame_filter: FrameFilter, size: int, kind: int, flags: int, stream: int) -> bool:
        frame_filter.greeted |= kind == SETTINGS
        return True

    FrameFilter._admit = admit  # type: ignore[method-assign]
    FrameFilter.pass_call = lambda *_: None  # type: ignore[method-assign, assignment]
    Budget.earn = lambda *_: None  # type: ignore[method-assign, assignment]
    Budget.spend = lambda *_: True  # type: ignore[method-assign, assignment]
    Processor.process_request_received = EventsProcessor.process_request_received  # type: ignore[method-assign]
    limits = Http2Limits()
    lifted = {one.name for one in fields(limits)} - KEPT
    return replace(limits, **{name: type(getattr(limits, name))(BOUNDLESS) for name in lifted})


def main() -> None:
    given = parser().parse_args(["serve", *sys.argv[1:]])
    flags = {option.key: getattr(given, option.key) for option in OPTIONS if option.flag}
    settings = load(path=given.config, flags=flags)
    with asyncio.Runner(loop_factory=loop_factory(settings.server.event_loop)) as runner:
        runner.run(serve(replace(settings, http2=without_guards())))


if __name__ == "__main__":
    main()
