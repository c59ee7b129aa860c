"""Which outcomes of a trace the router learns from; by itself, for the help text needs no gRPC library."""

from enum import StrEnum


class Teach(StrEnum):
    """Those of rows where it would have chosen alike, or those of all rows."""

    MATCHED = "matched"
    ALL = "all"
