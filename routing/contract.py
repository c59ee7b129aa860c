"""Names and numbers of the wire contract that more than one floor needs."""

from typing import Final

DEFAULT_PORT: Final = 50051
"""Where a server listens, and where clients look for it, unless a port is given."""

MAX_PORT: Final = 65_535
"""The highest TCP port number."""

DEFAULT_TARGET: Final = f"localhost:{DEFAULT_PORT}"

ROUTING_SERVICE: Final = "ipfs_kit_py.routing.RoutingService"
ROUTING_METHODS: Final = ("SelectBackend", "RecordOutcome", "GetInsights", "StreamMetrics")

HEALTH_SERVICE: Final = "grpc.health.v1.Health"
REFLECTION_SERVICE: Final = "grpc.reflection.v1.ServerReflection"
REFLECTION_ALPHA_SERVICE: Final = "grpc.reflection.v1alpha.ServerReflection"

STORE_HEALTH: Final = "ipfs_kit_py.routing.Store"
"""In health: whether learned state reaches the disk. Named only where the server keeps state."""

FILES_HEALTH: Final = "ipfs_kit_py.routing.Files"
"""In health: whether the certificates and the auth file in force are those on the disk. Named
only where the server has any."""

METADATA_KEYS: Final = (
    "operation",
    "retention_months",
    "expected_reads",
    "require_tags",
    "exclude_backends",
    "max_cost_usd",
    "max_ms",
    "min_success",
)
"""The keys of a request's `metadata` that a server understands. Each is a field of `core.model.Query`."""

CRITICAL_BELOW: Final = 0.7
WARNING_BELOW: Final = 0.9
"""Success rates of the worst backend below which the system's status is CRITICAL, or WARNING."""


def method_path(service: str, method: str) -> str:
    """A method's full name, as the `:path` of a call.

    >>> method_path(HEALTH_SERVICE, "Check")
    '/grpc.health.v1.Health/Check'
    """
    return f"/{service}/{method}"
