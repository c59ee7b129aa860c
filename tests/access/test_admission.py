"""A call is let in by who makes it, how often they do, and whether they may; each asked in this order."""

import asyncio
from pathlib import Path

import pytest
from grpclib import protocol

from routing.access.admission import Admission
from routing.access.auth import Rules, new_token, read_rules
from routing.access.rate_limit import RateLimit
from routing.errors import PermissionDenied, TooManyCalls, Unauthenticated
from routing.rpc.caller import Caller, Peer, address

SELECT = "/ipfs_kit_py.routing.RoutingService/SelectBackend"
INSIGHTS = "/ipfs_kit_py.routing.RoutingService/GetInsights"


class Connection(asyncio.BaseTransport):
    def __init__(self, host: str = "192.0.2.1", common_name: str = "") -> None:
        self.asked = 0
        self._subject = ((("commonName", common_name),),) if common_name else ()
        super().__init__({"peername": (host, 1), "ssl_object": self})

    def getpeercert(self) -> dict[str, object]:
        self.asked += 1
        return {"subject": self._subject} if self._subject else {}


def caller(token: str = "", **connection: str) -> Caller:
    headers = [("authorization", f"Bearer {token}")] if token else []
    return Caller(headers, Peer(protocol.Peer(Connection(**connection))))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def once_a_second() -> RateLimit:
    return RateLimit(per_second=1, burst=1)


def rules_for(folder: Path, *roles: str) -> tuple[Rules, list[str]]:
    """Rules with a token for each role, and the tokens."""
    made = [new_token(f"one-{role}", role) for role in roles]
    file = folder / "auth.toml"
    file.write_text("\n".join(row for _, row in made))
    return read_rules(str(file)), [token for token, _ in made]


def test_without_rules_everybody_may_call_everything(clock: Clock) -> None:
    admit = Admission(None, None, clock=clock)
    admit(SELECT, caller("whatever"), False)
    admit(INSIGHTS, caller(), False)


def test_with_rules_only_who_is_known_and_has_the_role_gets_in(tmp_path: Path, clock: Clock) -> None:
    rules, (token,) = rules_for(tmp_path, "client")
    admit = Admission(rules, None, clock=clock)
    admit(SELECT, caller(token), False)
    with pytest.raises(PermissionDenied):
        admit(INSIGHTS, caller(token), False)
    with pytest.raises(Unauthenticated, match="missing"):
        admit(SELECT, caller(), False)


def test_what_was_found_out_about_a_caller_is_remembered(tmp_path: Path, clock: Clock) -> None:
    admit = Admission(rules_for(tmp_path, "client")[0], None, clock=clock)
    connection = Connection(common_name="stranger")
    stranger = Caller([], Peer(protocol.Peer(connection)))
    for _ in range(3):
        with pytest.raises(Unauthenticated, match="common_name:stranger"):
            admit(SELECT, stranger, False)
    assert connection.asked == 1


def test_new_rules_hold_from_the_next_call_on(tmp_path: Path, clock: Clock) -> None:
    rules, (token,) = rules_for(tmp_path, "client")
    others, (other,) = rules_for(tmp_path, "client")
    admit = Admission(rules, None, clock=clock)
    one, two = caller(token), caller(other)
    admit(SELECT, one, False)
    with pytest.raises(Unauthenticated):
        admit(SELECT, two, False)
    admit.rules = others
    admit(SELECT, two, False)
    for again in (False, True):
        with pytest.raises(Unauthenticated, match="was revoked"):
            admit(SELECT, one, again)


def test_a_rate_limited_caller_is_refused_with_the_retry_delay(clock: Clock) -> None:
    admit = Admission(None, once_a_second(), clock=clock)
    admit(SELECT, caller(), False)
    clock.now += 0.25
    with pytest.raises(TooManyCalls) as refused:
        admit(SELECT, caller(), False)
    assert refused.value.wait_s == 0.75
    assert refused.value.message == "more than 1 calls a second; the next is accepted in 0.750 s"
    clock.now += 0.75
    admit(SELECT, caller(), False)


def test_a_stream_that_goes_on_is_no_call_more(clock: Clock) -> None:
    admit = Admission(None, once_a_second(), clock=clock)
    admit(SELECT, caller(), False)
    for _ in range(5):
        admit(SELECT, caller(), True)


def test_a_known_caller_has_one_account_wherever_it_calls_from(tmp_path: Path, clock: Clock) -> None:
    rules, (one, other) = rules_for(tmp_path, "client", "admin")
    admit = Admission(rules, once_a_second(), clock=clock)
    admit(SELECT, caller(one), False)
    admit(SELECT, caller(other), False)
    with pytest.raises(TooManyCalls):
        admit(SELECT, caller(one, host="192.0.2.2"), False)


def test_who_tries_tokens_is_slowed_down_and_slows_nobody_known(tmp_path: Path, clock: Clock) -> None:
    rules, (token,) = rules_for(tmp_path, "client")
    admit = Admission(rules, once_a_second(), clock=clock)
    with pytest.raises(Unauthenticated):
        admit(SELECT, caller(token + "x"), False)
    with pytest.raises(TooManyCalls):
        admit(SELECT, caller(token + "y"), False)
    admit(SELECT, caller(token), False)


def test_without_rules_a_certificate_has_an_account_of_its_own(clock: Clock) -> None:
    admit = Admission(None, once_a_second(), clock=clock)
    admit(SELECT, caller(common_name="one"), False)
    admit(SELECT, caller(common_name="other"), False)
    with pytest.raises(TooManyCalls):
        admit(SELECT, caller(common_name="one", host="192.0.2.2"), False)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
    ],
)
def test_an_address_is_one_caller_and_a_network_of_ipv6_too(one: str, other: str, same: bool) -> None:
    accounts = [address(Peer(protocol.Peer(Connection(host=host)))) for host in (one, other)]
    assert (accounts[0] == accounts[1]) is same


def test_no_name_is_the_account_of_an_address(tmp_path: Path, clock: Clock) -> None:
    token, row = new_token("192.0.2.1", "client")
    file = tmp_path / "auth.toml"
    file.write_text(row)
    admit = Admission(read_rules(str(file)), once_a_second(), clock=clock)
    admit(SELECT, caller(token), False)
    with pytest.raises(Unauthenticated):
        admit(SELECT, caller(), False)


def test_an_admission_says_what_it_goes_by(clock: Clock) -> None:
    assert repr(Admission(None, None, clock=clock)) == "<Admission None None>"


def test_an_admitted_caller_is_identified_by_its_name_and_without_rules_by_its_address(
    tmp_path: Path, clock: Clock
) -> None:
    rules, (token,) = rules_for(tmp_path, "client")
    one, two = caller(token, host="192.0.2.1"), caller(token, host="192.0.2.2")
    for each in (one, two):
        Admission(rules, None, clock=clock)(SELECT, each, False)
    assert one.digest(b"") == two.digest(b"")
    strangers = caller(host="192.0.2.1"), caller(host="192.0.2.2")
    for each in strangers:
        Admission(None, None, clock=clock)(SELECT, each, False)
    assert strangers[0].digest(b"") != strangers[1].digest(b"")
