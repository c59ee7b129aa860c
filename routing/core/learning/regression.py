"""What shifts a backend's times, as effects that are learned together.

The promised time of a transfer is part latency and part throughput. Where a profile is
wrong about its latency, the logarithm of the time is off in proportion to latency's
share of the promise; and likewise for throughput. So an effect is a pair, one number
for each share, and an outcome's residual is the sum over the effects that apply, of
the backend, the place and the type, plus noise. One more applies the more strongly the
busier the backend is.

That is a Bayesian linear regression (Bishop, "Pattern Recognition and Machine Learning",
2006, section 3.3) in which every effect starts out normally distributed around 0. Kept
are the natural parameters, an information matrix and a vector: sums over outcomes, so
two servers' add. The matrix is sparse, since an outcome has one place and one type.

The means solve (information + prior) × means = vector. One outcome moves them little,
so that the effects it touched are solved for again, each given the others (block
Gauss-Seidel), from where they stood. What is still to be explained, vector −
information × means, is kept as `slack`.

Old outcomes weigh less by weighing new ones more (forward decay: Cormode et al., ICDE
2009): an outcome at time t has the weight 2^((t − origin) / half-life), and all sums
are scaled down when that has grown large.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HALF_LIFE_S = 86_400.0
"""What is typical of a backend and a place lasts for days; sudden changes are told apart
by `conditions`. Six hours, and no forgetting at all, measured the same."""

NOISE = 0.4
"""Standard deviation of one residual: measured object stores have 0.1 to 0.5. It matters
only in proportion to the spreads."""

OWN = ""
OWN_SPREAD = 1.0
SHARED_SPREAD = 0.3
"""Standard deviation of the backend's own effect before any outcome, a profile being wrong by
a factor of three either way, and of a place's or a type's, by a third. With 0.45 for the
latter, mean regret goes from 0.072 to 0.078 in worlds that change: each place starts anew."""

BUSY = "busy"
BUSY_SPREAD = 0.5
"""The effect of what is in flight, for each unit of its logarithm: 0.5 allows for times that
grow like the square root of it, and twice that for times that grow in proportion. Without
this effect, regret where backends slow under load is three to four times as high."""

SPREADS = {OWN: OWN_SPREAD, BUSY: BUSY_SPREAD}

MAX_EFFECTS = 48
"""Effects kept for each backend. What comes later has no effect of its own. With traffic from
everywhere of every type they take 140 KB a backend, 64 would take 215; clients in a dozen
places with half a dozen types need 32."""

REBASE_HALF_LIVES = 20
"""Sums are scaled down when the weights have doubled so many times: far from losing digits."""

LEAST_STEP = 0.003
"""A shorter step waits, and times are off by 0.3 % meanwhile, a hundredth of one transfer's
noise. A third of it takes twice the rounds."""

MOST_ROUNDS = 12
"""Rounds of solving for effects. Mostly the first or second moves nothing; outcomes that
contradict each other would take thirty, and go on with the next outcome."""

YOUNG_OUTCOMES = 16
"""While there are no more, an outcome moves the effects that it did not touch, too, and all are
solved for."""


class Effect:
    """One pair: its mean, its slack, and for each effect that it was met with (itself, too) the
    three distinct entries of their information, which both of them hold. These are most of
    what is learned: an array of numbers takes half as much memory as a list of them."""

    __slots__ = (
        "latency",
        "latency_slack",
        "met",
        "precision",
        "throughput",
        "throughput_slack",
    )

    def __init__(self, spread: float) -> None:
        self.precision = (NOISE / spread) ** 2
        self.latency = self.throughput = 0.0
        self.latency_slack = self.throughput_slack = 0.0
        self.met: dict[str, array[float]] = {}

    def variance(self, name: str, rest: float, share: float, fade: float) -> float:
        """How uncertain it is at these shares, given the others; `fade` is what the sums weigh."""
        both_latency, mixed, both_throughput = self.met[name]
        a, b, c = both_latency * fade + self.precision, mixed * fade, both_throughput * fade + self.precision
        return (
            NOISE * NOISE * (rest * rest * c - 2.0 * rest * share * b + share * share * a) / (a * c - b * b)
        )

    def solve(self, name: str, weight: float, others: Mapping[str, "Effect"]) -> bool:
        """Moves it to its best value given the others, and takes the step out of their slack;
        or does not, where that is too little to matter."""
        prior = self.precision * weight
        both_latency, mixed, both_throughput = self.met[name]
        a, c = both_latency + prior, both_throughput + prior
        latency_pull = self.latency_slack - prior * self.latency
        throughput_pull = self.throughput_slack - prior * self.throughput
        scale = 1.0 / (a * c - mixed * mixed)
        latency_step = (c * latency_pull - mixed * throughput_pull) * scale
        throughput_step = (a * throughput_pull - mixed * latency_pull) * scale
        if abs(latency_step) + abs(throughput_step) < LEAST_STEP:
            return False
        self.latency += latency_step
        self.throughput += throughput_step
        for other_name, (both_latency, mixed, both_throughput) in self.met.items():
            other = others[other_name]
            other.latency_slack -= both_latency * latency_step + mixed * throughput_step
            other.throughput_slack -= mixed * latency_step + both_throughput * throughput_step
        return True


class Effects:
    """The effects of one backend, by name; OWN is the backend itself."""

    __slots__ = ("_count", "_effects", "_last_at", "_origin")

    def __init__(self) -> None:
        self._effects: dict[str, Effect] = {}
        self._count = 0.0
        # Both are set by the first outcome.
        self._origin = 0.0
        self._last_at = 0.0

    def __repr__(self) -> str:
        return f"Effects({sorted(self._effects)})"

    def sums(self, names: Iterable[str]) -> tuple[float, float, tuple[float, float] | None]:
        """What these effects are together, for latency and for throughput, and what being busy
        adds to each; None where that is not known."""
        latency = throughput = 0.0
        find = self._effects.get
        for name in names:
            effect = find(name)
            if effect is not None:
                latency += effect.latency
                throughput += effect.throughput
        busy = find(BUSY)
        return latency, throughput, None if busy is None else (busy.latency, busy.throughput)

    def total(self, names: Iterable[str], share: float, busy: float = 0.0) -> float:
        """The sum of these effects on a transfer of whose promise `share` is throughput's, at a
        backend that is so `busy`."""
        latency, throughput, by_load = self.sums(names)
        if busy and by_load is not None:
            latency += busy * by_load[0]
            throughput += busy * by_load[1]
        return (1.0 - share) * latency + share * throughput

    def variance(self, names: Iterable[str], share: float, *, now: float) -> float:
        """How uncertain that sum is, growing with the time since the last outcome.

        Effects are taken as independent, which errs towards more uncertainty where
        outcomes have told their sum only.
        """
        rest, fade = 1.0 - share, self._fade(now)
        variance = 0.0
        for name in names:
            effect = self._effects.get(name)
            if effect is None:
                spread = SPREADS.get(name, SHARED_SPREAD)
                variance += spread * spread * (rest * rest + share * share)
            else:
                variance += effect.variance(name, rest, share, fade)
        return variance

    def evidence(self, now: float) -> float:
        """The outcomes' share in the belief about the backend's own effect, in [0, 1)."""
        count = self._count * self._fade(now)
        return count / (count + (NOISE / OWN_SPREAD) ** 2)

    def note(
        self, names: tuple[str, ...], share: float, residual: float, busy: float = 0.0, *, at: float
    ) -> None:
        """Takes in one outcome that happened at this time; they may come in any order."""
        if not self._effects:
            self._origin = self._last_at = at
        self._advance(at)
        weight = self._weight(at)
        surprise = weight * (residual - self.total(names, share, busy))
        self._count += weight
        strengths = [(name, 1.0) for name in names]
        if busy:
            strengths.append((BUSY, busy))
        touched = [
            (name, effect, strength)
            for name, strength in strengths
            if (effect := self._admitted(name)) is not None
        ]
        rest = 1.0 - share
        for index, (name, effect, strength) in enumerate(touched):
            effect.latency_slack += strength * rest * surprise
            effect.throughput_slack += strength * share * surprise
            for other_name, other, other_strength in touched[: index + 1]:
                both = weight * strength * other_strength
                entries = both * rest * rest, both * rest * share, both * share * share
                self._inform(name, effect, other_name, other, entries)
        young = self._count < YOUNG_OUTCOMES * self._weight(self._last_at)
        self._settle(list(self._effects) if young else [name for name, *_ in touched])

    def snapshot(self) -> dict[str, Any]:
        """The sums, and how far they are solved: for each effect its means and slacks, and the
        information of each two that met."""
        return {
            "origin": self._origin,
            "last_at": self._last_at,
            "count": self._count,
            "effects": {
                name: [one.latency, one.throughput, one.latency_slack, one.throughput_slack]
                for name, one in self._effects.items()
            },
            "information": [
                [name, other, *entries]
                for name, effect in self._effects.items()
                for other, entries in effect.met.items()
                if other <= name
            ],
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Adds the sums of a snapshot, and solves for all effects.

        Theirs are solved at their means, ours at ours; around any common means the slacks
        add like the sums that they are made of.
        """
        fresh = not self._effects
        if fresh:
            self._origin, self._last_at = snapshot["origin"], snapshot["last_at"]
        self._advance(snapshot["last_at"])
        factor = self._weight(snapshot["origin"])
        self._count += factor * snapshot["count"]
        for name, (latency, throughput, latency_slack, throughput_slack) in snapshot["effects"].items():
            effect = self._admitted(name)
            if effect is not None:
                effect.latency_slack += factor * latency_slack
                effect.throughput_slack += factor * throughput_slack
                if fresh:
                    effect.latency, effect.throughput = latency, throughput
        for name, other_name, *entries in snapshot["information"]:
            effect, other = self._effects.get(name), self._effects.get(other_name)
            if effect is not None and other is not None:
                entries = [factor * entry for entry in entries]
                self._inform(name, effect, other_name, other, entries)
                if not fresh:
                    _move(effect, entries, other, snapshot["effects"][other_name])
                    if other is not effect:
                        _move(other, entries, effect, snapshot["effects"][name])
        if not fresh:
            self._settle(sorted(self._effects))

    def _settle(self, names: Sequence[str]) -> None:
        """Solves for these effects again and again, until a round moves none."""
        weight, effects = self._weight(self._last_at), self._effects
        moved = (
            sum([effects[name].solve(name, weight, effects) for name in names]) for _ in range(MOST_ROUNDS)
        )
        all(moved)

    def _admitted(self, name: str) -> Effect | None:
        effect = self._effects.get(name)
        if effect is None and len(self._effects) < MAX_EFFECTS:
            effect = self._effects[name] = Effect(SPREADS.get(name, SHARED_SPREAD))
        return effect

    def _inform(
        self, name: str, effect: Effect, other_name: str, other: Effect, entries: Sequence[float]
    ) -> None:
        information = effect.met.get(other_name)
        if information is None:
            information = effect.met[other_name] = other.met[name] = array("d", bytes(24))
        information[0] += entries[0]
        information[1] += entries[1]
        information[2] += entries[2]

    def _weight(self, at: float) -> float:
        return float(2.0 ** ((at - self._origin) / HALF_LIFE_S))

    def _fade(self, now: float) -> float:
        """The weight that a sum has now, as a multiple of an outcome of now."""
        return float(2.0 ** ((self._origin - max(now, self._last_at)) / HALF_LIFE_S))

    def _advance(self, at: float) -> None:
        """Takes note of the latest time, and scales all sums down where it is far ahead: by a
        power of two, which costs no digit."""
        self._last_at = max(self._last_at, at)
        half_lives = int((self._last_at - self._origin) / HALF_LIFE_S)
        if half_lives < REBASE_HALF_LIVES:
            return
        self._origin += half_lives * HALF_LIFE_S
        factor = 2.0**-half_lives
        self._count *= factor
        for name, effect in self._effects.items():
            effect.latency_slack *= factor
            effect.throughput_slack *= factor
            for other_name, information in effect.met.items():
                if other_name <= name:
                    information[:] = array("d", [entry * factor for entry in information])


def _move(effect: Effect, entries: Sequence[float], other: Effect, theirs: Sequence[float]) -> None:
    """Corrects a slack for another effect's being at our mean, where it was at theirs."""
    both_latency, mixed, both_throughput = entries
    latency, throughput = theirs[0] - other.latency, theirs[1] - other.throughput
    effect.latency_slack += both_latency * latency + mixed * throughput
    effect.throughput_slack += mixed * latency + both_throughput * throughput
