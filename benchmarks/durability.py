"""Cost of durability: outcomes per second with a state file, relative to memory only.

Three servers run side by side: in memory, with `ack` and with `interval`. Each round loads them
one after the other, with a fixed number of callers that each wait for an answer. The ratio within
a round is the result, since a busy machine slows all of them.

    python benchmarks/durability.py            # 64 callers, about a minute
"""

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from serve import Measurement, config, request_of, running, sample, spread

from routing import wire

NAMES = ("in memory", "ack", "interval")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each sample")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--streams", type=int, default=16, help="callers on each connection")
    given = parser.parse_args()
    one = Measurement("record", "RecordOutcome", 3, connections=given.connections, streams=given.streams)
    with tempfile.TemporaryDirectory() as place, ExitStack() as started:
        folder = Path(place)
        message = folder / "request.bin"
        message.write_bytes(request_of(one.method, wire.write_time(time.time()), backends=3))
        serve = [
            sys.executable,
            "-m",
            "routing",
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--config",
            str(config(folder, 3)),
        ]
        flags = {
            "in memory": [],
            "ack": ["--state", f"sqlite:///{folder}/ack.db"],
            "interval": ["--state", f"sqlite:///{folder}/interval.db", "--durability", "interval"],
        }
        servers = {name: started.enter_context(running([*serve, *flags[name]])) for name in NAMES}
        rates: dict[str, list[float]] = {name: [] for name in NAMES}
        for number in range(given.rounds):
            first = number % len(NAMES)
            for name in NAMES[first:] + NAMES[:first]:
                taken = sample(servers[name], one, message, given.seconds, None)
                rates[name].append(taken.calls_per_second)
    print(f"{given.connections} connections × {given.streams} callers; minimum median maximum of the rounds")
    for name in NAMES:
        ratios = [rate / memory for rate, memory in zip(rates[name], rates["in memory"], strict=True)]
        print(f"  {name:10} {spread(rates[name], '7.0f')} outcomes/s   of in memory {spread(ratios, '5.2f')}")
    ack = [rate / memory for rate, memory in zip(rates["ack"], rates["in memory"], strict=True)]
    print(f"ack / in memory: {statistics.median(ack):.2f}")


if __name__ == "__main__":
    main()
