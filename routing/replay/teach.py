"""Which outcomes of a trace the router learns from. A module of its own, because the help text must not
load the gRPC library."""

from enum import StrEnum


class Teach(StrEnum):
    """Outcomes of rows where the router's choice matches the logged one, or of all rows."""

    MATCHED = "matched"
    ALL = "all"
