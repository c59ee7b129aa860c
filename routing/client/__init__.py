"""Typed clients of the routing server: asynchronous here, synchronous in `routing.client.sync`."""

from routing.client.client import Asked, RoutingClient
from routing.client.errors import (
    ClientClosed,
    DeadlineExceeded,
    InvalidRequest,
    NoBackend,
    Overloaded,
    PermissionDenied,
    RoutingCallError,
    ServerFault,
    ServerUnavailable,
    Unauthenticated,
)
from routing.client.target import TlsFiles
from routing.client.trial import Trial
from routing.client.values import (
    Acknowledgement,
    Activity,
    Alternative,
    BackendSummary,
    Insights,
    Latency,
    Learned,
    Metrics,
    Selection,
    Usage,
)
from routing.core.model import Location, SystemStatus

__all__ = [
    "Acknowledgement",
    "Activity",
    "Alternative",
    "Asked",
    "BackendSummary",
    "ClientClosed",
    "DeadlineExceeded",
    "Insights",
    "InvalidRequest",
    "Latency",
    "Learned",
    "Location",
    "Metrics",
    "NoBackend",
    "Overloaded",
    "PermissionDenied",
    "RoutingCallError",
    "RoutingClient",
    "Selection",
    "ServerFault",
    "ServerUnavailable",
    "SystemStatus",
    "TlsFiles",
    "Trial",
    "Unauthenticated",
    "Usage",
]
