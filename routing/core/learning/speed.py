"""One backend's record of speed, and the change detected in its latest transfers.

The record is a regression of the logarithms of durations (see `regression`), which is doubted
while no outcome confirms it (see `doubt`).
"""

import math
from bisect import insort
from collections.abc import Mapping, Sequence
from typing import Any

from routing.core.learning.changepoint import LATEST_OUTCOMES, UNCHANGED, Change, detect_speed_change
from routing.core.learning.doubt import Doubt
from routing.core.learning.kinds import Kind, slowest
from routing.core.learning.regression import Effects
from routing.core.learning.success import EXPLAINS
from routing.core.learning.transfer import Transfer

MAX_SURPRISE = 3.0
"""A transfer counts as at most twenty times slower or faster than the latest ones, so that one that
hung for an hour does not outweigh a dozen others. Not than the profile: one in wrong units is off
by factors of a thousand."""

PROFILE_VOTES = 2
"""The profile has so many votes in what the latest transfers show, so that it takes three of them to
move that further than MAX_SURPRISE: one odd transfer is weak evidence."""

PRIOR_MEAN_TRANSFERS = 30.0
"""The record of how far the mean duration is above the typical one starts with so many transfers
that show no difference."""

MEAN_HALF_LIFE_S = 86_400.0
"""The half-life of that record, as of the others."""

LEARNED_TRANSFERS = 20.0
"""A transfer counts for half in that record after so many others: at first it shows what the record
has yet to learn, and not how durations vary."""

UNLEARNED_RESIDUAL = 0.7
"""While the latest transfers are all further off than this factor of two, what the record has not
learned yet is not taken for noise."""

CONFIRMING_MARGIN = 0.1
"""A transfer confirms what was learned if it is nearer to that than to the profile, by this much of
its logarithm: where both predict the same, there is nothing to doubt or to confirm."""


class SpeedRecord:
    """The effects on the durations of transfers, relative to a profile's `latency_ms` and
    `throughput_mbps`, those of the first outcome; what the mean duration is above the typical
    one; the `transfers`, at most LATEST_OUTCOMES, ordered by time, and the `residuals` that
    the effects leave of them; the `change` detected in these; and the `doubt`.
    """

    __slots__ = (
        "change",
        "doubt",
        "effects",
        "latency_ms",
        "mean_at",
        "mean_count",
        "mean_sum",
        "residuals",
        "throughput_mbps",
        "transfer_count",
        "transfers",
    )

    def __init__(self, decisions: int, *, latency_ms: float, throughput_mbps: float) -> None:
        self.latency_ms = latency_ms
        self.throughput_mbps = throughput_mbps
        self.effects = Effects()
        self.doubt = Doubt(decisions)
        self.transfers: list[Transfer] = []
        self.residuals: list[float] = []
        self.change = UNCHANGED
        # Decayed to the time `mean_at`.
        self.mean_at = 0.0
        self.transfer_count = 0.0
        self.mean_count = 0.0
        self.mean_sum = 0.0

    def note(self, transfer: Transfer, kinds: Sequence[Kind], decisions: int) -> float | None:
        """Adds a transfer. Returns what neither the record nor a change of the whole backend
        explains of it, None if that change does."""
        at = transfer.at
        (residual,) = self.effects.residuals((transfer,))
        learned = transfer.residual - residual
        kind = slowest(kinds)
        kind_shift, by_kind = 0.0, False
        if kind is not None:
            by_kind, kind_shift = _explains(
                kind.speed_change, kind.speed_change.probability_at(at, kind.decisions_since), residual
            )
        probability = self.change.probability_at(at, transfer.decisions_since)
        by_backend, shift = _explains(self.change, probability, residual)
        if abs(kind_shift) > abs(shift):
            shift = kind_shift
        self.doubt.note_transfer(
            confirms=abs(residual) <= abs(transfer.residual) - CONFIRMING_MARGIN,
            at=at,
            decisions_since=transfer.decisions_since,
            decisions=decisions,
        )
        typical = _median([0.0] * PROFILE_VOTES + self.residuals)
        self._note_mean(residual - shift, typical, at)
        counted = learned + min(max(residual, typical - MAX_SURPRISE), typical + MAX_SURPRISE)
        self.effects.note(transfer.context, transfer.throughput_share, counted, transfer.load, at=at)
        if not by_kind:
            insort(self.transfers, transfer, key=_time)
            del self.transfers[:-LATEST_OUTCOMES]
        self._detect_change()
        return None if by_backend and not by_kind else residual

    @property
    def log_mean(self) -> float:
        """The logarithm of the mean duration over the typical one."""
        return math.log((PRIOR_MEAN_TRANSFERS + self.mean_sum) / (PRIOR_MEAN_TRANSFERS + self.mean_count))

    def snapshot(self, decisions: int) -> dict[str, Any]:
        """The sums and the latest transfers, as JSON-able values; `decisions` is the server's
        number of decisions so far."""
        return {
            "profile": [self.latency_ms, self.throughput_mbps],
            "doubt": self.doubt.snapshot(decisions),
            "mean": [self.mean_at, self.transfer_count, self.mean_count, self.mean_sum],
            "effects": self.effects.snapshot(),
            "transfers": [one.snapshot() for one in self.transfers],
        }

    def merge(self, snapshot: Mapping[str, Any], decisions: int) -> None:
        """Adds the sums of a snapshot, and keeps the latest transfers of both."""
        self.doubt.merge(snapshot["doubt"], decisions)
        self._add_mean(*snapshot["mean"])
        self.effects.merge(snapshot["effects"])
        transfers = [Transfer.from_snapshot(row) for row in snapshot["transfers"]]
        # If only the snapshot has any, their order is kept, also among transfers of equal times.
        self.transfers = (
            sorted([*self.transfers, *transfers])[-LATEST_OUTCOMES:] if self.transfers else transfers
        )
        self._detect_change()

    def _note_mean(self, residual: float, typical: float, at: float) -> None:
        """Adds to the sums for the mean duration: a regression of logarithms predicts the typical
        one, and the mean is above that by the mean of exp(residual)."""
        if abs(typical) > UNLEARNED_RESIDUAL:
            residual -= typical
        weight = self.transfer_count / (self.transfer_count + LEARNED_TRANSFERS)
        self._add_mean(at, 1.0, weight, weight * math.exp(min(residual, MAX_SURPRISE)))

    def _add_mean(self, at: float, transfer_count: float, mean_count: float, mean_sum: float) -> None:
        mine, theirs = _decay(at - self.mean_at), _decay(self.mean_at - at)
        self.transfer_count = self.transfer_count * mine + transfer_count * theirs
        self.mean_count = self.mean_count * mine + mean_count * theirs
        self.mean_sum = self.mean_sum * mine + mean_sum * theirs
        self.mean_at = max(self.mean_at, at)

    def _detect_change(self) -> None:
        self.residuals = self.effects.residuals(self.transfers)
        self.change = UNCHANGED
        if self.transfers:
            self.change = detect_speed_change(
                [one.at for one in self.transfers],
                [one.decisions_since for one in self.transfers],
                self.residuals,
            )


def _explains(change: Change, probability: float, residual: float) -> tuple[bool, float]:
    """Whether a change of speed explains this residual, and the shift that it made expect."""
    agrees = abs(residual - change.mean) < abs(residual)
    return probability > EXPLAINS and agrees, probability * change.mean


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0


def _time(transfer: Transfer) -> float:
    return transfer.at


def _decay(age_s: float) -> float:
    return float(2.0 ** (-age_s / MEAN_HALF_LIFE_S)) if age_s > 0.0 else 1.0
