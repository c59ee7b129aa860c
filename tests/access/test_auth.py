"""Who is known, by which token or certificate, what that lets them do, and what an auth file may say."""

import asyncio
import hmac
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from grpclib import protocol
from hypothesis import given
from hypothesis import strategies as st

from routing import wire
from routing.access.auth import ROLES, Identity, Rules, check_role, new_token, read_rules
from routing.errors import ConfigError, PermissionDenied, Unauthenticated
from routing.rpc.caller import Caller, Peer

ROUTING = "/ipfs_kit_py.routing.RoutingService"


class Connection(asyncio.BaseTransport):
    """A connection on which TLS has verified a certificate with these names, if there are any."""

    def __init__(self, **names: str) -> None:
        kinds = {"dns": "DNS", "uri": "URI", "email": "email"}
        self._certificate: dict[str, Any] = {}
        if names:
            common_name = (("commonName", names["common_name"]),) if "common_name" in names else ()
            alternatives = [(kinds[kind], name) for kind, name in names.items() if kind in kinds]
            self._certificate = {"subject": (common_name,), "subjectAltName": tuple(alternatives)}
        super().__init__({"ssl_object": self, "peername": ("192.0.2.1", 1)})

    def getpeercert(self) -> dict[str, Any]:
        return self._certificate


def caller(authorization: str | None = None, **names: str) -> Caller:
    headers = [] if authorization is None else [("authorization", authorization)]
    return Caller(headers, Peer(protocol.Peer(Connection(**names))))


def rules(folder: Path, *rows: str) -> Rules:
    file = folder / "auth.toml"
    file.write_text("\n".join(rows))
    return read_rules(str(file))


def refusal(folder: Path, *rows: str) -> str:
    with pytest.raises(ConfigError) as refused:
        rules(folder, *rows)
    assert len(refused.value.message.splitlines()) == 1
    return refused.value.message.removeprefix(f"{folder}/auth.toml: ")


def stranger(known: Rules, who: Caller) -> str:
    with pytest.raises(Unauthenticated) as refused:
        known.identify(who)
    return refused.value.message


OBSERVER = '[[certificates]]\ndns = "Watcher.example"\nrole = "observer"'
CLIENT = '[[certificates]]\ncommon_name = "uploader"\nrole = "client"'


# Tokens


def test_a_token_that_was_just_made_is_known(tmp_path: Path) -> None:
    token, row = new_token("uploader", "client")
    assert rules(tmp_path, row).identify(caller(f"Bearer {token}")) == Identity("uploader", "client")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
def test_the_name_of_the_scheme_has_no_case(tmp_path: Path, scheme: str) -> None:
    token, row = new_token("uploader", "client")
    assert rules(tmp_path, row).identify(caller(f"{scheme} {token}")).name == "uploader"


def test_the_file_keeps_a_salted_hash_and_nothing_of_the_secret() -> None:
    token, row = new_token("uploader", "client")
    secret = token.split("_", 2)[2]
    assert len(secret) == 43  # of 64 characters each: 256 bits
    assert secret not in row
    other, _ = new_token("uploader", "client")
    assert other != token
    assert other.split("_")[1] != token.split("_")[1]


def test_any_other_character_makes_it_another_token(tmp_path: Path) -> None:
    token, row = new_token("uploader", "client")
    known = rules(tmp_path, row)
    for at in range(len("routing_"), len(token)):
        if token[at] == "_" and at == len("routing_") + 16:
            continue
        forged = token[:at] + ("0" if token[at] != "0" else "1") + token[at + 1 :]
        assert "unknown or was revoked" in stranger(known, caller(f"Bearer {forged}"))


def test_a_token_of_another_file_is_not_known(tmp_path: Path) -> None:
    known = rules(tmp_path, new_token("one", "admin")[1])
    token, _ = new_token("one", "admin")
    assert stranger(known, caller(f"Bearer {token}")) == (
        "authorization: the token is unknown or was revoked"
    )


@pytest.mark.parametrize(
    "said", ["", "Bearer", "Bearer x", "Basic TOKEN", "TOKEN", "Bearer TOKEN,Bearer TOKEN", "Bearer TOKEN x"]
)
def test_a_malformed_bearer_token_is_refused_with_what_is_expected(tmp_path: Path, said: str) -> None:
    token, row = new_token("uploader", "client")
    message = stranger(rules(tmp_path, row), caller(said.replace("TOKEN", token)))
    assert message == "authorization: not a token of this server; expected Bearer and a token"


@given(st.text(st.characters(max_codepoint=255), min_size=20, max_size=100))
def test_no_other_text_is_a_token_and_none_is_repeated(said: str) -> None:
    """A typing mistake in a secret must not end up in somebody's log."""
    known = Rules({}, {"dns:x": Identity("x", "client")})
    assert said not in stranger(known, caller(f"Bearer {said}"))


def test_hashes_are_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared, compare = [], hmac.compare_digest

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    token, row = new_token("uploader", "client")
    rules(tmp_path, row).identify(caller(f"Bearer {token}"))
    assert compared == [(32, 32)]


@given(
    st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=50),
    st.sampled_from(list(ROLES)),
)
def test_a_row_is_toml_whatever_the_name(name: str, role: str) -> None:
    (row,) = tomllib.loads(new_token(name, role)[1])["tokens"]
    assert (row["name"], row["role"]) == (name, role)


# Certificates


@pytest.mark.parametrize(
    ("row", "names"),
    [
        (CLIENT, {"common_name": "uploader"}),
        (OBSERVER, {"dns": "watcher.example"}),
        (OBSERVER, {"dns": "WATCHER.example", "common_name": "uploader"}),
        ('[[certificates]]\nuri = "spiffe://x/y"\nrole = "admin"', {"uri": "spiffe://x/y"}),
    ],
)
def test_a_certificate_is_known_by_one_of_its_names(tmp_path: Path, row: str, names: dict[str, str]) -> None:
    role = re.findall(r'role = "(\w+)"', row)[0]
    assert rules(tmp_path, row).identify(caller(**names)).role == role


def test_a_name_counts_only_for_its_kind(tmp_path: Path) -> None:
    known = rules(tmp_path, CLIENT, OBSERVER)
    for names in ({"dns": "uploader"}, {"common_name": "watcher.example"}, {"email": "uploader"}):
        assert "are not known here" in stranger(known, caller(**names))


def test_of_several_known_names_the_first_counts(tmp_path: Path) -> None:
    known = rules(tmp_path, OBSERVER, CLIENT)
    assert known.identify(caller(common_name="uploader", dns="watcher.example")).role == "client"


def test_a_caller_without_a_token_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    row = new_token("uploader", "client")[1]
    begun = "authorization: missing; expected "
    assert stranger(rules(tmp_path, row), caller()) == f"{begun}Bearer and a token"
    assert stranger(rules(tmp_path, CLIENT), caller()) == f"{begun}a client certificate"
    both = stranger(rules(tmp_path, row, CLIENT), caller())
    assert both == f"{begun}Bearer and a token or a client certificate"


def test_a_certificate_that_is_not_known_is_named(tmp_path: Path) -> None:
    message = stranger(rules(tmp_path, CLIENT), caller(dns="other.example"))
    assert message == "the client certificate's names (dns:other.example) are not known here"
    assert "(none)" in stranger(rules(tmp_path, CLIENT), caller(email="a@b.example"))


def test_a_wrong_token_is_not_made_up_for_by_a_certificate(tmp_path: Path) -> None:
    known = rules(tmp_path, CLIENT)
    assert known.identify(caller(common_name="uploader")).name == "common_name:uploader"
    assert "authorization" in stranger(known, caller("Bearer x", common_name="uploader"))


# Roles


def test_every_method_of_the_service_has_its_roles() -> None:
    methods = {path.rpartition("/")[2] for path in wire.RoutingServiceBase().__mapping__()}
    assert set(ROLES["admin"]) == methods
    assert all(set(may) <= methods for may in ROLES.values())


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", ROLES["admin"])
def test_a_role_may_call_what_the_table_says(role: str, method: str) -> None:
    if method in ROLES[role]:
        check_role(f"{ROUTING}/{method}", Identity("one", role))
        return
    with pytest.raises(PermissionDenied, match=rf"{method} needs the role .*; one has {role}"):
        check_role(f"{ROUTING}/{method}", Identity("one", role))


def test_a_method_that_no_role_names_is_for_admins() -> None:
    check_role(f"{ROUTING}/Reset", Identity("one", "admin"))
    for role in ("client", "observer"):
        with pytest.raises(PermissionDenied, match="Reset needs the role admin"):
            check_role(f"{ROUTING}/Reset", Identity("one", role))


def test_the_refusal_names_the_roles_that_would_do() -> None:
    with pytest.raises(PermissionDenied) as refused:
        check_role(f"{ROUTING}/GetInsights", Identity("uploader", "client"))
    assert refused.value.message == "GetInsights needs the role observer or admin; uploader has client"


@pytest.mark.parametrize("role", ROLES)
def test_reflection_is_for_everybody_who_is_known(role: str) -> None:
    check_role("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Identity("one", role))


# The file


def test_a_file_without_rows_is_refused_since_it_lets_nobody_in(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "expected [[tokens]] or [[certificates]]; without, all calls are refused"


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file that can be read: No such file"):
        read_rules(str(tmp_path / "absent.toml"))


TOKEN_ROW = new_token("uploader", "client")[1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["[[tokenz]]"], "tokenz: unknown key; did you mean tokens?"),
        (["tokens = 1"], "tokens: expected [[tokens]] tables, got 1"),
        (["tokens = [1]"], "tokens[0]: expected a table, got 1"),
        ([TOKEN_ROW.replace("role", "rule")], "tokens[0].rule: unknown key; did you mean role?"),
        (
            [TOKEN_ROW.replace('"client"', '"root"')],
            "tokens[0].role: expected one of client, observer, admin, got 'root'",
        ),
        (
            [TOKEN_ROW.replace("uploader", "")],
            "tokens[0].name: expected 1 to 256 bytes of printable text, got ''",
        ),
        (["[[tokens]]\nname = 'x'\nrole = 'admin'"], "tokens[0].salt: expected 16 hexadecimal digits"),
        ([TOKEN_ROW, TOKEN_ROW], "tokens[1].salt: expected a salt of its own; make another token"),
        (
            [re.sub(r'sha256 = "..', 'sha256 = "', TOKEN_ROW)],
            "tokens[0].sha256: expected 64 hexadecimal digits, as routing token prints them, got ",
        ),
        (
            [CLIENT.replace("role", "#")],
            "certificates[0].role: expected one of client, observer, admin, got nothing",
        ),
        (
            ["[[certificates]]\nrole = 'admin'"],
            "certificates[0]: expected one of common_name, dns, uri, got 0",
        ),
        ([f"{CLIENT}\nuri = 'x:y'"], "certificates[0]: expected one of common_name, dns, uri, got 2"),
        (
            [OBSERVER, OBSERVER.lower()],
            "certificates[1].dns: expected a name that no other row has",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_row(tmp_path: Path, rows: list[str], message: str) -> None:
    assert refusal(tmp_path, *rows).startswith(message)


def test_rules_show_how_many_there_are(tmp_path: Path) -> None:
    assert repr(rules(tmp_path, TOKEN_ROW, CLIENT, OBSERVER)) == "<Rules tokens=1 certificates=2>"
