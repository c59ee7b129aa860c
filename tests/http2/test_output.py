"""How a connection ends whose peer has gone already."""

import asyncio
import errno

from routing.http2.budget import Budget, Http2Limits
from routing.http2.output import ConnectionOutput
from routing.http2.session import Session
from routing.http2.shared import SharedLimits


class ResetByPeer(asyncio.Transport):
    """A socket that its peer has reset, before the loop has heard of it."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Still taken: the kernel answers later."""

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def abort(self) -> None:
        self.aborted.set()


async def test_a_peer_that_has_reset_its_socket_is_no_error_and_is_let_go() -> None:
    limits = Http2Limits(linger_seconds=0.0)
    transport = ResetByPeer()
    output = ConnectionOutput(
        Session(limits), transport, limits, Budget(limits, lambda: 0.0), SharedLimits(limits)
    )
    output.close()
    assert output.is_closing()
    async with asyncio.timeout(5):
        await transport.aborted.wait()
