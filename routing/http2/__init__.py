"""HTTP/2 for a server with untrusted clients, around grpclib and h2.

`frame_filter` counts a connection's frames and refuses excess; `fast_path` answers short calls
from their frames. Every other frame goes to h2 (`session`), whose events `events` turns into
`streams` and `handlers` into calls, after `headers` has checked them. `connection` holds one
connection together and keeps its time limits, `listener` owns all connections.
"""

from routing.http2.budget import Http2Limits
from routing.http2.listener import Listener

__all__ = ["Http2Limits", "Listener"]
