"""Whoever decides about callers is asked before anything else is done for them, on both ways of a call."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hyperframe.frame import DataFrame

from routing.errors import PermissionDenied, TooManyCalls, Unauthenticated
from routing.http2 import Http2Limits, Listener
from routing.rpc.caller import Caller
from routing.rpc.calls import Calls
from routing.server.sockets import listen
from support.http2_peer import Peer, message
from support.http2_server import Raw, Service

ECHO, TALK = "/test.Test/Echo", "/test.Test/Talk"
OK, EXHAUSTED, DENIED, STRANGER = 0, 8, 7, 16


class Doorman:
    """Lets in who says "Bearer good", until he is told not to; remembers whom he saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Caller, bool]] = []
        self.refusal: Exception | None = None

    def __call__(self, path: str, caller: Caller, again: bool) -> None:
        self.seen.append((path, caller, again))
        if caller.authorization != "Bearer good":
            raise Unauthenticated("authorization: expected Bearer good")
        if self.refusal is not None:
            raise self.refusal


class Guarded:
    """A listener on a loopback port whose calls a doorman looks at."""

    def __init__(self, *, fast: bool, open_to_all: bool = False) -> None:
        self.doorman, self.service = Doorman(), Service()
        self.decoded: list[bytes] = []
        self.calls = Calls(self._codec(), admit=self.doorman)
        wrapped = self.calls.wrap(self.service, open_to_all=open_to_all, on_fast_path=("Echo",))
        self.listener = Listener([wrapped], Raw(), Http2Limits(fast_path=fast))

    def _codec(self) -> Raw:
        decoded = self.decoded

        class Noting(Raw):
            def decode(self, data: bytes, message_type: Any) -> bytes:
                decoded.append(data)
                return data

        return Noting()

    async def __aenter__(self) -> "Guarded":
        listening = listen("127.0.0.1", 0)
        await self.listener.start(listening)
        self.peer = await Peer.connect(listening[0].getsockname()[1])
        return self

    async def __aexit__(self, *error: object) -> None:
        closing = asyncio.create_task(self.listener.close())
        await self.peer.__aexit__(None, None, None)
        await closing

    async def call(self, authorization: str, path: str = ECHO) -> dict[str, str]:
        """The trailers of one call."""
        return await self.peer.trailers(self.peer.call(**{":path": path, "authorization": authorization}))


@pytest.fixture(params=[True, False], ids=["short", "long"])
async def guarded(request: pytest.FixtureRequest) -> AsyncIterator[Guarded]:
    async with Guarded(fast=request.param) as server:
        yield server


def status(trailers: dict[str, str]) -> int:
    return int(trailers["grpc-status"])


async def test_who_may_call_is_let_in_and_who_may_not_is_not(guarded: Guarded) -> None:
    for _ in range(4):  # the later ones by header blocks that are known
        assert status(await guarded.call("Bearer good")) == OK
        assert status(await guarded.call("Bearer bad")) == STRANGER
    assert [path for path, _, _ in guarded.doorman.seen] == [ECHO] * 8


async def test_nothing_is_done_for_who_is_refused(guarded: Guarded) -> None:
    for _ in range(4):
        await guarded.call("Bearer bad")
    assert guarded.decoded == []


async def test_a_refusal_is_asked_for_anew_with_every_call(guarded: Guarded) -> None:
    for _ in range(4):
        assert status(await guarded.call("Bearer good")) == OK
    guarded.doorman.refusal = PermissionDenied("no more")
    refused = await guarded.call("Bearer good")
    assert (status(refused), refused["grpc-message"]) == (DENIED, "no more")


async def test_a_rate_limited_call_carries_the_retry_delay(guarded: Guarded) -> None:
    for _ in range(3):
        await guarded.call("Bearer good")
    guarded.doorman.refusal = TooManyCalls("too many calls", wait_s=0.25)
    refused = await guarded.call("Bearer good")
    assert (status(refused), refused["grpc-retry-pushback-ms"]) == (EXHAUSTED, "250")


async def test_calls_with_the_same_headers_have_the_same_caller_on_the_fast_path() -> None:
    """So that what was found out about a caller can be remembered there."""
    async with Guarded(fast=True) as guarded:
        for _ in range(6):
            await guarded.call("Bearer good")
        callers = [caller for _, caller, _ in guarded.doorman.seen]
        assert len({id(caller) for caller in callers[-4:]}) == 1
        assert callers[-1].peer.host == "127.0.0.1"


async def test_a_stream_is_asked_about_again_and_ends_for_who_may_no_longer_listen() -> None:
    async with Guarded(fast=True) as guarded:
        doorman, peer = guarded.doorman, guarded.peer
        begun = peer.headers(TALK, authorization="Bearer good")
        stream = begun.stream_id
        peer.write(begun, DataFrame(stream, data=message(b"go on")))
        await peer.until(DataFrame, stream)
        assert [(path, again) for path, _, again in doorman.seen] == [(TALK, False), (TALK, True)]
        doorman.refusal = PermissionDenied("no more")
        peer.write(DataFrame(stream, data=message(b"and on")))
        assert await peer.status(stream) == (DENIED, "no more")


@pytest.mark.parametrize("fast", [True, False])
async def test_a_method_open_to_all_calls_no_admission(fast: bool) -> None:
    async with Guarded(fast=fast, open_to_all=True) as guarded:
        for _ in range(4):
            assert status(await guarded.call("")) == OK
        assert guarded.doorman.seen == []
