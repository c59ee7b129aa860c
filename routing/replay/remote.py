"""A running server with clock = "request"."""

from datetime import datetime, timedelta
from typing import Any

from routing import wire
from routing.client import InvalidRequest, NoBackend, RoutingClient
from routing.client.messages import metadata_of
from routing.core.model import Outcome, Query
from routing.errors import ConfigError
from routing.replay.choice import Belief, RouterChoice, UnusableRow, dollars
from routing.replay.columns import TraceRow

_ALIKE = timedelta(seconds=1)
"""Tolerance between the time sent and the time answered: far more than rounding, and less than the
difference to a server's own clock."""

_TIME = "%Y-%m-%d %H:%M:%S"


class RemoteDecider:
    """Sends each row to a server with the trace's time."""

    def __init__(self, client: RoutingClient, name: str) -> None:
        self._client = client
        self._name = name
        self._checked = False

    async def choose(self, row: TraceRow) -> RouterChoice:
        at = wire.write_time(row.at)
        if not self._checked:
            await self._check_not_ahead(at)
        query = row.query
        try:
            selection = await self._client.select(
                content_hash=query.content_hash,
                content_type=query.content_type,
                size_bytes=query.size_bytes,
                metadata=metadata_of(query),
                strategy=query.strategy,
                priority=query.priority,
                available_backends=query.available_backends,
                location=query.location,
                request_id=query.request_id,
                at=at,
                explain=True,
            )
        except NoBackend as error:
            return RouterChoice("", refusal=error.message)
        except InvalidRequest as error:
            raise UnusableRow(error.message) from None
        if not self._checked and abs(selection.at - at) > _ALIKE:
            raise self._refused(selection.at, at)
        self._checked = True
        if selection.explanation is None:
            raise ConfigError(f"--target {self._name}", "", "expected a server that explains its choices")
        candidates = selection.explanation["candidates"]
        return RouterChoice(
            selection.backend_id, {name: _belief(query, one) for name, one in candidates.items()}
        )

    async def teach(self, outcome: Outcome, *, at: float) -> str:
        try:
            answer = await self._client.record(
                outcome.backend_id,
                outcome.success,
                request_id=outcome.request_id,
                content_hash=outcome.content_hash,
                content_type=outcome.content_type,
                size_bytes=outcome.size_bytes,
                duration_ms=outcome.duration_ms,
                error=outcome.error,
                at=wire.write_time(at),
            )
        except InvalidRequest as error:
            return error.message
        return "" if answer.recorded else answer.message

    def withdraw(self, request_id: str) -> None:
        """Does nothing: there is no such call, and the server's in-flight count decays."""

    async def _check_not_ahead(self, at: datetime) -> None:
        """Refuses a server that has seen later times: a trace must not distort what it learned."""
        now = (await self._client.insights()).at
        if now > at:
            raise self._refused(now, at)

    def _refused(self, now: datetime, at: datetime) -> ConfigError:
        expected = (
            'expected a server with clock = "request" in [routing] (ROUTING_CLOCK=request) that has seen '
            f"nothing later than the trace: its clock says {now:{_TIME}} UTC, "
            f"the trace begins at {at:{_TIME}}"
        )
        return ConfigError(f"--target {self._name}", "", expected)


def _belief(query: Query, candidate: dict[str, Any]) -> Belief:
    return Belief(
        candidate["expected_ms"],
        candidate["success_probability"],
        dollars(query, candidate["factor_scores"]["cost"]),
    )
