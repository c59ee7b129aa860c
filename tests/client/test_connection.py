"""The connection, on real sockets where it must be lost or found."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.server import Server
from h2.exceptions import NoAvailableStreamIDError

from routing import wire
from routing.client import (
    ClientClosed,
    DeadlineExceeded,
    RoutingClient,
    ServerFault,
    ServerUnavailable,
    TlsFiles,
)
from routing.client import connection as link
from support.certificates import self_signed
from support.lossy_server import Losing, serving, silence
from support.scripted_server import UNAVAILABLE, Script, Waits, chosen, client_of, forever


async def test_calls_share_one_connection() -> None:
    async with serving(Script(select=chosen())) as server, RoutingClient(server.address) as client:
        await asyncio.gather(*(client.select() for _ in range(20)))
        await client.select()
        assert len(server.protocols) == 1


async def test_nothing_is_opened_before_it_is_needed() -> None:
    async with serving(Script(select=chosen())) as server, RoutingClient(server.address) as client:
        assert not server.protocols
        assert repr(client) == f"<RoutingClient on <ClientConnection to {server.address}: idle, 0 waiting>>"
        await client.select()
        assert "open" in repr(client)


async def test_a_server_that_is_not_there_is_unavailable_and_named() -> None:
    async with serving(Script()) as server:
        address = server.address
    waits = Waits()
    async with RoutingClient(address, retries=1, sleep=waits) as client:
        with pytest.raises(ServerUnavailable, match=address):
            await client.select()
    assert len(waits.seconds) == 1


async def test_a_lost_server_is_found_again() -> None:
    script = Script(select=chosen())
    async with serving(script) as server, RoutingClient(server.address, retries=0) as client:
        await client.select()
        await server.lose()
        with pytest.raises(ServerUnavailable):
            await client.select()
        async with serving(script, server.address):
            assert (await client.select()).backend_id == "s3"


async def test_a_call_that_is_broken_off_is_tried_again() -> None:
    script = Script(select=[forever, chosen("s3")])
    async with serving(script) as server:
        again = Losing(script)

        async def come_back(_: float) -> None:
            await again.open(int(server.address.rpartition(":")[2]))

        async with RoutingClient(server.address, sleep=come_back) as client:
            call = asyncio.create_task(client.select())
            await script.is_asked()
            await server.lose()
            assert (await call).backend_id == "s3"
        await again.lose()


async def test_a_broken_off_call_leaves_no_trace_on_its_caller() -> None:
    """grpclib wakes a call by cancelling its task; a timeout or task group around the
    client would take that count for its own."""
    script = Script(select=[forever, chosen()])
    async with serving(script) as server, RoutingClient(server.address, retries=0) as client:

        async def call() -> int:
            with pytest.raises(ServerUnavailable):
                await client.select()
            return asyncio.current_task().cancelling()  # type: ignore[union-attr]

        calling = asyncio.create_task(call())
        await script.is_asked()
        await server.lose()
        assert await calling == 0


async def test_a_deadline_leaves_no_trace_on_its_caller() -> None:
    async with client_of(Script(select=forever)) as client:
        with pytest.raises(DeadlineExceeded):
            await client.select(timeout_seconds=0.01)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_cancelled_call_is_cancelled_even_while_its_connection_breaks() -> None:
    script = Script(select=forever)
    async with serving(script) as server, RoutingClient(server.address) as client:
        call = asyncio.create_task(client.select())
        await script.is_asked()
        client._connection._current.channel._protocol.connection_lost(None)  # type: ignore[union-attr]
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_cancelled_call_is_called_off_at_the_server() -> None:
    left = asyncio.Event()

    async def until_left() -> None:
        try:
            await forever()
        finally:
            left.set()

    script = Script(select=until_left)
    async with client_of(script) as client:
        call = asyncio.create_task(client.select())
        await script.is_asked()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(10):
            await left.wait()


@pytest.mark.parametrize(("silence_s", "connections"), [(0.0, 2), (link.SILENCE_S, 1)])
async def test_a_connection_gone_silent_is_replaced_and_a_slow_one_is_not(
    monkeypatch: pytest.MonkeyPatch, silence_s: float, connections: int
) -> None:
    monkeypatch.setattr(link, "SILENCE_S", silence_s)
    async with silence() as (address, came), RoutingClient(address, timeout_seconds=0.25) as client:
        for _ in range(2):
            with pytest.raises(DeadlineExceeded, match=f"no answer from {address} in time"):
                await client.select()
        assert len(came) == connections


def spend(client: RoutingClient) -> None:
    """Leaves the client's connection without a stream to make a call on."""

    def none_left() -> int:
        raise NoAvailableStreamIDError("all of them are used")

    opened = client._connection._current
    opened.channel._protocol.connection._connection.get_next_available_stream_id = none_left  # type: ignore[union-attr]


async def test_a_connection_that_has_no_stream_left_is_replaced() -> None:
    script = Script(select=chosen())
    async with serving(script) as server, RoutingClient(server.address, sleep=Waits()) as client:
        await client.select()
        spend(client)
        assert (await client.select()).backend_id == "s3"
        assert len(server.protocols) == 2


async def test_a_call_under_way_outlives_the_replacement_of_its_connection() -> None:
    late = asyncio.Event()

    async def answer_late() -> object:
        await late.wait()
        return chosen("late")

    script = Script(select=[answer_late, chosen("s3")])
    async with serving(script) as server, RoutingClient(server.address, sleep=Waits()) as client:
        call = asyncio.create_task(client.select())
        await script.is_asked()
        spend(client)
        assert (await client.select()).backend_id == "s3"
        late.set()
        assert (await call).backend_id == "late"


async def test_a_closed_client_ends_its_open_calls_and_takes_no_more() -> None:
    script = Script(select=forever)
    async with serving(script) as server:
        client = RoutingClient(server.address, timeout_seconds=1000)
        call = asyncio.create_task(client.select())
        await script.is_asked()
        async with asyncio.timeout(10):
            await client.aclose()
        with pytest.raises(ClientClosed, match=server.address):
            await call
        with pytest.raises(ClientClosed):
            await client.select()
        assert "closed" in repr(client)
        await client.aclose()


async def test_a_client_closed_while_its_connection_breaks_says_that_it_is_closed() -> None:
    script = Script(select=forever)
    async with serving(script) as server:
        client = RoutingClient(server.address)
        call = asyncio.create_task(client.select())
        await script.is_asked()
        client._connection._current.channel._protocol.connection_lost(None)  # type: ignore[union-attr]
        await client.aclose()
        with pytest.raises(ClientClosed):
            await call


async def test_a_client_closed_while_it_waits_to_try_again_does_not_try_again() -> None:
    async def close(_: float) -> None:
        await client.aclose()

    script = Script(select=UNAVAILABLE)
    async with client_of(script, sleep=close) as client:
        with pytest.raises(ClientClosed):
            await client.select()
    assert len(script.asked["select"]) == 1


async def test_a_token_goes_with_every_call() -> None:
    tokens: list[Any] = []

    class Asking(Script):
        def __mapping__(self) -> Any:
            def noting(handler: Any) -> Any:
                async def call(stream: Any) -> None:
                    tokens.append(stream.metadata.get("authorization"))
                    await handler.func(stream)

                return handler._replace(func=call)

            return {path: noting(handler) for path, handler in super().__mapping__().items()}

    async with client_of(Asking(select=chosen(), metrics=[[]]), token="secret") as client:
        await client.select()
        assert [update async for update in client.metrics()] == []
        assert "secret" not in repr(client)
    assert tokens == ["Bearer secret"] * 2


async def test_tls_trusts_the_authority_it_was_given(tmp_path: Path) -> None:
    pair = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_alpn_protocols(["h2"])
    trusted = TlsFiles(ca=str(pair.certificate))
    async with serving(Script(select=chosen()), context=context) as server:
        async with RoutingClient(server.address, tls=trusted) as client:
            assert (await client.select()).backend_id == "s3"
        own = ssl.create_default_context(cafile=pair.certificate)
        async with RoutingClient(server.address, tls=own) as client:
            assert (await client.select()).backend_id == "s3"
        async with RoutingClient(server.address, tls=True, retries=0) as stranger:
            with pytest.raises(ServerUnavailable, match=r"(?i)certificate.verify.failed"):
                await stranger.select()


async def test_an_answer_that_is_no_message_is_the_servers_fault() -> None:
    class Broken(wire.Codec):
        def encode(self, message: Any, message_type: Any) -> bytes:
            return b"\xff\xff"

    server = Server([Script(select=chosen())], codec=Broken())
    await server.start("127.0.0.1", 0)
    host, port = server._server.sockets[0].getsockname()  # type: ignore[union-attr, attr-defined]
    async with RoutingClient(f"{host}:{port}") as client:
        with pytest.raises(ServerFault, match="SelectBackendResponse"):
            await client.select()
    server.close()
    await server.wait_closed()


async def test_a_server_that_ends_well_without_an_answer_is_at_fault() -> None:
    class Mute(Script):
        def __mapping__(self) -> Any:
            async def end(stream: Any) -> None:
                await stream.recv_message()
                await stream.send_initial_metadata()
                await stream.send_trailing_metadata(status=Status.OK)

            return {
                path: handler._replace(func=end, cardinality=handler.cardinality.__class__.UNARY_STREAM)
                for path, handler in super().__mapping__().items()
            }

    async with client_of(Mute()) as client:
        with pytest.raises(ServerFault, match="SelectBackend ended with status OK, but without an answer"):
            await client.select()
