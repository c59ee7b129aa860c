"""HTTP/2 for a server with untrusted clients, around grpclib and h2.

A connection's bytes pass the `frame_filter`, which counts frames and refuses what is too much;
h2 (`connection.Session`) makes events of them; `connection.Processor` turns these into
`streams`, and `answers` into calls, after a look at their `headers`. `protocol` holds
one connection together and watches its patience, `listener` all of them.
"""

from routing.http2.budget import Http2Limits
from routing.http2.listener import Listener

__all__ = ["Http2Limits", "Listener"]
