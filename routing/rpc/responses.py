"""Responses: decisions, acknowledgements and reports, as messages or straight as bytes.

What is answered often skips the message: one with a Struct is thirty objects, and most of their
encoding is the same each time. The unchanging part is cut out of messages that the codec has encoded,
so that no field number is written a second time.
"""

from collections.abc import Callable, Iterable, Mapping
from struct import Struct, pack
from typing import Any

from routing import wire
from routing.core.factors import FACTORS
from routing.core.model import Decision, Ranked, Recorded
from routing.core.report import Insights, Metrics
from routing.protobuf.wireformat import write_datetime
from routing.wire.struct_bytes import Names, RowsWriter, Steps, StructWriter, finished, sized


def _by_factor(values: Iterable[float]) -> dict[str, float]:
    return dict(zip(FACTORS, values, strict=True))


def _explained(candidate: Ranked) -> dict[str, Any]:
    estimate = candidate.estimate
    return {
        "score": candidate.score,
        "factor_scores": _by_factor(candidate.factor_scores),
        "expected_ms": estimate.expected_ms,
        "success_probability": estimate.success_probability,
        "prior_ms": estimate.prior_ms,
        "prior_success": estimate.prior_success,
        "speed_evidence": estimate.evidence.speed,
        "success_evidence": estimate.evidence.success,
    }


def _explanation(decision: Decision) -> wire.Struct:
    """The shape that proto/routing.proto promises for `explanation`."""
    candidates = (decision.chosen, *decision.others)
    return wire.write_struct(
        {
            "weights": _by_factor(decision.weights),
            "probe": decision.probe,
            "candidates": {candidate.backend_id: _explained(candidate) for candidate in candidates},
            "ineligible": decision.ineligible,
        }
    )


def write_decision(decision: Decision, *, explain: bool, now: float) -> wire.SelectBackendResponse:
    """The choice with its factors and alternatives, and the whole reckoning where asked for."""
    return wire.SelectBackendResponse(
        backend_id=decision.chosen.backend_id,
        score=decision.chosen.score,
        factor_scores=wire.write_struct(_by_factor(decision.chosen.factor_scores)),
        alternatives=[
            wire.SelectBackendResponseAlternative(other.backend_id, other.score) for other in decision.others
        ],
        request_id=decision.query.request_id,
        timestamp=wire.write_time(now),
        explanation=_explanation(decision) if explain else None,
    )


def write_recorded(recorded: Recorded, *, now: float) -> wire.RecordOutcomeResponse:
    """Whether the outcome was taken in."""
    return wire.RecordOutcomeResponse(recorded.recorded, recorded.message, wire.write_time(now))


_MARK = 0.1
"""A number that stands for the one to come: its eight bytes are in nothing else that we encode."""


def _cut(**fields: Any) -> list[bytes]:
    """A response's bytes, cut where the mark stands in it."""
    message = wire.SelectBackendResponse(**fields)
    return wire.Codec().encode(message, wire.SelectBackendResponse).split(pack("<d", _MARK))


def _factor_scores() -> Callable[..., bytes]:
    """Packs one number for each factor, as the whole field."""
    before, *between, rest = _cut(factor_scores=wire.write_struct(dict.fromkeys(FACTORS, _MARK)))
    assert not rest
    pieces = [before, *between]
    form = Struct("<" + "".join(f"{len(piece)}sd" for piece in pieces))

    def packed(*scores: float) -> bytes:
        return form.pack(*[part for pair in zip(pieces, scores, strict=True) for part in pair])

    return packed


def _chosen(name: str, score: float) -> list[bytes]:
    return _cut(backend_id=name, score=score)


def _alternative(name: str, score: float) -> list[bytes]:
    return _cut(alternatives=[wire.SelectBackendResponseAlternative(name, score)])


class DecisionWriter:
    """State: the encoded names of backends, at most MAX_NAMES each as choice and as alternative."""

    def __init__(self) -> None:
        self._factor_scores = _factor_scores()
        self._chosen = Names(lambda name: _chosen(name, _MARK)[0])
        self._alternative = Names(lambda name: _alternative(name, _MARK)[0])
        self._request_id = _cut(request_id="?")[0][:1]
        self._timestamp = _cut(timestamp=wire.write_time(1.0))[0][:1]
        self._score = Struct("<d").pack

    def write(self, decision: Decision, *, now: float) -> bytes:
        """What `write_decision` says without an explanation, encoded."""
        chosen, score, known = decision.chosen, self._score, self._alternative
        # A score of 0 is not sent at all, which changes what precedes it.
        out = [
            self._chosen[chosen.backend_id] + score(chosen.score)
            if chosen.score
            else _chosen(chosen.backend_id, chosen.score)[0],
            self._factor_scores(*chosen.factor_scores),
        ]
        out += [
            known[name] + score(points) if points else _alternative(name, points)[0]
            for name, points, _, _ in decision.others
        ]
        if request_id := decision.query.request_id.encode():
            out.append(self._request_id + sized(request_id))
        out.append(self._timestamp + sized(write_datetime(wire.write_time(now))))
        return b"".join(out)


ROWS = ("backend_usage_stats", "latency_stats")
"""Fields of a GetInsightsResponse that have a row for each backend, all with the same keys."""


_codec = wire.Codec()


class ReportWriter:
    """The responses of GetInsights and StreamMetrics."""

    def __init__(self) -> None:
        self._structs = StructWriter()
        self._insights = {name: _tag(wire.GetInsightsResponse, name) for name in Insights.__slots__}
        self._metrics = _tag(wire.MetricsUpdate, "metrics")
        # {field of Insights whose rows are alike: their writer}, once the first row has come.
        self._rows: dict[str, RowsWriter] = {}

    def insights(self, insights: Insights, *, now: float) -> Steps:
        """A GetInsightsResponse, encoded, in steps."""
        parts = []
        for name, tag in self._insights.items():
            values = getattr(insights, name)
            if name in ROWS and values:
                body = self._rows_of(name, values).write(values)
            else:
                body = yield from self._structs.steps(values)
            parts.append(tag + sized(body))
        rest = wire.GetInsightsResponse(timestamp=wire.write_time(now))
        return b"".join(parts) + _codec.encode(rest, wire.GetInsightsResponse)

    def _rows_of(self, name: str, values: Mapping[str, Mapping[str, float]]) -> RowsWriter:
        found = self._rows.get(name)
        if found is None:
            found = self._rows[name] = RowsWriter(next(iter(values.values())))
        return found

    def metrics(self, metrics: Metrics, *, now: float) -> bytes:
        """A MetricsUpdate, encoded."""
        rest = wire.MetricsUpdate(
            status=wire.MetricsUpdateSystemStatus(int(metrics.status)), timestamp=wire.write_time(now)
        )
        body = finished(self._structs.steps(metrics.values))
        return self._metrics + sized(body) + _codec.encode(rest, wire.MetricsUpdate)


def _tag(message_type: type, field: str) -> bytes:
    """What precedes the size of this field, which is a Struct."""
    return _codec.encode(message_type(**{field: wire.Struct()}), message_type)[:-1]
