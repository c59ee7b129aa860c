"""The only access to the generated code: messages, the codec, plain values for Struct and Timestamp."""

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

from routing.wire.codec import Codec
from routing.wire.values import (
    MAX_STRUCT_DEPTH,
    NO_KIND,
    read_struct,
    read_time,
    read_value,
    write_struct,
    write_time,
)

__all__ = [
    "MAX_STRUCT_DEPTH",
    "NO_KIND",
    "Codec",
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
    "read_struct",
    "read_time",
    "read_value",
    "write_struct",
    "write_time",
]
