"""The generated messages that other floors may import."""

from routing_pb.google.protobuf import Struct
from routing_pb.ipfs_kit_py.routing import (
    GetInsightsRequest,
    GetInsightsResponse,
    MetricsUpdate,
    MetricsUpdateSystemStatus,
    RecordOutcomeRequest,
    RecordOutcomeResponse,
    RoutingServiceBase,
    RoutingServiceStub,
    SelectBackendRequest,
    SelectBackendRequestGeoLocation,
    SelectBackendResponse,
    SelectBackendResponseAlternative,
    StreamMetricsRequest,
)

__all__ = [
    "GetInsightsRequest",
    "GetInsightsResponse",
    "MetricsUpdate",
    "MetricsUpdateSystemStatus",
    "RecordOutcomeRequest",
    "RecordOutcomeResponse",
    "RoutingServiceBase",
    "RoutingServiceStub",
    "SelectBackendRequest",
    "SelectBackendRequestGeoLocation",
    "SelectBackendResponse",
    "SelectBackendResponseAlternative",
    "StreamMetricsRequest",
    "Struct",
]
