"""The types that the client promises; `mypy tests/typing` reads this, nothing runs it."""

from collections.abc import AsyncGenerator, Generator, Mapping
from datetime import UTC, datetime
from typing import Any, assert_type

from routing.client import (
    Acknowledgement,
    Activity,
    BackendSummary,
    Insights,
    Latency,
    Learned,
    Location,
    Metrics,
    RoutingClient,
    Selection,
    SystemStatus,
    TlsFiles,
    Trial,
    Usage,
    sync,
)
from routing.client.testing import in_process


async def length(backend_id: str) -> int:
    return len(backend_id)


async def asynchronous() -> None:
    async with RoutingClient("localhost:50051", tls=TlsFiles(ca="ca.pem"), token="secret") as client:
        assert_type(client, RoutingClient)
        selection = await client.select(
            content_hash="bafy",
            content_type="image/png",
            size_bytes=1,
            metadata={"operation": "store", "require_tags": ["eu"]},
            strategy="cost",
            priority="balanced",
            available_backends=("s3", "ipfs"),
            location=Location(52.5, 13.4, "eu"),
            request_id="r",
            at=datetime.now(UTC),
            explain=True,
            timeout_seconds=1.0,
        )
        assert_type(selection, Selection)
        assert_type(selection.factor_scores, Mapping[str, float])
        assert_type(selection.backend_ids, tuple[str, ...])
        assert_type(selection.at, datetime)
        assert_type(selection.explanation, Mapping[str, Any] | None)
        assert_type(await client.record("s3", True, duration_ms=1.5), Acknowledgement)
        insights = await client.insights(hours=1)
        assert_type(insights, Insights)
        assert_type(insights.content_type_distribution, Mapping[str, Mapping[str, int]])
        assert_type(insights.backend_usage_stats, Mapping[str, Usage])
        assert_type(insights.latency_stats["s3"], Latency)
        assert_type(client.metrics(sections=["system"]), AsyncGenerator[Metrics, None])
        async for update in client.metrics(interval_seconds=5):
            assert_type(update.status, SystemStatus)
            assert_type(update.system, Activity | None)
            assert_type(update.backends, Mapping[str, BackendSummary] | None)
            assert_type(update.learned, Mapping[str, Learned] | None)
        async with client.route(content_type="image/png", size_bytes=1) as decision:
            assert_type(decision, Trial)
            assert_type(decision.backend_id, str)
            assert_type(decision.duration_ms, int | None)
        assert_type(await client.attempt(length, attempts=2, content_type="image/png"), int)
        assert_type(client.unrecorded, int)

        await client.select(content_typ="image/png")  # type: ignore[call-arg]
        await client.attempt(length, content_typ="image/png")  # type: ignore[call-arg]
        await client.select(size_bytes="1")  # type: ignore[arg-type]
        await client.attempt(len)  # type: ignore[arg-type]
        selection.score = 1.0  # type: ignore[misc]


async def in_one_process() -> None:
    async with in_process(seed=1) as client:
        assert_type(client, RoutingClient)


def synchronous() -> None:
    with sync.RoutingClient("localhost:50051") as client:
        assert_type(client.select(content_type="image/png"), Selection)
        assert_type(client.record("s3", success=True), Acknowledgement)
        assert_type(client.insights(), Insights)
        assert_type(client.metrics(), Generator[Metrics, None, None])
        with client.route(content_type="image/png") as decision:
            assert_type(decision, Trial)
        assert_type(client.attempt(len, content_type="image/png"), int)
        client.select(content_typ="image/png")  # type: ignore[call-arg]
    assert_type(sync.RoutingClient.of(in_process()), sync.RoutingClient)
