"""What every test may use."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from support.server_process import ServerProcess, StartServer

# How long an example takes, or hypothesis to draw it, says more about the machine than about the code.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("tests")


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts real servers, given flags of `routing serve` and `environment`; the test ends them."""
    with ExitStack() as started:
        yield lambda *flags, **how: started.enter_context(ServerProcess(*flags, **how))


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    """A real server with the default settings, in a process of its own, ready at `server.address`."""
    return start_server()


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does is worth a warning, least of all a traceback."""
    caplog.set_level(logging.INFO)
    yield
    assert [
        record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING
    ] == []
