"""A report written straight to bytes equals the messages that the codec encodes."""

import asyncio
from collections.abc import Generator, Iterator
from contextlib import aclosing
from math import inf, nan
from random import Random
from typing import Any

import pytest
from grpclib.testing import ChannelFor
from hypothesis import given
from hypothesis import strategies as st

from routing import wire
from routing.config.load import load
from routing.core.model import Backend, Outcome, Query
from routing.core.report import SECTIONS, Insights, Metrics, SystemFacts, insights, metrics
from routing.core.router import Router
from routing.rpc.responses import ReportWriter
from routing.rpc.service import RoutingService
from routing.server.assembly import assemble
from routing.store import NullStore
from routing.wire import struct_bytes
from routing.wire.struct_bytes import ENTRIES_IN_A_STEP, RowsWriter, StructWriter, finished
from support.oracles import write_insights, write_metrics

CODEC = wire.Codec()
NOW = 1_800_000_000.25

names = st.sampled_from(["", "a", "é" * 70, "x" * 105, "x" * 113, "x" * 128]) | st.text(max_size=40)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | names,
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(names, inner)
    ),
)


def plainly(held: Any) -> bytes:
    return CODEC.encode(wire.write_struct(held), wire.Struct)


def straight(held: Any) -> bytes:
    return finished(StructWriter().steps(held))


def nested(depth: int, inner: type) -> Any:
    held: Any = {}
    for _ in range(depth - 1):
        held = {"a": held} if inner is dict else {"a": [held]}
    return held


# --- Structs ---


@given(st.lists(st.dictionaries(names, values), min_size=1, max_size=3))
def test_values_written_straight_are_the_struct_encoded(seen: list[dict[str, Any]]) -> None:
    writer = StructWriter()
    for held in seen * 2:
        assert finished(writer.steps(held)) == plainly(held)


@pytest.mark.parametrize("held", [nan, inf, -inf, 10**400, object(), b"bytes"])
@pytest.mark.parametrize("where", [lambda held: held, lambda held: {"b": held}, lambda held: [held]])
def test_what_a_struct_cannot_hold_is_refused_alike(held: Any, where: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)) as plain:
        plainly({"a": where(held)})
    with pytest.raises(plain.type) as short:
        straight({"a": where(held)})
    assert str(short.value) == str(plain.value)


@pytest.mark.parametrize("inner", [dict, list])
def test_nesting_ends_where_no_peer_could_read_it(inner: type) -> None:
    deepest = wire.MAX_STRUCT_DEPTH if inner is dict else (wire.MAX_STRUCT_DEPTH + 1) // 2
    assert straight(nested(deepest, inner)) == plainly(nested(deepest, inner))
    with pytest.raises(ValueError, match="nested deeper than 33 levels"):
        straight(nested(deepest + 1, inner))


@given(
    st.lists(names, min_size=1, max_size=8, unique=True).flatmap(
        lambda keys: st.dictionaries(names, st.fixed_dictionaries(dict.fromkeys(keys, numbers)), min_size=1)
    )
)
def test_rows_of_one_kind_are_the_struct_encoded(rows: dict[str, dict[str, float]]) -> None:
    keys = next(iter(rows.values())).keys()
    rows = {name: {key: row[key] for key in keys} for name, row in rows.items()}
    writer = RowsWriter(keys)
    assert writer.write(rows) == writer.write(rows) == plainly(rows)


def test_a_row_of_another_kind_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        RowsWriter(["a", "b"]).write({"s3": {"a": 1.0}})


def test_names_are_forgotten_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(struct_bytes, "MAX_NAMES", 10)
    structs, rows = StructWriter(), RowsWriter(["a"])
    for number in range(0, 100, 5):
        held = {f"backend-{number + at}": {"a": 1.0} for at in range(5)}
        flat = dict.fromkeys(held, 1.0)
        assert finished(structs.steps(flat)) == plainly(flat)
        assert rows.write(held) == plainly(held)
    assert max(len(structs._prefixes), len(rows._prefixes)) <= 10


def test_much_is_written_in_steps_between_which_rows_may_change() -> None:
    rows = {f"type-{number}": {f"backend-{at}": 1 for at in range(1000)} for number in range(9)}
    steps = StructWriter().steps(rows)
    next(steps)
    for row in rows.values():
        row["new"] = 1
    rows["later"] = {"new": 1}
    written = list(_rest(steps))
    assert len(written) == 9 * 1000 // ENTRIES_IN_A_STEP
    before, after = [name for name in rows if "-" in name][:4], [name for name in rows if "-" in name][4:]
    expected = {name: {key: 1 for key in rows[name] if key != "new"} for name in before}
    expected |= {name: rows[name] for name in after}
    assert written[-1] == plainly(expected)


def _rest(steps: Any) -> Iterator[Any]:
    while True:
        try:
            yield next(steps)
        except StopIteration as end:
            yield end.value
            return


# --- Reports ---


def busy_router(*, backends: int = 5, types: int = 7, calls: int = 400) -> Router:
    dice = Random(4)
    names = [f"backend-{number}" for number in range(backends)]
    router = Router([Backend(id=name) for name in names], random=Random(0))
    for number in range(calls):
        now = NOW - calls + number
        query = Query(content_type=f"type/{dice.randrange(types)}", size_bytes=dice.randrange(10**9))
        name = dice.choice(names)
        router.replay_decision(query, name, 200.0, probe=False, passed_over=(), now=now)
        duration_ms = dice.choice([None, 1 + dice.randrange(5000)])
        router.record(Outcome(name, dice.random() < 0.9, duration_ms=duration_ms), now=now)
    return router


def report(router: Router, **narrowed: Any) -> Insights:
    return insights(router, now=NOW, **narrowed)


@pytest.mark.parametrize("calls", [0, 1, 400])
@pytest.mark.parametrize("narrowed", [{}, {"backend_id": "backend-1"}, {"content_type": "type/1"}])
def test_insights_written_straight_are_the_message_encoded(calls: int, narrowed: dict[str, str]) -> None:
    writer = ReportWriter()
    shown = report(busy_router(calls=calls), **narrowed)
    for _ in range(2):
        plain = CODEC.encode(write_insights(shown, now=NOW), wire.GetInsightsResponse)
        assert finished(writer.insights(shown, now=NOW)) == plain


@pytest.mark.parametrize("calls", [0, 400])
@pytest.mark.parametrize("more", [False, True])
def test_an_update_written_straight_is_the_message_encoded(calls: int, more: bool) -> None:
    shown: Metrics = metrics(
        busy_router(calls=calls),
        sections=tuple(SECTIONS) if more else (),
        include_backends=more,
        include_content_types=more,
        system=SystemFacts(60.0, 3, "1.2.3"),
        now=NOW,
    )
    plain = CODEC.encode(write_metrics(shown, now=NOW), wire.MetricsUpdate)
    assert ReportWriter().metrics(shown, now=NOW) == plain


# --- Whole calls ---


def service_on(router: Router) -> RoutingService:
    return RoutingService(router, NullStore(), clock=lambda: NOW, version="1.2.3", monotonic=lambda: 0.0)


async def test_writing_a_large_report_lets_others_have_their_turn() -> None:
    service = service_on(busy_router(backends=200, types=200, calls=20_000))
    asking = asyncio.ensure_future(service.get_insights(wire.GetInsightsRequest()))
    turns = 0
    while not asking.done():
        turns += 1
        await asyncio.sleep(0)
    shown = wire.read_struct(CODEC.decode(await asking, wire.GetInsightsResponse).content_type_distribution)
    entries = sum(len(row) for row in shown.values())
    assert entries > 2 * ENTRIES_IN_A_STEP
    assert turns > entries // ENTRIES_IN_A_STEP


async def test_the_servers_own_reports_are_answered_with_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    said = CODEC.encode(wire.GetInsightsResponse(timestamp=wire.write_time(1.0)), wire.GetInsightsResponse)

    def straight(*_: Any, **__: Any) -> Generator[None, None, bytes]:
        yield
        return said

    monkeypatch.setattr(ReportWriter, "insights", straight)
    monkeypatch.setattr(ReportWriter, "metrics", lambda *_, **__: said)
    assembly = assemble(load(), random=Random(0), clock=lambda: NOW)
    async with ChannelFor(assembly.servables, codec=wire.Codec()) as channel:
        stub = wire.RoutingServiceStub(channel)
        assert (await stub.get_insights(wire.GetInsightsRequest())).timestamp == wire.write_time(1.0)
        async with aclosing(stub.stream_metrics(wire.StreamMetricsRequest())) as updates:
            assert await anext(aiter(updates)) == CODEC.decode(said, wire.MetricsUpdate)
