"""What shifts a backend's durations: effects of backend, place, type and load, learned together.

The promised duration of a transfer is part latency, part throughput. If a profile is wrong
about latency, the logarithm of the duration is off in proportion to latency's share of
the promise; likewise for throughput. So an effect is a pair of numbers, one for each
share, and the residual of an outcome is the sum of the effects that apply (of the
backend, the place, the type) plus noise. The effect of load is multiplied by the load.

This is a Bayesian linear regression (Bishop, "Pattern Recognition and Machine Learning",
2006, section 3.3), in which the prior of every effect is normal with mean 0. Its state are
the natural parameters, an information matrix and an information vector: sums over
outcomes, so the sums of two servers add. The matrix is sparse, since an outcome has one
place and one type.

The means solve (information + prior) × means = vector. One outcome moves them little, so
only the effects that it touches are solved for again, from their present means and each
given the others (block Gauss-Seidel). Instead of the vector, its gradient is kept:
vector − information × means, what the present means leave unexplained.

Old outcomes weigh less because new ones weigh more (forward decay: Cormode et al., ICDE
2009): an outcome at time t has the weight 2^((t − origin) / half-life), and all sums are
scaled down when that weight has grown large.
"""

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from routing.core.learning.context import OWN, Context
from routing.core.learning.effect import NOISE, Effect, block
from routing.core.learning.transfer import Transfer
from routing.core.model import Operation

HALF_LIFE_S = 86_400.0
"""What is typical of a backend or a place lasts for days; `changepoint` detects sudden changes.
A half-life of six hours, and no decay at all, measured the same."""

OWN_SPREAD = 1.0
SHARED_SPREAD = 0.3
"""OWN names the backend's own effect. The standard deviations before any outcome: of the
backend's own effect 1.0, for profiles that are wrong by a factor of three; of a place's or a
type's 0.3, for a third. With 0.45 for the latter, mean regret goes from 0.072 to 0.078 in
worlds that change, since each place is learned anew."""

LOAD = "busy"
LOAD_SPREAD = 0.5
"""LOAD names the effect of operations in flight; load is ln(1 + operations). The standard
deviation 0.5 allows for durations that grow with their square root, and twice that for
durations that grow in proportion. Without this effect, regret where backends slow down under
load is three to four times as high."""

OPERATION_SPREAD = 0.7
"""Standard deviation of the effect of an operation: an archive may take a hundred times as long to
store as to retrieve, while most backends differ little. Between those of a backend and of a place;
other values were not measured."""

SPREADS = {
    OWN: OWN_SPREAD,
    LOAD: LOAD_SPREAD,
    **{f"operation:{operation.value}": OPERATION_SPREAD for operation in Operation},
}

MAX_EFFECTS = 48
"""Effects for each backend; a new one evicts the one with the least evidence. 48 take 28 KB of
information; it grows with their square. Clients in a dozen places with half a dozen types have
more than 48, of which the rare ones are evicted."""

REBASE_HALF_LIVES = 20
"""Sums are scaled down after so many half-lives, long before the weights cost precision."""

MAX_ROUNDS = 12
"""Rounds of solving for the effects. Usually the first or second moves none; outcomes that
contradict each other would take thirty, and converge over the next outcomes."""

SOLVE_ALL_OUTCOMES = 16
"""Up to so many outcomes, all effects are solved for after each: with few outcomes, one moves
also effects that it does not touch."""


class Effects:
    """The effects of one backend, by name; OWN is the backend's own."""

    __slots__ = ("_by_slot", "_count", "_effects", "_information", "_last_at", "_origin")

    def __init__(self) -> None:
        self._effects: dict[str, Effect] = {}
        self._by_slot: list[Effect] = []
        self._information = array("d")  # see `block`
        self._count = 0.0
        # The first outcome sets both.
        self._origin = 0.0
        self._last_at = 0.0

    def __repr__(self) -> str:
        return f"Effects({sorted(self._effects)})"

    def sums(self, names: Iterable[str]) -> tuple[float, float, tuple[float, float] | None]:
        """The sums of these effects for latency and for throughput, and the effect of load on
        each; None if that is not known."""
        latency = throughput = 0.0
        find = self._effects.get
        for name in names:
            effect = find(name)
            if effect is not None:
                latency += effect.latency
                throughput += effect.throughput
        load = find(LOAD)
        return latency, throughput, None if load is None else (load.latency, load.throughput)

    def total(self, names: Iterable[str], throughput_share: float, load: float = 0.0) -> float:
        """The predicted residual of a transfer to which these effects apply, at this `load`."""
        latency, throughput, by_load = self.sums(names)
        if load and by_load is not None:
            latency += load * by_load[0]
            throughput += load * by_load[1]
        return (1.0 - throughput_share) * latency + throughput_share * throughput

    def residuals(self, transfers: Iterable[Transfer]) -> list[float]:
        """What these effects do not explain of each transfer."""
        # Transfers of one context share the sums: each outcome asks for those of the latest eight.
        sums: dict[Context, tuple[float, float, tuple[float, float] | None]] = {}
        residuals = []
        for _, residual, throughput_share, context, load, _ in transfers:
            known = sums.get(context)
            if known is None:
                known = sums[context] = self.sums(context)
            latency, throughput, by_load = known
            if load and by_load is not None:
                latency += load * by_load[0]
                throughput += load * by_load[1]
            residuals.append(residual - (1.0 - throughput_share) * latency - throughput_share * throughput)
        return residuals

    def variance(self, names: Iterable[str], throughput_share: float, *, now: float) -> float:
        """The variance of that prediction; it grows with the time since the last outcome.

        Effects are treated as independent, which overestimates it where outcomes have
        determined only their sum.
        """
        latency_share, decay = 1.0 - throughput_share, self._decay(now)
        variance = 0.0
        for name in names:
            effect = self._effects.get(name)
            if effect is None:
                spread = SPREADS.get(name, SHARED_SPREAD)
                squares = latency_share * latency_share + throughput_share * throughput_share
                variance += spread * spread * squares
            else:
                variance += effect.variance(self._information, latency_share, throughput_share, decay)
        return variance

    def support(self, throughput_share: float, *, now: float) -> float:
        """How much of the estimate of such transfers comes from outcomes, not the prior: in [0, 1)."""
        own = self._effects.get(OWN)
        if own is None:
            return 0.0
        latency_share = 1.0 - throughput_share
        squares = latency_share * latency_share + throughput_share * throughput_share
        variance = own.variance(self._information, latency_share, throughput_share, self._decay(now))
        return 1.0 - variance / (OWN_SPREAD * OWN_SPREAD * squares)

    def evidence(self, now: float) -> float:
        """How much of the backend's own effect comes from outcomes, not the prior: in [0, 1)."""
        count = self._count * self._decay(now)
        return count / (count + (NOISE / OWN_SPREAD) ** 2)

    def note(
        self,
        names: tuple[str, ...],
        throughput_share: float,
        residual: float,
        load: float = 0.0,
        *,
        at: float,
    ) -> None:
        """Adds one outcome that happened at `at`; the order does not matter."""
        if not self._effects:
            self._origin = self._last_at = at
        self._advance(at)
        weight = self._weight(at)
        surprise = weight * (residual - self.total(names, throughput_share, load))
        self._count += weight
        strengths = [(name, 1.0) for name in names]
        if load:
            strengths.append((LOAD, load))
        touched = [(self._get_or_add(name), strength) for name, strength in strengths]
        latency_share = 1.0 - throughput_share
        a, b = weight * latency_share * latency_share, weight * latency_share * throughput_share
        c = weight * throughput_share * throughput_share
        information = self._information
        for index, (effect, strength) in enumerate(touched):
            effect.latency_gradient += strength * latency_share * surprise
            effect.throughput_gradient += strength * throughput_share * surprise
            slot, row = effect.slot, block(effect.slot, 0)
            for other, other_strength in touched[: index + 1]:
                both = strength * other_strength
                start = row + 3 * other.slot if other.slot <= slot else block(other.slot, slot)
                information[start] += both * a
                information[start + 1] += both * b
                information[start + 2] += both * c
        if len(self._effects) > MAX_EFFECTS:
            self._evict(names)
        solve_all = self._count < SOLVE_ALL_OUTCOMES * self._weight(self._last_at)
        self._solve(self._effects.values() if solve_all else [effect for effect, _ in touched])

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON-able values: the means and gradients of each effect, and the
        information of each pair of effects."""
        return {
            "origin": self._origin,
            "last_at": self._last_at,
            "count": self._count,
            "effects": {
                name: [one.latency, one.throughput, one.latency_gradient, one.throughput_gradient]
                for name, one in self._effects.items()
            },
            "information": [
                [name, other_name, *entries]
                for name, effect in self._effects.items()
                for other_name, other in self._effects.items()
                if other_name <= name and any(entries := self._entries(effect, other))
            ],
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Adds the sums of a snapshot, and solves for all effects.

        The snapshot's gradients are taken at its means, ours at our means. Once theirs are
        moved to our means, gradients add like the sums that they are made of.
        """
        fresh = not self._effects
        if fresh:
            self._origin, self._last_at = snapshot["origin"], snapshot["last_at"]
        self._advance(snapshot["last_at"])
        factor = self._weight(snapshot["origin"])
        self._count += factor * snapshot["count"]
        for name, (latency, throughput, latency_gradient, throughput_gradient) in snapshot["effects"].items():
            effect = self._get_or_add(name)
            effect.latency_gradient += factor * latency_gradient
            effect.throughput_gradient += factor * throughput_gradient
            if fresh:
                effect.latency, effect.throughput = latency, throughput
        for name, other_name, *entries in snapshot["information"]:
            effect, other = self._effects[name], self._effects[other_name]
            entries = [factor * entry for entry in entries]
            self._add_information(effect, other, entries)
            if not fresh:
                _shift_gradient(effect, entries, other, snapshot["effects"][other_name])
                if other is not effect:
                    _shift_gradient(other, entries, effect, snapshot["effects"][name])
        self._evict()
        if not fresh:
            self._solve([self._effects[name] for name in sorted(self._effects)])

    def _solve(self, effects: Collection[Effect]) -> None:
        """Solves for these effects in rounds, until one moves none."""
        information, weight, by_slot = self._information, self._weight(self._last_at), self._by_slot
        for _ in range(MAX_ROUNDS):
            moved = [effect.solve(information, weight, by_slot) for effect in effects]
            if not any(moved):
                break

    def _get_or_add(self, name: str) -> Effect:
        effect = self._effects.get(name)
        if effect is None:
            slot = len(self._by_slot)
            effect = self._effects[name] = Effect(SPREADS.get(name, SHARED_SPREAD), slot)
            self._by_slot.append(effect)
            self._information.frombytes(bytes(24 * (slot + 1)))
        return effect

    def _evict(self, keep: Collection[str] = ()) -> None:
        """Evicts the effects with the least evidence, equal ones by name, while there are too
        many: an order that follows from the sums alone. What an evicted effect explained stays
        explained, since the gradients of the others are taken at its mean."""
        effects = self._effects
        while len(effects) > MAX_EFFECTS:
            weakest = min(
                (name for name in effects if name not in SPREADS and name not in keep),
                key=lambda name: (effects[name].weight(self._information), name),
            )
            self._free(effects.pop(weakest).slot)

    def _free(self, slot: int) -> None:
        """Removes a row and its column: the last effect moves to this slot."""
        last, information = self._by_slot.pop(), self._information
        row = information[block(last.slot, 0) :]
        del information[block(last.slot, 0) :]
        if last.slot == slot:
            return
        for other in range(last.slot):
            start, source = block(slot, other), 3 * (last.slot if other == slot else other)
            information[start : start + 3] = row[source : source + 3]
        last.slot = slot
        self._by_slot[slot] = last

    def _entries(self, effect: Effect, other: Effect) -> "array[float]":
        start = block(effect.slot, other.slot)
        return self._information[start : start + 3]

    def _add_information(self, effect: Effect, other: Effect, entries: Sequence[float]) -> None:
        start = block(effect.slot, other.slot)
        for index, entry in enumerate(entries, start):
            self._information[index] += entry

    def _weight(self, at: float) -> float:
        return float(2.0 ** ((at - self._origin) / HALF_LIFE_S))

    def _decay(self, now: float) -> float:
        """What one unit of a sum weighs now, relative to an outcome of now."""
        return float(2.0 ** ((self._origin - max(now, self._last_at)) / HALF_LIFE_S))

    def _advance(self, at: float) -> None:
        """Updates the latest time, and scales all sums down if it is far after the origin: by a
        power of two, which loses no precision."""
        self._last_at = max(self._last_at, at)
        half_lives = int((self._last_at - self._origin) / HALF_LIFE_S)
        if half_lives < REBASE_HALF_LIVES:
            return
        self._origin += half_lives * HALF_LIFE_S
        factor = 2.0**-half_lives
        self._count *= factor
        self._information = array("d", [entry * factor for entry in self._information])
        for effect in self._by_slot:
            effect.latency_gradient *= factor
            effect.throughput_gradient *= factor


def _shift_gradient(effect: Effect, entries: Sequence[float], other: Effect, theirs: Sequence[float]) -> None:
    """Moves a snapshot's part of a gradient from the snapshot's means of `other` to ours."""
    a, b, c = entries
    latency, throughput = theirs[0] - other.latency, theirs[1] - other.throughput
    effect.latency_gradient += a * latency + b * throughput
    effect.throughput_gradient += b * latency + c * throughput
