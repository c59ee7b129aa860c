"""Stores three objects where the router says, and shows what the router has learned.

    python examples/client.py [HOST:PORT]

The transfers are pretended: they wait a little and move no byte anywhere. Put your
own upload in the place of `pretend_to_upload`.
"""

import asyncio
import sys
from contextlib import aclosing

from routing.client import Location, NoBackend, RoutingCallError, RoutingClient

BERLIN = Location(latitude=52.52, longitude=13.41, region="eu-central-1")

OBJECTS = (
    ("bafy-photo", "image/jpeg", 2_400_000),
    ("bafy-model", "application/octet-stream", 750_000_000),
    ("bafy-page", "text/html", 18_000),
)


async def pretend_to_upload(backend_id: str, size_bytes: int) -> str:
    """Where the object would be, after a moment in which nothing is sent."""
    await asyncio.sleep(0.01)
    return f"{backend_id}://pretended/{size_bytes}"


async def store(client: RoutingClient) -> None:
    """One choice, one block: it is measured, and its outcome reports itself."""
    for content_hash, content_type, size_bytes in OBJECTS:
        async with client.route(
            content_hash=content_hash,
            content_type=content_type,
            size_bytes=size_bytes,
            location=BERLIN,
            metadata={"operation": "store", "retention_months": 12},
        ) as decision:
            where = await pretend_to_upload(decision.backend_id, size_bytes)
        print(f"{content_hash}: {decision.backend_id} (score {decision.selection.score:.3f}), {where}")


async def store_with_a_second_choice(client: RoutingClient) -> None:
    """The first backend is pretended to be down: the next best one is tried, both are reported."""
    down: list[str] = []

    async def upload(backend_id: str) -> str:
        if not down:
            down.append(backend_id)
            raise ConnectionError(f"{backend_id} is pretended to be down")
        return await pretend_to_upload(backend_id, 5_000)

    where = await client.attempt(upload, content_type="text/plain", size_bytes=5_000)
    print(f"second choice: {where}, after {down[0]}")


async def show_what_was_learned(client: RoutingClient) -> None:
    insights = await client.insights()
    for backend_id, usage in insights.backend_usage_stats.items():
        rate = insights.backend_success_rates.get(backend_id)
        print(
            f"{backend_id}: {usage.request_count} requests, {usage.outcome_count} outcomes, "
            f"success {'unknown' if rate is None else f'{rate:.0%}'}"
        )
    async with aclosing(client.metrics(include_backends=True)) as updates:
        number = 0
        async for update in updates:
            number += 1
            print(f"update {number}: {update.status.name}, backends {', '.join(update.backends or ())}")
            if number == 2:
                break


async def main(target: str) -> int:
    async with RoutingClient(target) as client:
        try:
            await store(client)
            await store_with_a_second_choice(client)
            await show_what_was_learned(client)
        except NoBackend as error:
            print(f"no backend may serve this: {error.message}", file=sys.stderr)
            return 1
        except RoutingCallError as error:
            print(f"the router says {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "localhost:50051")))
