"""Time to encode and decode typical messages: our codec, betterproto2's, google's.

    python benchmarks/codec.py [--rounds 15]

Needs the extra `test` (for google's protobuf). Prints microseconds of CPU time per message:
minimum, median and maximum over rounds in which the codecs take turns. For google, `decode` and
`encode` are FromString and SerializeToString of its C core; the cost of reading or setting
single values afterwards is not counted.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from routing_pb.codec import CODECS

from routing import wire

_NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
_FACTORS = ("performance", "cost", "reliability", "geo_proximity", "content_affinity", "load")
_SECTIONS = ("factor_weights", "backend_scores", "success_rates", "latency_ms")
_BACKENDS = ("ipfs", "filecoin", "s3")


def typical_messages() -> list[Any]:
    """One message of each type that a busy server handles."""
    scores = {name: 0.123456789 * (at + 1) for at, name in enumerate(_FACTORS)}
    return [
        wire.SelectBackendRequest(
            content_hash="bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
            content_type="image/jpeg",
            content_size=5_242_880,
            metadata=wire.write_struct(
                {"operation": "store", "retention_months": 12, "require_tags": ["us"]}
            ),
            strategy="hybrid",
            priority="balanced",
            available_backends=list(_BACKENDS),
            client_location=wire.SelectBackendRequestGeoLocation(latitude=48.1, longitude=11.6, region="eu"),
            request_id="4f1c2e0a-7d33-4f0e-9a44-0c1f6f6f3f11",
            timestamp=_NOW,
        ),
        wire.SelectBackendResponse(
            backend_id="s3",
            score=0.8123,
            factor_scores=wire.write_struct(scores),
            alternatives=[
                wire.SelectBackendResponseAlternative(backend_id=name, score=0.5) for name in _BACKENDS[:2]
            ],
            request_id="4f1c2e0a-7d33-4f0e-9a44-0c1f6f6f3f11",
            timestamp=_NOW,
        ),
        wire.RecordOutcomeRequest(
            backend_id="s3",
            success=True,
            content_hash="bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
            content_type="image/jpeg",
            content_size=5_242_880,
            duration_ms=731,
            timestamp=_NOW,
            request_id="4f1c2e0a-7d33-4f0e-9a44-0c1f6f6f3f11",
        ),
        wire.RecordOutcomeResponse(success=True, message="linked by request_id", timestamp=_NOW),
        wire.MetricsUpdate(
            metrics=wire.write_struct(
                {section: dict.fromkeys(_BACKENDS, 0.75) for section in _SECTIONS} | {"version": "1.0"}
            ),
            status=wire.MetricsUpdateSystemStatus.WARNING,
            timestamp=_NOW,
        ),
    ]


def google_class(name: str) -> Any:
    """Google's class for the message of this full name."""
    pool = descriptor_pool.DescriptorPool()
    data = resources.files("routing_pb").joinpath("descriptors.bin").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def contenders(message: Any) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """(who, what, call) for one message."""
    codec, kind, data = wire.Codec(), type(message), bytes(message)
    google = google_class(CODECS[kind].name).FromString(data)
    yield "ours", "decode", lambda: codec.decode(data, kind)
    yield "betterproto2", "decode", lambda: kind.parse(data)
    yield "google", "decode", lambda: type(google).FromString(data)
    yield "ours", "encode", lambda: codec.encode(message, kind)
    yield "betterproto2", "encode", lambda: bytes(message)
    yield "google", "encode", google.SerializeToString


def microseconds(call: Callable[[], object], seconds: float = 0.02) -> float:
    """Mean time of one call, over as many calls as fit into about `seconds`."""
    calls, elapsed = 1, 0.0
    while elapsed < seconds:
        calls *= 2
        started = time.process_time()
        for _ in range(calls):
            call()
        elapsed = time.process_time() - started
    return elapsed / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the codec on typical messages.")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f"{'message':<24}{'bytes':>6}  {'what':<8}{'who':<14}{'min':>9}{'median':>9}{'max':>9}  µs")
    for message in typical_messages():
        rows = [(who, what, call, list[float]()) for who, what, call in contenders(message)]
        for _ in range(rounds):
            for *_, call, times in rows:
                times.append(microseconds(call))
        for who, what, _, times in rows:
            spread = f"{min(times):>9.2f}{statistics.median(times):>9.2f}{max(times):>9.2f}"
            print(f"{type(message).__name__:<24}{len(bytes(message)):>6}  {what:<8}{who:<14}{spread}")


if __name__ == "__main__":
    main()
