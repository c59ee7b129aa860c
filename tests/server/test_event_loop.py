"""Which event loop a server runs on, and that it answers the same on each and on both paths."""

import contextlib
from importlib.util import find_spec

import grpc
import pytest

from routing import wire
from routing.config.options import ServerSettings, Settings
from routing.errors import MissingExtra
from routing.http2 import Http2Limits
from routing.server.event_loop import loop_factory
from routing.server.run import serve
from support.server_process import StartServer

SELECT = "/ipfs_kit_py.routing.RoutingService/SelectBackend"

needs_uvloop = pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed")


def made_by(name: str) -> str:
    with contextlib.closing(loop_factory(name)()) as loop:
        return type(loop).__module__.partition(".")[0]


def test_asyncio_is_taken_where_it_is_asked_for_or_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made_by("asyncio") == "asyncio"
    monkeypatch.setattr("routing.server.event_loop.find_spec", lambda _: None)
    assert made_by("auto") == "asyncio"


@needs_uvloop
@pytest.mark.parametrize("name", ["auto", "uvloop"])
def test_uvloop_is_taken_where_it_is_installed(name: str) -> None:
    assert made_by(name) == "uvloop"


def test_uvloop_that_is_not_installed_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routing.server.event_loop.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"event_loop uvloop needs the extra 'fast'"):
        loop_factory("uvloop")


@pytest.mark.parametrize("flags", [(), ("--no-fast-path",)], ids=str)
@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=needs_uvloop)])
def test_it_is_the_same_server_however_it_runs(
    start_server: StartServer, loop: str, flags: tuple[str, ...]
) -> None:
    server = start_server("--event-loop", loop, *flags)
    assert server.wait_for("ready").endswith(f" loop={loop}")
    request = wire.SelectBackendRequest(content_type="image/png", request_id="é", content_size=-1)
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(SELECT, bytes, wire.SelectBackendResponse.parse)
        with pytest.raises(grpc.RpcError) as refused:
            call(request, timeout=20)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
        request.content_size = 5
        answers = [call(request, timeout=20) for _ in range(5)]
    assert {(answer.backend_id, answer.request_id) for answer in answers} == {(answers[0].backend_id, "é")}
    assert server.stop() == 0
    assert "answered=6" in server.wait_for("server ended")


@pytest.mark.parametrize("fast", [True, False])
async def test_calls_take_the_fast_path_unless_it_is_off(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    class Told(Exception):
        pass

    def listener(_servables: object, _codec: object, limits: Http2Limits) -> None:
        raise Told(limits.fast_path)

    monkeypatch.setattr("routing.server.run.Listener", listener)
    settings = Settings(ServerSettings(host="127.0.0.1", port=0, fast_path=fast))
    with pytest.raises(Told, match=str(fast)):
        await serve(settings, log_output=None)
