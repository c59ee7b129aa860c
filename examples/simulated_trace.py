"""Writes examples/simulated-trace.csv: six hundred uploads that never happened.

    python examples/simulated_trace.py > examples/simulated-trace.csv

Everything in it is made up, with dice that always fall alike. Three backends are those of
examples/minimal.toml; what they are really like is in TRUE, and is not what their profiles say:
the disk in the cellar hangs on a slow line, fails now and then, and stops altogether for an hour.

The policy that chose is a rule with a random part, as a careful team would log it: the cellar for
what is small, Frankfurt for the rest; but in four cases of ten any of the three, each alike. So
the probability of each choice is known, and stands in the column `propensity`.
"""

import csv
import math
import random
import sys
from datetime import UTC, datetime, timedelta

ROWS = 600
BEGIN = datetime(2026, 3, 2, 8, tzinfo=UTC)
SECONDS_BETWEEN = 36.0
ANY_SHARE = 0.4
SMALL_BYTES = 1_000_000
NOISE = 0.35
OUTAGE_HOURS = (3.0, 4.0)

# {backend: (place, milliseconds to the first byte, megabits per second, share of successes)}
TRUE = {
    "bucket-frankfurt": ((50.1, 8.7), 120.0, 180.0, 0.995),
    "bucket-oregon": ((45.8, -119.7), 90.0, 240.0, 0.99),
    "disk-in-the-cellar": (None, 20.0, 35.0, 0.93),
}
CLIENTS = {"eu-central-1": (48.1, 11.6), "eu-west-3": (48.9, 2.4), "us-east-1": (39.0, -77.5)}
TYPES = {"image/jpeg": 400e3, "application/pdf": 1.5e6, "video/mp4": 40e6}
HEADER = (
    *("timestamp", "content_hash", "content_type", "content_size", "region", "latitude", "longitude"),
    *("backend_id", "propensity", "success", "duration_ms", "error"),
)


def chosen(dice: random.Random, size_bytes: int) -> tuple[str, float]:
    """The backend that the logged policy takes, and how probable that was."""
    rule = "disk-in-the-cellar" if size_bytes < SMALL_BYTES else "bucket-frankfurt"
    backend = dice.choice(sorted(TRUE)) if dice.random() < ANY_SHARE else rule
    return backend, ANY_SHARE / len(TRUE) + (1.0 - ANY_SHARE) * (backend == rule)


def duration_ms(dice: random.Random, backend: str, size_bytes: int, client: tuple[float, float]) -> int:
    place, latency_ms, throughput_mbps, _ = TRUE[backend]
    # A degree is about 111 km, and a kilometre there and back at least 0.01 ms; the cellar is in Munich.
    degrees = math.dist(place or CLIENTS["eu-central-1"], client)
    mean_ms = latency_ms + degrees * 1.1 + size_bytes * 8e-3 / throughput_mbps
    return max(1, round(mean_ms * math.exp(dice.gauss(0.0, NOISE))))


def row(dice: random.Random, number: int) -> tuple[object, ...]:
    hours = number * SECONDS_BETWEEN / 3600
    at = BEGIN + timedelta(seconds=number * SECONDS_BETWEEN + dice.uniform(0.0, SECONDS_BETWEEN))
    region, client = dice.choice(sorted(CLIENTS.items()))
    content_type, median_bytes = dice.choice(sorted(TYPES.items()))
    size_bytes = round(median_bytes * math.exp(dice.gauss(0.0, 1.0)))
    backend, propensity = chosen(dice, size_bytes)
    outage = backend == "disk-in-the-cellar" and OUTAGE_HOURS[0] <= hours < OUTAGE_HOURS[1]
    success = not outage and dice.random() < TRUE[backend][3]
    took_ms = duration_ms(dice, backend, size_bytes, client)
    return (
        *(f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{dice.getrandbits(64):016x}", content_type, size_bytes),
        *(region, *client, backend, f"{propensity:.4f}", str(success).lower()),
        *((took_ms, "") if success else ("", "no answer" if outage else "broken off")),
    )


def main() -> None:
    dice = random.Random(0)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(row(dice, number) for number in range(ROWS))


if __name__ == "__main__":
    main()
