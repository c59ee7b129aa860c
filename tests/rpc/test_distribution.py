"""The content types of GetInsights, in as many bytes as there is room for."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from routing import wire
from routing.core.report import Insights
from routing.core.usage.windows import OTHER_TYPES
from routing.rpc.distribution import Distribution, write_distribution
from routing.rpc.responses import ReportWriter
from routing.wire.struct_bytes import StructWriter, finished

NOTHING = 1 << 30
"""More bytes than any distribution here takes."""


def written(distribution: Distribution, room_bytes: int) -> tuple[int, dict[str, dict[str, float]]]:
    """The size of what is written, and what it says."""
    body = finished(write_distribution(StructWriter(), distribution, room_bytes=room_bytes))
    return len(body), wire.read_struct(wire.Struct.parse(body))


ROWS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1)
DISTRIBUTIONS = st.dictionaries(st.sampled_from([OTHER_TYPES, *(f"t/{n}" for n in range(30))]), ROWS)


@given(DISTRIBUTIONS, st.integers(0, 3_000))
def test_nothing_is_lost_and_the_types_with_most_decisions_are_kept(
    distribution: dict[str, dict[str, int]], beyond: int
) -> None:
    smallest = len(StructWriter().entry(OTHER_TYPES, dict.fromkeys("abcdef", 0)))
    size, said = written(distribution, smallest + beyond)
    assert size <= smallest + beyond
    assert sum(map(Counter, said.values()), Counter()) == sum(map(Counter, distribution.values()), Counter())
    folded = distribution.keys() - said.keys()
    kept = said.keys() - {OTHER_TYPES}
    assert all(said[name] == distribution[name] for name in kept)
    if folded and kept:
        assert max(sum(distribution[name].values()) for name in folded) <= min(
            sum(distribution[name].values()) for name in kept
        )


@given(DISTRIBUTIONS)
def test_what_fits_is_written_as_it_is(distribution: dict[str, dict[str, int]]) -> None:
    assert written(distribution, NOTHING)[1] == distribution


def test_a_response_about_everything_stays_below_4_mib() -> None:
    """256 types on 1,024 backends with names of 64 bytes: 20 MB if each were told."""
    backends = [f"{number:064d}" for number in range(1_024)]
    distribution = {f"type/{kind}": dict.fromkeys(backends, kind + 1) for kind in range(256)}
    scores = dict.fromkeys(backends, 0.5)
    rows = {name: {"count": 1, "min_ms": 2} for name in backends}
    insights = Insights({}, scores, scores, distribution, rows, rows)
    data = finished(ReportWriter().insights(insights, now=0.0))
    assert 3_500_000 < len(data) < 4 << 20
    said = wire.GetInsightsResponse.parse(data)
    told = wire.read_struct(said.content_type_distribution)
    assert "type/255" in told
    assert "type/0" not in told
    assert sum(sum(row.values()) for row in told.values()) == 1_024 * sum(range(1, 257))
    assert len(wire.read_struct(said.latency_stats)) == 1_024
