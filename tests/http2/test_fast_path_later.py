"""Pending replies of the fast path: no task, and no difference for the client."""

import asyncio
import struct
from collections import Counter
from typing import Any

import pytest
from grpclib.const import Status

from routing.http2 import Http2Limits, Listener
from routing.http2.connection import ServerProtocol
from routing.http2.fast_path import RESERVED_REPLY_BYTES
from routing.http2.frame_filter import GOAWAY, RST_STREAM, SETTINGS, WINDOW_UPDATE
from routing.rpc.calls import Calls
from support.http2_case import Case, Client, Wire
from support.http2_peer import PREFACE, message, raw
from support.http2_server import Clock, Raw, Service


class Faulty(Service):
    """One whose `hold` fails once it goes on, or waits for what cannot be waited for here."""

    def __init__(self) -> None:
        super().__init__()
        self.faulty = False

    async def hold(self, message: bytes) -> bytes:
        if message == b"turn":
            await asyncio.sleep(0)
        await super().hold(message)
        if message == b"twice":
            await asyncio.get_running_loop().run_in_executor(None, bytes)
        return b"held " + message if message != b"fault" else bytes("fault")  # type: ignore[call-overload]


class Later(Case):
    """A connection on which calls of Hold have come before, and the next ones will wait."""

    def __init__(self, **limits: Any) -> None:
        self.service = Faulty()
        self.calls = Calls(Raw())
        servable = self.calls.wrap(self.service, on_fast_path=("Echo", "Hold"))
        self.listener = Listener([servable], Raw(), Http2Limits(**limits), clock=Clock())
        self.protocol = ServerProtocol(self.listener, Clock())
        self.wire = Wire()
        self.protocol.connection_made(self.wire)
        self.client = Client()

    async def begin(self, *settings: bytes) -> None:
        self.service.release.set()
        await self.feed(PREFACE + raw(SETTINGS), *settings, *[self.hold(b"before") for _ in range(2)])
        assert len(self.answers()) == 3
        self.service.release.clear()

    def hold(self, data: bytes) -> bytes:
        return self.client.call(message(data), "Hold")

    async def release(self) -> None:
        self.service.release.set()
        await self.settle()

    @property
    def waiting(self) -> int:
        return self.protocol._fast_path.waiting


@pytest.fixture
async def case() -> Later:
    later = Later()
    await later.begin()
    return later


async def test_a_call_that_waits_for_a_moment_has_no_task_and_is_answered(case: Later) -> None:
    await case.feed(case.hold(b"x"))
    assert (case.waiting, len(case.protocol.handler.tasks), case.calls.open) == (1, 0, 1)
    stream = case.client.stream
    assert stream not in case.answers()
    await case.release()
    assert case.answers()[stream][1] == ("DataFrame", [], message(b"held x"))
    assert [said[:2] for said in case.answers()[stream]] == [said[:2] for said in case.answers()[1]]
    assert (case.waiting, case.calls.open) == (0, 0)
    assert case.calls.counts == Counter({("/test.Test/Hold", "OK"): 3})


async def test_other_calls_are_answered_meanwhile(case: Later) -> None:
    await case.feed(case.hold(b"x"), *[case.client.call(message(b"1")) for _ in range(3)])
    assert {case.client.stream, case.client.stream - 2, case.client.stream - 4} <= case.answers().keys()
    await case.release()
    assert case.client.stream - 6 in case.answers()


async def test_the_window_that_was_set_aside_is_given_back(case: Later) -> None:
    before = case.protocol._session.outbound_flow_control_window
    await case.feed(case.hold(b"x"))
    assert case.protocol._session.outbound_flow_control_window == before - RESERVED_REPLY_BYTES
    await case.release()
    assert case.protocol._session.outbound_flow_control_window == before - len(message(b"held x"))


async def test_with_a_small_window_the_answer_takes_the_plain_path() -> None:
    case = Later()
    await case.begin()
    await case.feed(raw(SETTINGS, struct.pack(">HI", 4, 3)), case.hold(b"x"))
    assert (case.waiting, len(case.protocol.handler.tasks)) == (0, 1)
    await case.release()
    stream = case.client.stream
    assert [said[0] for said in case.answers()[stream]] == ["HeadersFrame", "DataFrame"]
    await case.feed(raw(WINDOW_UPDATE, struct.pack(">I", 1_000), stream=stream))
    sent = [said[2] for said in case.answers()[stream] if said[0] == "DataFrame"]
    assert b"".join(sent) == message(b"held x")
    assert case.calls.open == 0


async def test_no_more_wait_than_a_connection_may_have() -> None:
    case = Later(max_streams=10)
    await case.begin()
    await case.feed(b"".join(case.hold(b"x") for _ in range(15)), case.hold(b"y"))
    assert case.waiting == 10
    await case.release()
    kinds = Counter(said[0] for stream, all_said in case.answers().items() if stream > 3 for said in all_said)
    assert (kinds["DataFrame"], kinds["RstStreamFrame"]) == (10, 6)


async def test_the_drain_waits_for_calls_that_wait(case: Later) -> None:
    await case.feed(case.hold(b"x"))
    await case.calls.drain()
    idle = asyncio.ensure_future(case.calls.wait_idle())
    await case.settle()
    assert not idle.done()
    await case.release()
    assert idle.done()
    assert case.client.stream in case.answers()


async def test_a_client_that_sent_goaway_gets_its_answer_first(case: Later) -> None:
    await case.feed(case.hold(b"x") + raw(GOAWAY, bytes(8)))
    assert not case.wire.ended
    await case.release()
    assert case.client.stream in case.answers()
    assert case.wire.ended


async def test_a_connection_that_is_lost_meanwhile_leaves_nothing(case: Later) -> None:
    await case.feed(case.hold(b"x"))
    written = len(case.wire.written)
    case.wire.ended = True
    case.protocol.connection_lost(None)
    await case.release()
    assert (case.waiting, case.calls.open, len(case.wire.written)) == (0, 0, written)


async def test_a_client_that_resets_its_call_meanwhile_keeps_its_connection(case: Later) -> None:
    await case.feed(case.hold(b"x") + raw(RST_STREAM, b"\0\0\0\x08", stream=case.client.stream))
    await case.release()
    await case.feed(*[case.client.call(message(b"1")) for _ in range(2)])
    assert case.answers()[case.client.stream][1][2] == message(b"1")


@pytest.mark.parametrize("what", [b"fault", b"turn"])
async def test_a_method_that_fails_later_or_waits_for_its_next_turn_is_our_error(
    case: Later, what: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await case.feed(case.hold(what))
    await case.release()
    said = case.answers()[case.client.stream][-1]
    assert ("grpc-status", str(Status.INTERNAL.value)) in said
    assert ("grpc-message", "internal error") in said
    assert case.calls.counts["/test.Test/Hold", "INTERNAL"] == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_method_may_wait_more_than_once(case: Later) -> None:
    await case.feed(case.hold(b"twice"))
    case.service.release.set()
    await asyncio.wait_for(case.calls.wait_idle(), 10)
    await case.settle()
    assert case.answers()[case.client.stream][1][2] == message(b"held twice")
