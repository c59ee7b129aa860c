"""What every test may use."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from server_process import ServerProcess

StartServer = Callable[..., ServerProcess]


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts real servers, given flags of `routing serve` and `environment`; the test ends them."""
    with ExitStack() as started:
        yield lambda *flags, **how: started.enter_context(ServerProcess(*flags, **how))


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    """A real server with the default settings, in a process of its own, ready at `server.address`."""
    return start_server()
