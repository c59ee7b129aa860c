import asyncio
from typing import Any

import pytest

from routing.client.trial import Trial, described, noted
from routing.client.values import Selection
from routing.core.model import Outcome
from support.scripted_server import AT


def trial(**asked: object) -> Trial:
    selection = Selection("s3", 0.5, {}, (), "r1", AT)
    fault: Any = asked.pop("fault", None)
    return Trial(selection, "s3", asked, started_s=10.0, fault=fault)


def test_a_block_that_ends_is_a_success_with_its_duration() -> None:
    done = trial(content_hash="h", content_type="image/png", size_bytes=7, strategy="cost")
    assert done.outcome(None, now_s=11.5) == Outcome(
        "s3",
        True,
        content_hash="h",
        content_type="image/png",
        size_bytes=7,
        duration_ms=1500,
        request_id="r1",
    )


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (OSError("disk full"), "OSError: disk full"),
        (TimeoutError(), "TimeoutError"),
        (ExceptionGroup("both", [OSError("a"), OSError("b")]), "ExceptionGroup: both (2 sub-exceptions)"),
    ],
)
def test_a_block_that_raises_is_a_failure_with_its_error(raised: Exception, error: str) -> None:
    outcome = trial().outcome(raised, now_s=10.5)
    assert outcome is not None
    assert (outcome.success, outcome.error, outcome.duration_ms) == (False, error, 500)


@pytest.mark.parametrize(
    "raised",
    [
        asyncio.CancelledError(),
        GeneratorExit(),
        KeyboardInterrupt(),
        SystemExit(1),
        BaseExceptionGroup("all", [KeyboardInterrupt(), OSError()]),
    ],
)
def test_of_a_block_that_is_called_off_nothing_is_known(raised: BaseException) -> None:
    assert trial().outcome(raised, now_s=11.0) is None


def test_a_block_may_fail_without_raising() -> None:
    failed = trial()
    failed.fail("checksum differs")
    outcome = failed.outcome(None, now_s=11.0)
    assert outcome is not None
    assert (outcome.success, outcome.error) == (False, "checksum differs")
    assert repr(failed) == "<Trial of 's3', failed: checksum differs>"


def test_what_the_block_knows_better_is_reported() -> None:
    done = trial(size_bytes=7)
    assert repr(done) == "<Trial of 's3'>"
    done.size_bytes, done.duration_ms = 8, 9
    outcome = done.outcome(None, now_s=11.0)
    assert outcome is not None
    assert (outcome.size_bytes, outcome.duration_ms) == (8, 9)


def test_an_error_is_short_and_can_be_sent() -> None:
    outcome = trial().outcome(OSError("\udcff" + "x" * 2000), now_s=11.0)
    assert outcome is not None
    assert outcome.error.startswith("OSError: \\udcff")
    assert len(outcome.error.encode()) < 1100


def test_an_error_without_words_is_its_type() -> None:
    assert described(ValueError()) == "ValueError"


def test_the_last_error_tells_of_those_before() -> None:
    last = noted([OSError("one"), ValueError("two"), KeyError("three")])
    assert isinstance(last, KeyError)
    assert last.__notes__ == ["tried before: OSError: one", "tried before: ValueError: two"]


def test_whose_failure_it_was_is_told_by_the_block_or_by_the_kind_of_error() -> None:
    failed = trial()
    failed.fail("wrong key", fault="caller")
    outcome = failed.outcome(None, now_s=11.0)
    assert outcome is not None
    assert outcome.fault == "caller"

    def fault(error: Exception) -> str:
        return "content" if isinstance(error, KeyError) else ""

    for error, whose in [(KeyError("h"), "content"), (OSError("refused"), "backend")]:
        outcome = trial(fault=fault).outcome(error, now_s=11.0)
        assert outcome is not None
        assert outcome.fault == whose
