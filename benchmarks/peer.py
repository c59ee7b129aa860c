"""The peer: the official grpcio asyncio server with google protobuf and a constant answer.

It parses the request and serialises a response that was built at the start, without deciding,
learning or validating anything: an upper bound for a router on grpcio.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
import grpc_tools
from grpc_tools import protoc

PROTO = Path(__file__).parent.parent / "proto"
FACTORS = ("performance", "cost", "reliability", "geo_proximity", "content_affinity", "load")


def compiled() -> tuple[Any, Any]:
    """Modules generated from the schema by grpcio's compiler."""
    folder = tempfile.mkdtemp(prefix="peer")
    include = Path(grpc_tools.__file__).parent / "_proto"
    flags = [f"-I{PROTO}", f"-I{include}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", *flags, "routing.proto"]):
        sys.exit("protoc failed")
    sys.path.insert(0, folder)
    import routing_pb2
    import routing_pb2_grpc

    return routing_pb2, routing_pb2_grpc


async def serve(port: int, backends: int) -> None:
    messages, services = compiled()
    decision = messages.SelectBackendResponse(backend_id="backend-0", score=0.75, request_id="request")
    decision.factor_scores.update(dict.fromkeys(FACTORS, 0.75))
    for number in range(1, min(backends, 33)):
        decision.alternatives.add(backend_id=f"backend-{number}", score=0.5)
    decision.timestamp.GetCurrentTime()
    recorded = messages.RecordOutcomeResponse(success=True, message="recorded")
    recorded.timestamp.GetCurrentTime()

    class Canned(services.RoutingServiceServicer):  # type: ignore[misc, name-defined]
        async def SelectBackend(self, request: Any, context: Any) -> Any:
            return decision

        async def RecordOutcome(self, request: Any, context: Any) -> Any:
            return recorded

    server = grpc.aio.server()
    services.add_RoutingServiceServicer_to_server(Canned(), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(f"peer ready address=127.0.0.1:{bound}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--backends", type=int, default=3)
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.backends))
