"""A decision written straight to bytes equals the message that the codec encodes."""

import asyncio
from random import Random
from typing import Any

import pytest
from grpclib.const import Status
from hypothesis import example, given
from hypothesis import strategies as st

from routing import wire
from routing.clock import RequestClock
from routing.config.load import load
from routing.core.factors import FACTORS
from routing.core.model import Backend, Decision, Estimate, Query, Ranked
from routing.core.router import Router
from routing.errors import RoutingError
from routing.rpc.calls import Calls
from routing.rpc.exchange import framed
from routing.rpc.reply import Reply
from routing.rpc.requests import read_query
from routing.rpc.responses import DecisionWriter, write_decision
from routing.rpc.service import RoutingService
from routing.server.assembly import assemble
from routing.store import NullStore
from routing.wire import struct_bytes

CODEC = wire.Codec()
SELECT = "/ipfs_kit_py.routing.RoutingService/SelectBackend"

numbers = st.sampled_from([0.0, -0.0, 0.1, 0.5, 1.0]) | st.floats(allow_nan=False, allow_infinity=False)
names = st.sampled_from(["", "a", "é" * 100, "x" * 127, "x" * 128]) | st.text(max_size=40)
ranked = st.builds(
    Ranked,
    names,
    numbers,
    st.tuples(*[numbers] * len(FACTORS)),
    st.just(Estimate(1.0, 0.5, 1.0, 0.5)),
)
decisions = st.builds(
    Decision,
    st.builds(Query, request_id=names),
    ranked,
    st.lists(ranked, max_size=32).map(tuple),
    st.just((1.0,) * len(FACTORS)),
    st.just(0.0),
)
times = st.sampled_from([0.0, 1.0, 0.9999999, 1_800_000_000.25, -1.5]) | st.floats(-6e10, 2e11)


def plainly(decision: Decision, now: float) -> bytes:
    message = write_decision(decision, explain=False, now=now)
    return CODEC.encode(message, wire.SelectBackendResponse)


@given(st.lists(st.tuples(decisions, times), min_size=1, max_size=3))
def test_a_decision_written_straight_is_the_message_encoded(seen: list[tuple[Decision, float]]) -> None:
    writer = DecisionWriter()
    for decision, now in seen * 2:
        assert writer.write(decision, now=now) == plainly(decision, now)


def test_names_are_forgotten_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(struct_bytes, "MAX_NAMES", 10)
    writer = DecisionWriter()
    estimate, scores = Estimate(1.0, 0.5, 1.0, 0.5), (0.5,) * len(FACTORS)
    for number in range(0, 100, 5):
        first, *others = (Ranked(f"backend-{number + at}", 0.5, scores, estimate) for at in range(5))
        decision = Decision(Query(), first, tuple(others), scores, 0.0)
        assert writer.write(decision, now=0.0) == plainly(decision, 0.0)
    assert max(len(writer._chosen), len(writer._alternative)) <= 10


# --- A whole call ---


def served() -> RoutingService:
    backends = [Backend(id=name, max_object_bytes=10**9) for name in ("ipfs", "s3", "tape")]
    router = Router(backends, random=Random(0), discover=False)
    return RoutingService(router, NullStore(), clock=RequestClock(), version="1")


requests = st.builds(
    wire.SelectBackendRequest,
    content_type=st.sampled_from(["", "image/png"]),
    content_size=st.sampled_from([0, 1, 10**10, -1]),
    strategy=st.sampled_from(["", "adaptive", "unheard-of"]),
    available_backends=st.lists(st.sampled_from(["s3", "tape", "nobody"]), max_size=2),
    request_id=names,
    timestamp=times.map(wire.write_time),
    explain=st.booleans(),
)


@given(st.lists(requests, max_size=6))
@example([wire.SelectBackendRequest(explain=True)])
def test_a_call_answers_with_the_bytes_of_the_message(asked: list[Any]) -> None:
    straight, router = served(), served()._router
    prompt = Calls(CODEC).wrap(straight, on_fast_path=["SelectBackend"]).fast_path_handlers[SELECT]
    now = 0.0
    for message in asked:
        reply = prompt(CODEC.encode(message, wire.SelectBackendRequest), lambda: "peer")
        assert isinstance(reply, Reply)
        try:
            query = read_query(message)
            now = max(now, wire.read_time(message.timestamp) or 0.0)
            decision = router.select(query, now=now)
        except RoutingError:
            assert reply.status is not Status.OK
            continue
        plain = write_decision(decision, explain=message.explain, now=now)
        assert reply.data == framed(CODEC.encode(plain, wire.SelectBackendResponse))


def test_the_servers_own_calls_are_answered_with_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reply() -> object:
        assembly = assemble(load(), random=Random(0), clock=lambda: 1.0)
        return assembly.servables[0].fast_path_handlers[SELECT](b"", lambda: "peer")

    monkeypatch.setattr(DecisionWriter, "write", lambda *_, **__: b"straight")
    answer = asyncio.run(reply())
    assert isinstance(answer, Reply)
    assert answer.data[5:] == b"straight"
