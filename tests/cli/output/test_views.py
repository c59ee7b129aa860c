"""What people see of an answer: the same values as --json, in tables."""

from datetime import UTC, datetime
from typing import Any

import pytest

from routing.cli.output.formats import FORMS, cell, duration_text, money_text, size_text
from routing.cli.output.tables import Block, Table, TableCell, plain
from routing.cli.output.views import (
    SECTION_VIEWS,
    decision_view,
    insights_view,
    learned_view,
    profiles_view,
    update_view,
)
from routing.core.model import Backend
from routing.core.report import SECTIONS

WEIGHTS = {"performance": 0.75, "cost": 0.25}
CANDIDATES = {
    "s3": {
        "score": 0.7,
        "factor_scores": {"performance": 0.8, "cost": 0.4},
        "expected_ms": 182.4,
        "prior_ms": 60.0,
        "speed_evidence": 0.5,
        "success_probability": 0.999,
        "prior_success": 0.95,
        "success_evidence": 0.0,
    },
    "ipfs": {
        "score": 0.2,
        "factor_scores": {"performance": 0.0, "cost": 0.8},
        "expected_ms": 450_000.0,
        "prior_ms": 450_000.0,
        "speed_evidence": 0.0,
        "success_probability": 0.5,
        "prior_success": 0.5,
        "success_evidence": 0.0,
    },
}
DECISION: dict[str, Any] = {
    "backend_id": "s3",
    "score": 0.7,
    "factor_scores": {"performance": 0.8, "cost": 0.4},
    "alternatives": [{"backend_id": "ipfs", "score": 0.2}],
    "request_id": "r1",
    "explanation": {
        "weights": WEIGHTS,
        "probe": False,
        "candidates": CANDIDATES,
        "ineligible": {"filecoin": "takes at most 32 GiB"},
    },
}
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATENCY = {
    "count": 3,
    "min_ms": 10.0,
    "avg_ms": 20.0,
    "p50_ms": 20.0,
    "p90_ms": 30.0,
    "p99_ms": 30.0,
    "max_ms": 30.0,
}
USAGE = {
    "request_count": 1204,
    "outcome_count": 4,
    "success_count": 3,
    "failure_count": 1,
    "total_size": 4_000_000_000,
    "avg_content_size": 3_322_259.1,
}


def said(blocks: tuple[Block, ...]) -> str:
    return "\n\n".join(map(plain, blocks))


def test_a_decision_shows_each_factors_share_of_the_score_for_every_candidate() -> None:
    assert (
        said(decision_view(DECISION))
        == """\
s3  score 0.7000  request r1

why
factor        score  weight  contribution
performance  0.8000  0.7500        0.6000
cost         0.4000  0.2500        0.1000
sum                  1.0000        0.7000

contributions to the score
backend   score  performance    cost
s3       0.7000       0.6000  0.1000
ipfs     0.2000       0.0000  0.2000

what each is expected to do
backend  expected  by profile  learned  success  by profile  learned
s3         182 ms     60.0 ms   50.0 %   99.9 %      95.0 %      0 %
ipfs     7.50 min    7.50 min      0 %   50.0 %      50.0 %      0 %

not eligible
backend   why
filecoin  takes at most 32 GiB"""
    )


@pytest.mark.parametrize("explanation", [None, {}])
def test_a_server_that_explains_nothing_leaves_scores_and_alternatives(explanation: object) -> None:
    assert (
        said(decision_view({**DECISION, "request_id": "", "explanation": explanation}))
        == """\
s3  score 0.7000

why
factor        score
performance  0.8000
cost         0.4000

alternatives
backend   score
ipfs     0.2000"""
    )


def test_the_only_candidate_has_no_table_of_alternatives() -> None:
    lone = {**DECISION, "alternatives": [], "explanation": None}
    assert "alternatives" not in said(decision_view(lone))


def test_a_probe_says_that_it_is_one() -> None:
    probe = {**DECISION, "explanation": {**DECISION["explanation"], "probe": True}}
    assert "a probe" in plain(decision_view(probe)[0])
    assert "a probe" not in plain(decision_view(DECISION)[0])


def test_a_choice_outside_the_server_s_own_limits_is_shown_as_one() -> None:
    beyond = {**DECISION, "explanation": {"limits_gave_way": True}}
    assert "no backend meets the server's own limits" in plain(decision_view(beyond)[0])
    assert "limits" not in plain(decision_view(DECISION)[0])


def test_factors_that_begin_alike_keep_their_whole_names() -> None:
    weights = {"cost_storage": 0.5, "cost_egress": 0.5}
    candidate = {**CANDIDATES["s3"], "factor_scores": {"cost_storage": 1.0, "cost_egress": 0.4}}
    alike = {
        **DECISION,
        "factor_scores": candidate["factor_scores"],
        "explanation": {"weights": weights, "candidates": {"s3": candidate}},
    }
    assert "backend   score  cost_storage  cost_egress" in said(decision_view(alike))


INSIGHTS: dict[str, Any] = {
    "factor_weights": WEIGHTS,
    "backend_scores": {"s3": 0.7, "ipfs": 0.2},
    "backend_success_rates": {"s3": 0.75},
    "content_type_distribution": {"image/png": {"ipfs": 1, "s3": 3}, "unknown": {"s3": 1}},
    "backend_usage_stats": {"s3": USAGE},
    "latency_stats": {"s3": LATENCY},
}


def test_insights_show_every_backend_with_a_dash_for_what_nobody_measured() -> None:
    assert (
        said(insights_view(INSIGHTS))
        == """\
backends
backend   score  success  decisions  outcomes  failed   volume  avg size
ipfs     0.2000        -          -         -       -        -         -
s3       0.7000   75.0 %      1,204         4       1  4.00 GB   3.32 MB

durations
backend  measured      min      avg      p50      p90      p99      max
s3              3  10.0 ms  20.0 ms  20.0 ms  30.0 ms  30.0 ms  30.0 ms

default weights
factor       weight
performance  0.7500
cost         0.2500

content types
type       decisions  went to
image/png          4  s3 75.0 %, ipfs 25.0 %
unknown            1  s3 100 %"""
    )


def test_insights_of_a_fresh_server_have_no_empty_tables() -> None:
    fresh = {key: {} for key in INSIGHTS} | {"factor_weights": WEIGHTS, "backend_scores": {"s3": 0.7}}
    assert [block.title for block in insights_view(fresh) if isinstance(block, Table)] == [
        "backends",
        "default weights",
    ]


def test_many_backends_of_one_type_end_in_how_many_more() -> None:
    counts = {f"b{number}": 10 - number for number in range(6)}
    view = insights_view({**INSIGHTS, "content_type_distribution": {"text/html": counts}})
    assert plain(view[-1]).endswith("b0 22.2 %, b1 20.0 %, b2 17.8 %, b3 15.6 %, 2 more")


SYSTEM = {
    "uptime_seconds": 5400.0,
    "decisions_total": 1204,
    "outcomes_total": 12,
    "decisions_per_second": 0.25,
    "active_streams": 1,
    "version": "0.1.0",
}
ROW = {
    "score": 0.7,
    "success_rate": 0.6,
    "latency_ms": None,
    "state": "suspended",
    "decisions": 4,
    "outcomes": 3,
}
LEARNED = {
    "state": "ok",
    "outcomes": 1204,
    "small_ms": 70.0,
    "small_low_ms": 65.0,
    "small_high_ms": 75.4,
    "small_prior_ms": 60.0,
    "large_ms": 39_600.0,
    "large_low_ms": 22_000.0,
    "large_high_ms": 71_300.0,
    "large_prior_ms": 40_000.0,
    "speed_evidence": 0.962,
    "success_probability": 0.998,
    "success_low": 0.995,
    "success_high": 1.0,
    "prior_success": 0.999,
    "success_evidence": 0.5,
    "seconds_since_failure": 90.0,
}
ALL_SECTIONS: dict[str, Any] = {
    "factor_weights": WEIGHTS,
    "backend_scores": {"s3": 0.7},
    "success_rates": {"s3": 0.75},
    "latency_stats": {"s3": LATENCY},
    "content_distribution": {"image/png": {"s3": 3}},
    "usage_stats": {"s3": USAGE},
    "backends": {"s3": ROW},
    "system": SYSTEM,
    "learned": {"s3": LEARNED},
}


def test_an_update_begins_with_the_time_the_status_and_the_server() -> None:
    update = {"timestamp": AT, "status": "CRITICAL", "metrics": {"system": SYSTEM, "backends": {"s3": ROW}}}
    assert (
        said(update_view(update))
        == """\
2026-03-01 12:00:00 UTC  CRITICAL  up 1.50 h  decisions 1,204 (0.2/s)  outcomes 12  watching 1  version 0.1.0

backends
backend  state       score  success  latency  decisions  outcomes
s3       suspended  0.7000   60.0 %        -          4         3"""
    )


def test_every_section_of_the_stream_is_shown() -> None:
    assert set(ALL_SECTIONS) == set(SECTIONS) | {"backends"} == set(SECTION_VIEWS) | {"system"}
    view = update_view({"timestamp": AT, "status": "NORMAL", "metrics": ALL_SECTIONS})
    shown = [block.title for block in view if isinstance(block, Table)]
    assert len(shown) == len(SECTION_VIEWS) + 1, "what was learned has two tables"


def test_what_was_learned_shows_both_sizes_with_how_sure_they_are() -> None:
    never = {**LEARNED, "state": "suspended", "outcomes": 0, "seconds_since_failure": None}
    assert (
        said(learned_view({"timestamp": AT, "backends": {"s3": LEARNED, "new": never}}))
        == """\
2026-03-01 12:00:00 UTC  from and to: where the truth lies in 9 cases of 10

expected times
backend   64 KiB     from       to   1 GiB    from        to  learned
s3       70.0 ms  65.0 ms  75.4 ms  39.6 s  22.0 s  1.19 min   96.2 %
new      70.0 ms  65.0 ms  75.4 ms  39.6 s  22.0 s  1.19 min   96.2 %

reliability
backend  state      outcomes  success    from     to  learned  last failure
s3       ok            1,204   99.8 %  99.5 %  100 %   50.0 %  1.50 min ago
new      suspended         0   99.8 %  99.5 %  100 %   50.0 %             -"""
    )


def test_an_update_without_sections_is_its_heading() -> None:
    view = update_view({"timestamp": AT, "status": "NORMAL", "metrics": {"backends": {}}})
    assert said(view) == "2026-03-01 12:00:00 UTC  NORMAL"


@pytest.mark.parametrize(
    ("key", "value", "tone"),
    [
        ("success_rate", 0.95, "good"),
        ("success_rate", 0.89, "warn"),
        ("success_rate", 0.69, "bad"),
        ("state", "ok", "good"),
        ("state", "suspended", "bad"),
        ("state", "disabled", "dim"),
        ("score", 0.1, ""),
        ("success_rate", None, ""),
    ],
)
def test_what_is_good_and_what_is_bad_look_different(key: str, value: object, tone: str) -> None:
    assert cell(key, value).tone == tone


@pytest.mark.parametrize("key", [*FORMS, "latency_ms", "decisions"])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "text", True, 0])
def test_whatever_a_server_sends_has_a_text(key: str, value: object) -> None:
    assert cell(key, value).text


def test_profiles_show_prices_as_they_were_given_and_name_the_disabled() -> None:
    rows = [
        {
            **dict.fromkeys(Backend.__dataclass_fields__),
            "id": "s3",
            "enabled": True,
            "tags": frozenset({"us", "hot"}),
        },
        {
            **dict.fromkeys(Backend.__dataclass_fields__),
            "id": "old",
            "enabled": False,
            "egress_usd_per_gb": 0.0075,
        },
    ]
    shown = said(profiles_view(rows))
    assert "hot, us" in shown
    assert "0.0075" in shown
    assert shown.endswith("2 backends, disabled: old")


def test_a_profiles_columns_are_fields_of_a_backend() -> None:
    from routing.cli.output.views import _PRICES, _SPEEDS

    assert {*_PRICES, *_SPEEDS} <= set(Backend.__dataclass_fields__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (size_text(999), "999 B"),
        (size_text(999.6), "1.00 kB"),
        (size_text(2**63), "9,223 PB"),
        (duration_text(0), "0 ms"),
        (duration_text(999.9), "1.00 s"),
        (duration_text(59_999), "1.00 min"),
        (duration_text(99.96), "100 ms"),
        (duration_text(3 * 86_400_000), "3.00 d"),
        (money_text(0), "0"),
        (money_text(0.00025), "0.00025"),
        (money_text(1200), "1,200"),
        (TableCell("x").text, "x"),
    ],
)
def test_three_digits_that_matter_in_the_largest_unit(text: str, expected: str) -> None:
    assert text == expected
