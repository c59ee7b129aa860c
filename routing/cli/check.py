"""`routing check`: calls every RPC of a running server, and reports what is wrong.

Each check is a row of CHECKS. It returns a description of the answer, or raises Wrong with the reason.
"""

import asyncio
import time
import uuid
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import fsum
from typing import Any, TypeVar

from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import H2Error
from routing_pb.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
)
from routing_pb.grpc.reflection import v1, v1alpha

from routing.cli.answers import plain_values
from routing.cli.connect import FINE, REFUSED, credential, target, tls
from routing.cli.output.formats import duration_text
from routing.cli.output.screen import Screen
from routing.cli.output.tables import TableCell
from routing.client import Insights, InvalidRequest, RoutingClient, Selection
from routing.client.connection import bearer
from routing.client.target import opener
from routing.contract import (
    HEALTH_SERVICE,
    REFLECTION_ALPHA_SERVICE,
    REFLECTION_SERVICE,
    ROUTING_METHODS,
    ROUTING_SERVICE,
    method_path,
)
from routing.errors import RoutingError, listed


def check(arguments: Namespace, screen: Screen) -> int:
    """Runs every check and prints its result; the exit code is REFUSED if one failed."""
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


async def _check(arguments: Namespace, screen: Screen) -> list["Finding"]:
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
                mark = TableCell("ok  ", "good") if finding.passed else TableCell("FAIL", "bad")
                took = duration_text(finding.took_ms)
                screen.say(mark, f"{finding.name:<{width}}", f"{took:>8}", finding.said)
    finally:
        channel.close()
    return findings


SERVICES = (ROUTING_SERVICE, HEALTH_SERVICE, REFLECTION_SERVICE, REFLECTION_ALPHA_SERVICE)


CONTENT_TYPE = "application/x-routing-check"
"""Distinguishes a check's decision and outcome from real ones in the insights."""


NO_STRATEGY = "no-such-strategy"


SCORE_TOLERANCE = 1e-6
"""The contract's tolerance between `score` and the sum that a client can compute."""


MAX_SKEW_S = 300.0
"""An outcome may be at most so far in the future by the contract; a server whose clock is further
behind refuses the outcomes of right clocks."""


WINDOW_HOURS = 1


NO_ANSWER = (RoutingError, StreamTerminatedError, H2Error, OSError)
"""Errors of a call that got no answer; a timeout is an OSError."""


Answer = TypeVar("Answer")


class Wrong(Exception):
    """The answer is not what the contract says, or there is none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `said` describes the answer or what is wrong with it."""

    name: str
    passed: bool
    said: str
    took_ms: float


@dataclass(slots=True)
class Probe:
    """The client and the raw channel to call with, the metadata of every call, and the results that
    later checks need."""

    client: RoutingClient
    channel: Channel
    timeout_s: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    before: Insights | None = None
    selection: Selection | None = None

    @property
    def chosen(self) -> Selection:
        """The decision of the SelectBackend check."""
        if self.selection is None:
            raise Wrong("not tried, because SelectBackend failed")
        return self.selection


async def examine(probe: Probe) -> AsyncIterator[Finding]:
    """The findings, one by one. If the server does not answer the first call, no other is made."""
    answered = False
    for name, check in CHECKS:
        started = time.perf_counter()
        try:
            said, passed = await check(probe), True
        except (Wrong, GRPCError) as error:
            said, passed, answered = _reason(error), False, True
        except NO_ANSWER as error:
            said, passed = _reason(error), False
        answered = answered or passed
        yield Finding(name, passed, said, (time.perf_counter() - started) * 1000)
        if not answered:
            return


def _reason(error: Exception) -> str:
    if isinstance(error, GRPCError):
        return f"{error.status.name}: {error.message or 'no reason given'}"
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def _must(holds: bool, reason: str) -> None:
    if not holds:
        raise Wrong(reason)


def _check_clock(at: datetime) -> None:
    skew_s = (at - datetime.now(UTC)).total_seconds()
    _must(abs(skew_s) <= MAX_SKEW_S, f"timestamp: the server's clock is {skew_s:+,.0f} s off")


async def _first(
    probe: Probe, path: str, request: object, kind: type[Answer], *, watch: bool = False
) -> Answer:
    """The first answer of a call to another service; `watch` cancels the call after it."""
    async with probe.channel.request(
        path,
        Cardinality.UNARY_STREAM,
        type(request),
        kind,
        timeout=probe.timeout_s,
        metadata=probe.metadata,
    ) as stream:
        await stream.send_message(request, end=True)
        answer = await stream.recv_message()
        if watch:
            await stream.cancel()
    if answer is None:
        raise Wrong(f"{path} ended without an answer")
    return answer


async def health(probe: Probe, method: str = "Check", *, watch: bool = False) -> str:
    for service in ("", ROUTING_SERVICE):
        path = method_path(HEALTH_SERVICE, method)
        answer = await _first(probe, path, HealthCheckRequest(service), HealthCheckResponse, watch=watch)
        serving = answer.status == HealthCheckResponseServingStatus.SERVING
        _must(serving, f"{service or 'the server'} is {answer.status!r}; expected SERVING")
    return "SERVING"


async def health_watch(probe: Probe) -> str:
    return f"first update {await health(probe, 'Watch', watch=True)}"


async def _reflection(probe: Probe, version: Any, service: str) -> str:
    async def ask(**question: str) -> Any:
        path = method_path(service, "ServerReflectionInfo")
        request = version.ServerReflectionRequest(**question)
        return await _first(probe, path, request, version.ServerReflectionResponse)

    answer = (await ask(list_services="")).list_services_response
    _must(answer is not None, "list_services was answered with something else")
    missing = set(SERVICES) - {service.name for service in answer.service}
    _must(not missing, f"list_services lacks {listed(sorted(missing))}")
    files = (await ask(file_containing_symbol=ROUTING_SERVICE)).file_descriptor_response
    _must(files is not None, f"no file contains the symbol {ROUTING_SERVICE}")
    schema = b"".join(files.file_descriptor_proto)
    absent = [method for method in ROUTING_METHODS if method.encode() not in schema]
    _must(not absent, f"the schema lacks {listed(absent)}")
    return f"{len(answer.service)} services; {ROUTING_SERVICE} in {len(files.file_descriptor_proto)} files"


async def reflection(probe: Probe) -> str:
    return await _reflection(probe, v1, REFLECTION_SERVICE)


async def reflection_alpha(probe: Probe) -> str:
    return await _reflection(probe, v1alpha, REFLECTION_ALPHA_SERVICE)


async def insights(probe: Probe) -> str:
    probe.before = await probe.client.insights(hours=WINDOW_HOURS)
    _check_clock(probe.before.at)
    total = fsum(probe.before.factor_weights.values())
    _must(abs(total - 1) <= SCORE_TOLERANCE, f"factor_weights sum to {total:.6f}; expected 1")
    return f"{len(probe.before.factor_weights)} weights, {len(probe.before.backend_scores)} backends"


async def select(probe: Probe) -> str:
    # Without a time of its own: it would move the clock of a server that replays a trace.
    request_id = uuid.uuid4().hex
    selection = await probe.client.select(content_type=CONTENT_TYPE, request_id=request_id)
    _check_clock(selection.at)
    echoed = selection.request_id
    _must(echoed == request_id, f"request_id: {echoed!r} came back; expected {request_id!r}")
    _must(bool(selection.backend_id), "backend_id is empty")
    ranks = [selection.score, *(other.score for other in selection.alternatives)]
    _must(ranks == sorted(ranks, reverse=True), "the alternatives are not ordered by score, best first")
    _must(_in_range(ranks) and _in_range(selection.factor_scores.values()), "a score lies outside [0, 1]")
    probe.selection = selection
    return f"{selection.backend_id}, score {selection.score:.4f}, {len(selection.alternatives)} alternatives"


def _in_range(scores: Any) -> bool:
    return all(0 <= score <= 1 for score in scores)


async def score(probe: Probe) -> str:
    if probe.before is None:
        raise Wrong("not tried, because GetInsights failed")
    weights, scores = probe.before.factor_weights, probe.chosen.factor_scores
    _must(set(weights) == set(scores), f"factors: scored {listed(scores)}; weighed {listed(weights)}")
    total = fsum(weights[factor] * scores[factor] for factor in weights)
    off = abs(total - probe.chosen.score)
    _must(
        off <= SCORE_TOLERANCE,
        f"score is {probe.chosen.score:.9f}, factor_scores × factor_weights {total:.9f}",
    )
    return f"{probe.chosen.score:.6f} = factor_scores × factor_weights"


async def refusal(probe: Probe) -> str:
    try:
        await probe.client.select(strategy=NO_STRATEGY)
    except InvalidRequest as error:
        _must("strategy" in error.message, f"the message does not name the field: {error.message}")
        return "an unknown strategy is INVALID_ARGUMENT"
    raise Wrong("an unknown strategy was taken; expected INVALID_ARGUMENT")


async def record(probe: Probe) -> str:
    chosen = probe.chosen
    answer = await probe.client.record(
        chosen.backend_id, True, request_id=chosen.request_id, content_type=CONTENT_TYPE
    )
    _check_clock(answer.at)
    _must(answer.recorded, f"not recorded: {answer.message}")
    return f"{chosen.backend_id}, success: {answer.message}"


async def seen(probe: Probe) -> str:
    """Others may call at the same time, so the counts grow by one at least."""
    backend_id = probe.chosen.backend_id
    if probe.before is None:
        raise Wrong("not tried, because GetInsights failed")
    before = probe.before.backend_usage_stats.get(backend_id)
    now = (await probe.client.insights(hours=WINDOW_HOURS)).backend_usage_stats.get(backend_id)
    if now is None:
        raise Wrong(f"GetInsights has no usage of {backend_id}")
    decided = now.request_count - (before.request_count if before else 0)
    reported = now.outcome_count - (before.outcome_count if before else 0)
    _must(decided >= 1, f"GetInsights does not count the decision for {backend_id}")
    _must(reported >= 1, f"GetInsights does not count the outcome of {backend_id}")
    return f"decisions of {backend_id} {decided:+,}, outcomes {reported:+,}"


async def metrics(probe: Probe) -> str:
    async with aclosing(probe.client.metrics(include_backends=True)) as updates:
        update = await anext(updates, None)
    if update is None or update.system is None or update.backends is None:
        raise Wrong("the stream's first update lacks the sections system or backends")
    _check_clock(update.at)
    totals = update.system
    _must(
        totals.decisions_total >= 1 and totals.outcomes_total >= 1,
        "system does not count the calls just made",
    )
    return f"first update {update.status.name}, version {totals.version}"


CHECKS: tuple[tuple[str, Callable[[Probe], Awaitable[str]]], ...] = (
    ("health Check", health),
    ("health Watch", health_watch),
    ("reflection v1", reflection),
    ("reflection v1alpha", reflection_alpha),
    ("GetInsights", insights),
    ("SelectBackend", select),
    ("score", score),
    ("refusal", refusal),
    ("RecordOutcome", record),
    ("recorded", seen),
    ("StreamMetrics", metrics),
)
"""In the order in which they run: later ones use the results of earlier ones."""
