"""Who calls is what the headers and the connection tell, and the header is kept to itself."""

import asyncio
from typing import Any

import pytest
from grpclib import protocol

from routing.rpc.caller import Caller, Peer


class Connection(asyncio.BaseTransport):
    def __init__(self, **told: Any) -> None:
        super().__init__(told)


def peer(**told: Any) -> Peer:
    return Peer(protocol.Peer(Connection(**told)))


class Shaken:
    """What a TLS connection tells of the client's certificate: nothing, unless it was asked for."""

    def __init__(self, certificate: dict[str, Any] | None) -> None:
        self._certificate = certificate

    def getpeercert(self) -> dict[str, Any] | None:
        return self._certificate


@pytest.mark.parametrize(
    ("told", "shown", "host"),
    [
        (("192.0.2.1", 1234), "192.0.2.1:1234", "192.0.2.1"),
        (("2001:db8::1", 1234, 0, 0), "2001:db8::1:1234", "2001:db8::1"),
        ("/run/socket", "/run/socket", ""),
        (None, "", ""),
    ],
)
def test_a_peer_is_shown_with_its_port_and_known_without(told: object, shown: str, host: str) -> None:
    assert (str(peer(peername=told)), peer(peername=told).host) == (shown, host)


def test_the_certificate_is_the_one_that_tls_has_verified() -> None:
    verified = {"subject": ((("commonName", "uploader"),),)}
    assert peer(ssl_object=Shaken(verified)).certificate == verified
    assert peer(ssl_object=Shaken(None)).certificate is None
    assert peer(ssl_object=Shaken({})).certificate is None  # one that was not verified
    assert peer().certificate is None


@pytest.mark.parametrize(
    ("headers", "authorization"),
    [
        ([], None),
        ([("x-authorization", "Bearer a")], None),
        ([("te", "trailers"), ("authorization", "Bearer a")], "Bearer a"),
        ([("authorization", "")], ""),
        ([("authorization", "Bearer a"), ("authorization", "Bearer b")], "Bearer a,Bearer b"),
    ],
)
def test_a_caller_says_one_thing_or_something_that_matches_nothing(
    headers: list[tuple[str, str]], authorization: str | None
) -> None:
    assert Caller(headers, peer()).authorization == authorization


def test_a_caller_is_shown_without_its_secret() -> None:
    caller = Caller([("authorization", "Bearer secret")], peer(peername=("192.0.2.1", 1)))
    assert repr(caller) == "<Caller at 192.0.2.1:1>"
    assert repr(caller.peer) == "<Peer 192.0.2.1:1>"


def digest(host: str, *, account: str = "", key: bytes = b"k") -> str:
    caller = Caller([], peer(peername=(host, 1)))
    if account:
        caller.identify(account)
    return caller.digest(key)


def test_callers_are_told_apart_by_a_keyed_hash_of_their_account_or_else_their_address() -> None:
    assert digest("192.0.2.1") == digest("192.0.2.1") != digest("192.0.2.2")
    assert digest("192.0.2.1") != digest("192.0.2.1", key=b"another")
    assert digest("192.0.2.1", account="name a") == digest("192.0.2.2", account="name a")
    assert digest("192.0.2.1", account="name a") != digest("192.0.2.1", account="name b")
    assert len(digest("192.0.2.1")) == 16


def test_a_caller_that_is_authenticated_anew_has_another_digest() -> None:
    caller = Caller([], peer(peername=("192.0.2.1", 1)))
    before = caller.digest(b"k")
    caller.identify("name a")
    assert caller.digest(b"k") != before
