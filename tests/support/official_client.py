"""A client made by the official tools, as a stranger would write it.

    python official_client.py GENERATED HOST:PORT

GENERATED is where grpc_tools put `routing_pb2` and `routing_pb2_grpc`. Does some work
through all four calls and prints, as JSON, what it did and what it was told. It is a
process of its own, so that no test shares its google protobuf.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

TYPES = ("image/png", "text/html", "application/octet-stream")
ROUNDS = 24
DEADLINE_S = 30.0


def plain(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def requests(pb: Any) -> Iterator[Any]:
    """What is asked for: known and unknown sizes, with and without place, type, id and metadata."""
    for number in range(ROUNDS):
        request = pb.SelectBackendRequest(
            content_hash=f"bafy-{number}",
            content_type=TYPES[number % len(TYPES)],
            content_size=number * 100_000,
        )
        if number % 2:
            request.client_location.latitude = 48.1
            request.client_location.longitude = 11.6
        if number % 3:
            request.request_id = f"request-{number}"
        if number % 4:
            request.timestamp.GetCurrentTime()
        if number % 5:
            request.metadata.update(
                {"operation": "store", "expected_reads": 2, "mine": {"a": [1, None, True]}}
            )
        yield request


def work(pb: Any, stub: Any) -> Iterator[dict[str, Any]]:
    """One choice and its outcome after the other: every fourth fails, every sixth is not measured."""
    for number, request in enumerate(requests(pb)):
        choice = stub.SelectBackend(request, timeout=DEADLINE_S)
        outcome = pb.RecordOutcomeRequest(
            backend_id=choice.backend_id,
            success=number % 4 != 0,
            content_hash=request.content_hash,
            content_type=request.content_type,
            content_size=request.content_size,
            duration_ms=0 if number % 6 == 0 else 10 + number,
            error="" if number % 4 else "pretended",
        )
        if "request_id" in pb.RecordOutcomeRequest.DESCRIPTOR.fields_by_name:
            outcome.request_id = request.request_id
        answer = stub.RecordOutcome(outcome, timeout=DEADLINE_S)
        yield {
            "asked": plain(request),
            "choice": plain(choice),
            "outcome": plain(outcome),
            "answer": plain(answer),
        }


def strays(pb: Any, stub: Any) -> Iterator[dict[str, Any]]:
    """Outcomes that no decision was made for, of which every sixth failed."""
    for number in range(12):
        outcome = pb.RecordOutcomeRequest(
            backend_id="aws-us-east-1", success=number % 6 != 0, content_type="text/html", duration_ms=200
        )
        yield {"outcome": plain(outcome), "answer": plain(stub.RecordOutcome(outcome, timeout=DEADLINE_S))}


def refusal(call: Any, request: Any) -> dict[str, str]:
    try:
        call(request, timeout=DEADLINE_S)
    except grpc.RpcError as error:
        return {"status": error.code().name, "message": error.details()}
    return {"status": "OK", "message": ""}


def updates(pb: Any, stub: Any) -> Iterator[dict[str, Any]]:
    """Two of them, then the call is cancelled."""
    stream = stub.StreamMetrics(
        pb.StreamMetricsRequest(include_backends=True, include_content_types=True), timeout=DEADLINE_S
    )
    for number, update in enumerate(stream, 1):
        yield plain(update)
        if number == 2:
            stream.cancel()
            return


def learned(pb: Any, stub: Any) -> dict[str, Any]:
    """The section that only those get who name it."""
    stream = stub.StreamMetrics(pb.StreamMetricsRequest(metrics_types=["learned"]), timeout=DEADLINE_S)
    update = plain(next(iter(stream)))
    stream.cancel()
    return update["metrics"]


def main(generated: str, address: str) -> None:
    sys.path.insert(0, generated)
    import routing_pb2 as pb
    import routing_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub = routing_pb2_grpc.RoutingServiceStub(channel)
        began = time.time()
        said = {
            "work": list(work(pb, stub)),
            "strays": list(strays(pb, stub)),
            "insights": plain(stub.GetInsights(pb.GetInsightsRequest(), timeout=DEADLINE_S)),
            "of_one_type": plain(
                stub.GetInsights(pb.GetInsightsRequest(content_type=TYPES[0]), timeout=DEADLINE_S)
            ),
            "updates": list(updates(pb, stub)),
            "learned": learned(pb, stub),
            "refused": refusal(stub.SelectBackend, pb.SelectBackendRequest(strategy="luck")),
        }
        json.dump({**said, "began": began, "ended": time.time()}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
