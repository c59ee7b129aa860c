"""What is learned from one successful transfer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from routing.core.learning.context import Context


class Transfer(NamedTuple):
    """One transfer: `residual` is ln(duration / promised duration), `throughput_share` the part of
    the promise that depends on throughput, `load` how busy the backend was, `decisions_since`
    the decisions since its previous outcome."""

    at: float
    residual: float
    throughput_share: float
    context: Context
    load: float = 0.0
    decisions_since: float = 0.0

    def snapshot(self) -> list[Any]:
        """The fields as JSON-able values."""
        return [
            self.at,
            self.residual,
            self.throughput_share,
            [*self.context],
            self.load,
            self.decisions_since,
        ]

    @classmethod
    def from_snapshot(cls, row: Sequence[Any]) -> "Transfer":
        """The transfer that gave this snapshot."""
        at, residual, throughput_share, names, load, decisions_since = row
        return cls(at, residual, throughput_share, tuple(names), load, decisions_since)
