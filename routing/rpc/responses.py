"""Writes decisions, acknowledgements and reports as messages, or directly as bytes.

Frequent responses skip the message: one with a Struct is thirty objects, and most of their bytes are
the same each time. The constant bytes are taken from messages that the codec encodes once, so this
module repeats no field numbers.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from struct import Struct
from typing import Any

from routing import wire
from routing.core.factors import FACTORS
from routing.core.model import Decision, Ranked, Recorded
from routing.core.report import Insights, Metrics
from routing.protobuf.wireformat import write_datetime, write_varint
from routing.rpc.distribution import write_distribution
from routing.wire.struct_bytes import PrefixCache, RowsWriter, Steps, StructWriter, finished, sized

_codec = wire.Codec()


def _by_factor(values: Iterable[float]) -> dict[str, float]:
    return dict(zip(FACTORS, values, strict=True))


def _explained(candidate: Ranked, discovered: Collection[str]) -> dict[str, Any]:
    estimate = candidate.estimate
    return {
        "score": candidate.score,
        "origin": "discovered" if candidate.backend_id in discovered else "configured",
        "factor_scores": _by_factor(candidate.factor_scores),
        "expected_ms": estimate.expected_ms,
        "success_probability": estimate.success_probability,
        "prior_ms": estimate.prior_ms,
        "prior_success": estimate.prior_success,
        "speed_evidence": estimate.evidence.speed,
        "success_evidence": estimate.evidence.success,
    }


def _explanation(decision: Decision) -> wire.Struct:
    """The shape that proto/routing.proto documents for `explanation`."""
    candidates = (decision.chosen, *decision.others)
    return wire.write_struct(
        {
            "weights": _by_factor(decision.weights),
            "probe": decision.probe,
            "limits_gave_way": decision.limits_gave_way,
            "candidates": {one.backend_id: _explained(one, decision.discovered) for one in candidates},
            "ineligible": decision.ineligible,
        }
    )


def write_decision(decision: Decision, *, explain: bool, now: float) -> wire.SelectBackendResponse:
    """The choice, its factor scores and the alternatives; with `explain`, how each was scored."""
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
    """Whether the outcome was recorded, and a message that says how."""
    return wire.RecordOutcomeResponse(recorded.recorded, recorded.message, wire.write_time(now))


# A double at the end of an encoded message takes its last eight bytes. So the bytes before a score
# are those of a message with some score, without the last eight.

_SOME_SCORE = 1.0
_DOUBLE_BYTES = 8


def _encoded(**fields: Any) -> bytes:
    return _codec.encode(wire.SelectBackendResponse(**fields), wire.SelectBackendResponse)


def _encoded_choice(name: str, score: float) -> bytes:
    return _encoded(backend_id=name, score=score)


def _encoded_alternative(name: str, score: float) -> bytes:
    return _encoded(alternatives=[wire.SelectBackendResponseAlternative(name, score)])


def _tag(**field: Any) -> bytes:
    """The first byte of a response with this one field."""
    return _encoded(**field)[:1]


def _factor_scores_packer() -> Callable[..., bytes]:
    """A function of one score for each factor, which returns the encoded field `factor_scores`."""
    tag = _tag(factor_scores=wire.write_struct({}))
    # One entry alone is the tag, a size of one byte, and the entry, which ends in the number.
    entries = [
        _encoded(factor_scores=wire.write_struct({factor: _SOME_SCORE}))[2:-_DOUBLE_BYTES]
        for factor in FACTORS
    ]
    size_bytes = sum(len(entry) + _DOUBLE_BYTES for entry in entries)
    prefixes = [tag + write_varint(size_bytes) + entries[0], *entries[1:]]
    layout = Struct("<" + "".join(f"{len(prefix)}sd" for prefix in prefixes))

    def pack(*scores: float) -> bytes:
        return layout.pack(*[part for pair in zip(prefixes, scores, strict=True) for part in pair])

    return pack


class DecisionWriter:
    """Writes a SelectBackendResponse without explanation as bytes, for the fast path.

    State: the encoded names of backends, at most MAX_NAMES each as choice and as alternative.
    """

    def __init__(self) -> None:
        self._factor_scores = _factor_scores_packer()
        self._chosen = PrefixCache(lambda name: _encoded_choice(name, _SOME_SCORE)[:-_DOUBLE_BYTES])
        self._alternative = PrefixCache(lambda name: _encoded_alternative(name, _SOME_SCORE)[:-_DOUBLE_BYTES])
        self._request_id = _tag(request_id="?")
        self._timestamp = _tag(timestamp=wire.write_time(1.0))
        self._score = Struct("<d").pack

    def write(self, decision: Decision, *, now: float) -> bytes:
        """The bytes of `write_decision(decision, explain=False, now=now)`."""
        chosen, score, prefixes = decision.chosen, self._score, self._alternative
        # protobuf leaves out a score of 0, so its message has another size before the name.
        out = [
            self._chosen[chosen.backend_id] + score(chosen.score)
            if chosen.score
            else _encoded_choice(chosen.backend_id, chosen.score),
            self._factor_scores(*chosen.factor_scores),
        ]
        out += [
            prefixes[other.backend_id] + score(other.score)
            if other.score
            else _encoded_alternative(other.backend_id, other.score)
            for other in decision.others
        ]
        if request_id := decision.query.request_id.encode():
            out.append(self._request_id + sized(request_id))
        out.append(self._timestamp + sized(write_datetime(wire.write_time(now))))
        return b"".join(out)


FIELDS_WITH_ROWS = ("backend_usage_stats", "latency_stats")
"""Fields of a GetInsightsResponse that hold one row for each backend, all with the same keys."""


DISTRIBUTION_FIELD = "content_type_distribution"
"""The largest field of a GetInsightsResponse, which is written last, into the bytes that are left."""

MAX_INSIGHTS_BYTES = (4 << 20) - 256
"""Clients take responses of 4 MiB unless a larger limit is set, and fail with RESOURCE_EXHAUSTED above
that; the timestamp and the tag and size of the last field take less than 256."""


class ReportWriter:
    """Writes the responses of GetInsights and StreamMetrics as bytes.

    State: the encoded names of backends and keys, in its writers; each is bounded.
    """

    def __init__(self) -> None:
        self._structs = StructWriter()
        self._insights = {name: _struct_tag(wire.GetInsightsResponse, name) for name in Insights.__slots__}
        self._metrics = _struct_tag(wire.MetricsUpdate, "metrics")
        # {name in FIELDS_WITH_ROWS: its writer}; the first row that is written determines the keys.
        self._rows: dict[str, RowsWriter] = {}

    def insights(self, insights: Insights, *, now: float) -> Steps:
        """The bytes of a GetInsightsResponse, produced in steps between which other calls can run."""
        parts: dict[str, bytes] = {}
        for name, tag in sorted(self._insights.items(), key=lambda item: item[0] == DISTRIBUTION_FIELD):
            values = getattr(insights, name)
            if name == DISTRIBUTION_FIELD:
                room_bytes = MAX_INSIGHTS_BYTES - sum(map(len, parts.values()))
                body = yield from write_distribution(self._structs, values, room_bytes=room_bytes)
            elif name in FIELDS_WITH_ROWS and values:
                body = self._rows_writer(name, values).write(values)
            else:
                body = yield from self._structs.steps(values)
            parts[name] = tag + sized(body)
        rest = wire.GetInsightsResponse(timestamp=wire.write_time(now))
        return b"".join(parts[name] for name in self._insights) + _codec.encode(
            rest, wire.GetInsightsResponse
        )

    def _rows_writer(self, name: str, values: Mapping[str, Mapping[str, float]]) -> RowsWriter:
        writer = self._rows.get(name)
        if writer is None:
            writer = self._rows[name] = RowsWriter(next(iter(values.values())))
        return writer

    def metrics(self, metrics: Metrics, *, now: float) -> bytes:
        """The bytes of a MetricsUpdate."""
        rest = wire.MetricsUpdate(
            status=wire.MetricsUpdateSystemStatus(int(metrics.status)), timestamp=wire.write_time(now)
        )
        body = finished(self._structs.steps(metrics.values))
        return self._metrics + sized(body) + _codec.encode(rest, wire.MetricsUpdate)


def _struct_tag(message_type: type, field: str) -> bytes:
    """The tag of a field that is a Struct; an empty one is encoded as the tag and a size of 0."""
    return _codec.encode(message_type(**{field: wire.Struct()}), message_type)[:-1]
