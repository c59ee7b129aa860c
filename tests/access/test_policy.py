"""What settings and files make of TLS, rules and limits, now and after the files have changed."""

import datetime
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from routing.access.auth import new_token
from routing.access.policy import DAY_SECONDS, EXPIRY_WARNING_SECONDS, Access
from routing.config.load import load
from routing.errors import ConfigError
from support.certificates import self_signed

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines on certificates since the last time, each with its level."""
    caplog.set_level(logging.INFO)

    def lines() -> list[str]:
        found = [
            f"{r.levelname} {r.getMessage()}" for r in caplog.records if r.name == "routing.access.policy"
        ]
        caplog.clear()
        return found

    return lines


def access(folder: Path, *, monotonic: Clock | None = None, **settings: object) -> Access:
    """With TLS where `use_ssl` says so, by a fresh pair in the folder if there is none."""
    if settings.get("use_ssl"):
        if not (folder / "server.pem").exists():
            self_signed(folder)
        settings = {"ssl_cert": str(folder / "server.pem"), "ssl_key": str(folder / "server.key"), **settings}
    server = load(flags=settings).server
    return Access(server, monotonic=monotonic or Clock(0.0), clock=Clock(NOW.timestamp()))


def auth_file(folder: Path, rows: str = "") -> str:
    file = folder / "auth.toml"
    file.write_text(rows or new_token("one", "client")[1])
    return str(file)


# What a public address lacks

PUBLIC, LOCAL = ("0.0.0.0", "192.0.2.1", "::", "2001:db8::1"), ("127.0.0.1", "127.8.8.8", "::1")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "calls are not encrypted, any client may call"),
        ({"use_ssl": True}, "any client may call"),
        ({"auth_file": True}, "calls are not encrypted, tokens are sent in the clear"),
        ({"rate_limit": 1}, "calls are not encrypted, any client may call"),
        ({"use_ssl": True, "auth_file": True}, ""),
        ({"use_ssl": True, "ssl_client_ca": True}, ""),
        ({"use_ssl": True, "ssl_client_ca": True, "ssl_client_auth": "optional"}, "any client may call"),
        (
            {"use_ssl": True, "ssl_client_ca": True, "ssl_client_auth": "optional", "auth_file": True},
            "",
        ),
    ],
)
def test_what_a_public_address_lacks_is_one_line(
    tmp_path: Path, settings: dict[str, object], reason: str
) -> None:
    if "ssl_client_ca" in settings:
        settings = {**settings, "ssl_client_ca": str(self_signed(tmp_path, "authority").certificate)}
    if "auth_file" in settings:
        settings = {**settings, "auth_file": auth_file(tmp_path)}
    made = access(tmp_path, **settings)
    expected = (f"the address is public: {reason}",) if reason else ()
    for host in PUBLIC:
        assert made.warnings([host]) == made.warnings(["127.0.0.1", host]) == expected
    assert made.warnings(LOCAL) == ()


def test_certificates_that_are_never_requested_are_logged(tmp_path: Path) -> None:
    file = auth_file(tmp_path, '[[certificates]]\ndns = "x"\nrole = "client"')
    (doubt,) = access(tmp_path, auth_file=file).warnings(LOCAL)
    assert doubt == "auth_file names certificates, but without ssl_client_ca no client is asked for one"


# What the settings make


def test_without_settings_nothing_stands_between(tmp_path: Path) -> None:
    made = access(tmp_path)
    assert (made.context, made.admission, made.files) == (None, None, ())
    assert repr(made) == "<Access [] None>"


def test_a_limit_without_a_burst_lets_a_second_s_worth_come_at_once(tmp_path: Path) -> None:
    for settings, burst in (
        ({"rate_limit": 5}, 5),
        ({"rate_limit": 5, "rate_burst": 2}, 2),
        ({"rate_limit": 0.5}, 1),
    ):
        limit = access(tmp_path, **settings).admission._limit
        assert [limit.take("one", now=0.0) == 0 for _ in range(burst + 1)] == [True] * burst + [False]


def test_a_wrong_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"auth\.toml: tokens: expected"):
        access(tmp_path, auth_file=auth_file(tmp_path, "tokens = 1"))
    (tmp_path / "server.pem").write_text("garbage")
    with pytest.raises(ConfigError, match="ssl_cert"):
        access(tmp_path, use_ssl=True, ssl_key="server.key")


# What the files change


async def test_another_certificate_is_another_context_and_the_same_door(tmp_path: Path) -> None:
    made = access(tmp_path, use_ssl=True)
    door, before = made.context, made.context.newest
    self_signed(tmp_path)
    await made.files[0].check()
    assert made.context is door
    assert door.newest is not before


async def test_another_auth_file_is_other_rules(tmp_path: Path) -> None:
    made = access(tmp_path, auth_file=auth_file(tmp_path))
    before = made.admission.rules
    auth_file(tmp_path, new_token("other", "admin")[1])
    await made.files[0].check()
    assert made.admission.rules not in (None, before)


class Stop(BaseException):
    pass


async def test_it_looks_again_and_again_and_says_whether_all_is_current(tmp_path: Path) -> None:
    made = access(tmp_path, auth_file=auth_file(tmp_path), use_ssl=True, reload_seconds=7)
    said: list[bool] = []
    turns = iter(["broken", new_token("two", "admin")[1]])

    async def sleep(seconds: float) -> None:
        assert seconds == 7
        rows = next(turns, None)
        if rows is None:
            raise Stop
        auth_file(tmp_path, rows)

    with pytest.raises(Stop):
        await made.watch(said.append, sleep=sleep)
    assert said == [True, False, True]


async def test_a_fault_of_ours_is_logged_and_does_not_end_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = access(tmp_path, auth_file=auth_file(tmp_path))
    turns = iter((1, 2))

    async def sleep(_: float) -> None:
        if next(turns, None) is None:
            raise Stop

    def fail(_: bool) -> None:
        raise RuntimeError("ours")

    with pytest.raises(Stop):
        await made.watch(fail, sleep=sleep)
    assert len([record for record in caplog.records if record.exc_info]) == 3


# The end of a certificate


@pytest.mark.parametrize(
    ("left_s", "line"),
    [
        (EXPIRY_WARNING_SECONDS + 1, None),
        (EXPIRY_WARNING_SECONDS, "WARNING certificate expires soon file={file} at={at} days=30.0"),
        (DAY_SECONDS / 2, "WARNING certificate expires soon file={file} at={at} days=0.5"),
        (0, "ERROR certificate has expired file={file} at={at}"),
        (-EXPIRY_WARNING_SECONDS, "ERROR certificate has expired file={file} at={at}"),
    ],
)
def test_an_expiry_within_30_days_is_logged(
    tmp_path: Path, told: Callable[[], list[str]], left_s: float, line: str | None
) -> None:
    until = NOW + datetime.timedelta(seconds=left_s)
    file = self_signed(tmp_path, until=until).certificate
    access(tmp_path, use_ssl=True).log_expiry()
    assert told() == ([line.format(file=file, at=until.isoformat())] if line else [])


def test_an_expiry_is_logged_once_a_day(tmp_path: Path, told: Callable[[], list[str]]) -> None:
    self_signed(tmp_path, until=NOW + datetime.timedelta(days=3))
    monotonic = Clock(0.0)
    made = access(tmp_path, monotonic=monotonic, use_ssl=True)
    for hour in range(49):
        monotonic.now = 3600.0 * hour
        made.log_expiry()
    assert len(told()) == 3


async def test_a_renewed_certificate_ends_the_warnings_and_its_own_expiry_is_logged(
    tmp_path: Path, told: Callable[[], list[str]]
) -> None:
    self_signed(tmp_path, until=NOW + datetime.timedelta(days=3))
    made = access(tmp_path, use_ssl=True)
    made.log_expiry()
    assert "days=3.0" in told()[0]
    for days, lines in ((2, 1), (90, 0)):
        self_signed(tmp_path, until=NOW + datetime.timedelta(days=days))
        await made.files[0].check()
        made.log_expiry()
        assert len(told()) == lines
