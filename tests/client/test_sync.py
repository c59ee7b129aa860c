"""The synchronous twin: the same calls, waited for, from any thread."""

import asyncio
import gc
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from routing.client import ClientClosed, InvalidRequest, NoBackend, sync
from routing.client.client import RoutingClient as AsyncClient
from routing.errors import InvalidArgument
from support.scripted_server import (
    AT,
    UNAVAILABLE,
    Endless,
    Script,
    chosen,
    client_of,
    number,
    recorded,
    update,
)
from support.server_process import ServerProcess, process_environment

NOBODY = "127.0.0.1:1"


def twin(script: Script, **options: Any) -> sync.RoutingClient:
    return sync.RoutingClient.of(client_of(script, **options))


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert {each.name for each in set(threading.enumerate()) - before} == set()


def test_calls_are_waited_for() -> None:
    script = Script(select=chosen("s3", "ipfs"), record=recorded(message="fine"))
    with twin(script) as client:
        selection = client.select(content_type="image/png", size_bytes=7)
        assert selection.backend_ids == ("s3", "ipfs")
        assert client.record("s3", True, request_id=selection.request_id).message == "fine"
    assert script.asked["select"][0].content_size == 7


@pytest.mark.parametrize("name", ["select", "record", "insights", "metrics"])
def test_a_method_says_of_itself_what_the_asynchronous_one_says(name: str) -> None:
    assert getattr(sync.RoutingClient, name).__doc__ == getattr(AsyncClient, name).__doc__


def test_an_error_is_the_same_error() -> None:
    with twin(Script(select=GRPCError(Status.FAILED_PRECONDITION, "none"))) as client:
        with pytest.raises(NoBackend, match="none"):
            client.select()
        with pytest.raises(InvalidRequest):
            client.select(size_bytes=1 << 63)


def test_nothing_starts_before_the_first_call() -> None:
    before = threading.active_count()
    client = twin(Script(select=chosen()))
    assert "idle" in repr(client)
    assert threading.active_count() == before
    client.select()
    assert "running" in repr(client)
    assert threading.active_count() == before + 1
    client.close()
    assert "closed" in repr(client)


def test_closing_twice_or_unused_is_fine() -> None:
    client = twin(Script())
    client.close()
    client.close()
    with pytest.raises(ClientClosed):
        client.select()


def test_many_threads_share_one_client() -> None:
    script = Script(select=chosen("s3"))
    with twin(script) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: client.select(content_hash=str(n)).backend_id, range(40)))
    assert answers == ["s3"] * 40
    assert {each.content_hash for each in script.asked["select"]} == {str(n) for n in range(40)}


def test_closing_ends_the_calls_of_other_threads() -> None:
    asked = threading.Event()

    async def hang() -> None:
        asked.set()
        await asyncio.Event().wait()

    client = twin(Script(select=hang))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.select)
        asked.wait()
        client.close()
        with pytest.raises(ClientClosed):
            call.result()


def test_closing_ends_the_wait_for_another_try() -> None:
    waiting = threading.Event()

    async def wait(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    client = twin(Script(select=UNAVAILABLE), sleep=wait)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.select)
        waiting.wait()
        client.close()
        with pytest.raises(ClientClosed):
            call.result()


def test_a_client_that_cannot_end_says_so_where_its_thread_does() -> None:
    class Broken(AsyncClient):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("no way out")

    told: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, told.append
    try:
        client = sync.RoutingClient.of(Broken(NOBODY))
        assert client.unrecorded == 0
        client.close()
    finally:
        threading.excepthook = before
    assert [str(each.exc_value) for each in told] == ["no way out"]


def test_a_client_that_cannot_begin_says_why_to_every_call() -> None:
    class Broken(AsyncClient):
        async def __aenter__(self) -> "Broken":
            raise OSError("no loop today")

    client = sync.RoutingClient.of(Broken())
    for _ in range(2):
        with pytest.raises(OSError, match="no loop today"):
            client.select()
    client.close()


def test_route_reports_the_block() -> None:
    script = Script(select=chosen("s3"), record=recorded())
    with twin(script) as client:
        with client.route(content_hash="h", size_bytes=3) as decision:
            assert decision.backend_id == "s3"
        with pytest.raises(OSError, match="disk full"), client.route():
            raise OSError("disk full")
        with pytest.raises(KeyboardInterrupt), client.route():
            raise KeyboardInterrupt
        assert client.unrecorded == 0
    done, failed = script.asked["record"]
    assert (done.success, done.content_hash, done.content_size, done.request_id) == (True, "h", 3, "r1")
    assert done.duration_ms >= 1
    assert (failed.success, failed.error) == (False, "OSError: disk full")


def test_what_cannot_be_reported_changes_nothing_for_the_block(caplog: pytest.LogCaptureFixture) -> None:
    with twin(Script(select=chosen("s3"), record=GRPCError(Status.INTERNAL, "no"))) as client:
        with caplog.at_level(logging.WARNING, "routing.client"), client.route():
            pass
        assert client.unrecorded == 1
        with caplog.at_level(logging.WARNING, "routing.client"), client.route():
            client.close()
    assert caplog.messages[0].startswith("outcome not recorded backend=s3 reason=INTERNAL")
    assert caplog.messages[1] == "outcome not recorded backend=s3 reason=the client is closed"


def test_attempt_runs_in_this_thread_and_goes_on_with_the_alternatives() -> None:
    script, threads = Script(select=chosen("a", "b", "c"), record=recorded()), []

    def store(backend_id: str) -> str:
        threads.append(threading.current_thread())
        if backend_id == "a":
            raise OSError("a is down")
        return backend_id.upper()

    with twin(script) as client:
        assert client.attempt(store) == "B"
    assert threads == [threading.current_thread()] * 2
    assert [(each.backend_id, each.success) for each in script.asked["record"]] == [("a", False), ("b", True)]


def test_attempt_raises_the_last_error_with_notes() -> None:
    def fail(backend_id: str) -> None:
        raise OSError(f"{backend_id} is down")

    with twin(Script(select=chosen("a", "b", "c"), record=recorded())) as client:
        with pytest.raises(OSError, match="b is down") as caught:
            client.attempt(fail, attempts=2)
        with pytest.raises(InvalidArgument, match="attempts"):
            client.attempt(fail, attempts=0)
    assert caught.value.__notes__ == ["tried before: OSError: a is down"]


def test_metrics_are_a_plain_iterator() -> None:
    with twin(Script(metrics=[[update(0.1), update(0.2)]])) as client:
        assert [number(each) for each in client.metrics(interval_seconds=2)] == [0.1, 0.2]


def test_leaving_the_iterator_tells_the_server() -> None:
    script = Endless()
    with twin(script) as client:
        for _ in client.metrics():
            break
        gc.collect()
        with closing(client.metrics()) as updates:
            next(updates)
        with pytest.raises(ClientClosed):
            for _ in client.metrics():
                client.close()
    assert script.left.is_set()


def test_a_twin_of_a_target_is_checked_at_once() -> None:
    with pytest.raises(InvalidArgument, match="target"):
        sync.RoutingClient("no:such:target")


def test_a_real_server_answers(server: ServerProcess) -> None:
    with sync.RoutingClient(server.address) as client:
        with client.route(content_type="image/png", size_bytes=1000) as decision:
            pass
        insights = client.insights()
        assert insights.backend_success_rates == {decision.backend_id: 1.0}
        assert insights.at > AT
        assert next(client.metrics(include_backends=True)).backends is not None


def test_ctrl_c_ends_the_wait(server: ServerProcess) -> None:
    """In a process of its own, because the signal would end the tests."""
    script = (
        "from routing.client.sync import RoutingClient\n"
        "import sys\n"
        "with RoutingClient(sys.argv[1]) as client:\n"
        "    for update in client.metrics(interval_seconds=3600):\n"
        "        print('listening', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, server.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=process_environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGINT, 130)
    assert complaint.rstrip().endswith("KeyboardInterrupt")
    assert complaint.count("Traceback") == 1
