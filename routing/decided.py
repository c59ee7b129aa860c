"""A decision as the bytes of its response, without the message in between.

The short way to what `convert.write_decision` and the codec make in two steps, byte for
byte: a message with a Struct is thirty objects, and most of what they are encoded to is the
same each time. What stays the same is cut out of messages that the codec has encoded, so
that no field number is written a second time.
"""

from collections.abc import Callable
from struct import Struct, pack
from typing import Any

from routing import wire
from routing.core.factors import FACTORS
from routing.core.model import Decision
from routing.wireformat import SIZES, write_datetime, write_varint

MAX_NAMES = 4_096
"""Backends whose encoded names are remembered, about 1 MB at most; with more, all are
forgotten now and then. A limit of `max_backends` far above the default's 1,024 is rare."""

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


class Names(dict[str, bytes]):
    """What precedes a number, by the name that it belongs to."""

    def __init__(self, begin: Callable[[str], bytes]) -> None:
        super().__init__()
        self._begin = begin

    def __missing__(self, name: str) -> bytes:
        if len(self) >= MAX_NAMES:
            self.clear()
        begin = self[name] = self._begin(name)
        return begin


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


def sized(body: bytes) -> bytes:
    """The bytes behind their number."""
    size = len(body)
    return (SIZES[size] if size < 128 else write_varint(size)) + body
