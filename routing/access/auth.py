"""Who is calling, and what that lets them do: tokens and certificates, each with a role.

A token is `routing_SALT_SECRET`. The file keeps the salt, which finds the row, and the
SHA-256 of the whole token, which the secret cannot be found from: it has 256 random bits,
so there is nothing to guess. A slow hash (scrypt, PBKDF2) is for passwords, whose few bits
it stretches; here it would only let strangers make us work.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from routing.config.toml import check_keys, place, read_file, table
from routing.config.validators import Mismatch, Validator, described, matching, one_of, text
from routing.contract import ROUTING_METHODS, ROUTING_SERVICE, method_path
from routing.errors import ConfigError, PermissionDenied, Unauthenticated, listed
from routing.rpc.caller import Caller

ROLES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "client": ("SelectBackend", "RecordOutcome"),
        "observer": ("GetInsights", "StreamMetrics"),
        "admin": ROUTING_METHODS,
    }
)
"""What each role may call of the routing service. All may ask for the schema by reflection,
and health asks nobody."""

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        method_path(ROUTING_SERVICE, method): tuple(
            role for role, methods in ROLES.items() if method in methods
        )
        for method in ROUTING_METHODS
    }
)
"""By method path, who may call it. A method of the service that is not here is for admins
until it is; what is not of the service is for everybody who is known."""

_ADMIN: Final = ("admin",)

_ROUTING_PATHS: Final = method_path(ROUTING_SERVICE, "")

_SALT_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_TOKEN = re.compile(r"routing_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
"""The scheme of RFC 6750, whose name has no case (RFC 9110, section 11.1)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller that is known: its name, for limits and messages, and its role."""

    name: str
    role: str


@dataclass(frozen=True, slots=True)
class _Token:
    """A row of `[[tokens]]`."""

    sha256: bytes
    identity: Identity


class Rules:
    """Who may call: what an auth file says."""

    def __init__(self, tokens: Mapping[str, _Token], certificates: Mapping[str, Identity]) -> None:
        self._tokens = tokens
        self._certificates = certificates
        ways = ("Bearer and a token",) * bool(tokens) + ("a client certificate",) * bool(certificates)
        self._expected = " or ".join(ways)

    @property
    def certificates(self) -> int:
        """How many certificate names are known."""
        return len(self._certificates)

    def __repr__(self) -> str:
        return f"<Rules tokens={len(self._tokens)} certificates={len(self._certificates)}>"

    def identify(self, caller: Caller) -> Identity:
        """Who calls; Unauthenticated says what is missing or not known.

        A token counts alone: one that is wrong is not made up for by a certificate, or
        nobody would notice.
        """
        if caller.authorization is not None:
            return self._by_token(caller.authorization)
        certificate = caller.peer.certificate
        if certificate is None:
            raise Unauthenticated(f"authorization: missing; expected {self._expected}")
        names = certificate_names(certificate)
        for name in names:
            if name in self._certificates:
                return self._certificates[name]
        shown = listed(names) or "none"
        raise Unauthenticated(f"the client certificate's names ({shown}) are not known here")

    def _by_token(self, authorization: str) -> Identity:
        bearer = _BEARER.fullmatch(authorization)
        token = _TOKEN.fullmatch(bearer[1]) if bearer else None
        if token is None:
            raise Unauthenticated("authorization: not a token of this server; expected Bearer and a token")
        row = self._tokens.get(token[1])
        if row is None or not hmac.compare_digest(_digest(token[0]), row.sha256):
            raise Unauthenticated("authorization: the token is not known here, or no longer")
        return row.identity


def check_role(path: str, identity: Identity) -> None:
    """Raises PermissionDenied if this caller may not call this method."""
    needed = _NEEDED.get(path) or (_ADMIN if path.startswith(_ROUTING_PATHS) else tuple(ROLES))
    if identity.role not in needed:
        method = path.rpartition("/")[2]
        roles = " or ".join(needed)
        raise PermissionDenied(f"{method} needs the role {roles}; {identity.name} has {identity.role}")


def certificate_names(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in a certificate, as `getpeercert` tells of it, each with its kind.

    >>> certificate_names({
    ...     "subject": ((("organizationName", "Example"),), (("commonName", "uploader"),)),
    ...     "subjectAltName": (("DNS", "Uploader.example"), ("URI", "spiffe://example/uploader")),
    ... })
    ('common_name:uploader', 'dns:uploader.example', 'uri:spiffe://example/uploader')
    """
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    names = [*subject, *certificate.get("subjectAltName", ())]
    return tuple(_named(_NAMES[kind], name) for kind, name in names if kind in _NAMES)


_NAMES: Final[Mapping[str, str]] = MappingProxyType({"commonName": "common_name", "DNS": "dns", "URI": "uri"})
"""What `getpeercert` calls the names that a row of `[[certificates]]` may give."""


def _named(kind: str, name: str) -> str:
    # The kind is part of the name: an authority that checks DNS names may let anybody choose a common name.
    return f"{kind}:{name.lower() if kind == 'dns' else name}"


def new_token(name: str, role: str) -> tuple[str, str]:
    """A token that nobody has seen yet, and the row of an auth file that knows it."""
    salt = secrets.token_hex(_SALT_BYTES)
    token = f"routing_{salt}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    values = {"name": name, "role": role, "salt": salt, "sha256": _digest(token).hex()}
    return token, "\n".join(("[[tokens]]", *(f"{key} = {_quoted(value)}" for key, value in values.items())))


def _quoted(value: str) -> str:
    r"""Printable text as a TOML string.

    >>> print(_quoted('a "b" \\ c'))
    "a \"b\" \\ c"
    """
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


NAME: Final = text(1, 256)
ROLE: Final = one_of(*ROLES)

_TOKEN_KEYS: Final[Mapping[str, Validator]] = MappingProxyType(
    {
        "name": NAME,
        "role": ROLE,
        "salt": matching(r"[0-9a-f]{16}", "16 hexadecimal digits, as routing token prints them"),
        "sha256": matching(r"[0-9a-f]{64}", "64 hexadecimal digits, as routing token prints them"),
    }
)

_CERTIFICATE_KEYS: Final[Mapping[str, Validator]] = MappingProxyType(
    {**dict.fromkeys(_NAMES.values(), text(1, 1024)), "role": ROLE}
)


def read_rules(path: str) -> Rules:
    """The rules in the auth file at `path`; ConfigError says what is wrong with it.

    A file that lets nobody in is refused: it was more likely cut short than meant.
    """
    tables, where = read_file(path), place(path)
    check_keys(tables, ("tokens", "certificates"), where)
    tokens: dict[str, _Token] = {}
    for key, row in _rows(tables, "tokens", _TOKEN_KEYS, where, required=tuple(_TOKEN_KEYS)):
        if row["salt"] in tokens:
            raise ConfigError(where, f"{key}.salt", "expected a salt of its own; make another token")
        tokens[row["salt"]] = _Token(bytes.fromhex(row["sha256"]), Identity(row["name"], row["role"]))
    certificates: dict[str, Identity] = {}
    for key, row in _rows(tables, "certificates", _CERTIFICATE_KEYS, where, required=("role",)):
        kinds = [kind for kind in _NAMES.values() if kind in row]
        if len(kinds) != 1:
            raise ConfigError(where, key, f"expected one of {listed(_NAMES.values())}, got {len(kinds)}")
        name = _named(kinds[0], row[kinds[0]])
        if name in certificates:
            raise ConfigError(where, f"{key}.{kinds[0]}", "expected a name that no other row has")
        certificates[name] = Identity(name, row["role"])
    if not tokens and not certificates:
        raise ConfigError(where, "", "expected [[tokens]] or [[certificates]]; this lets nobody in")
    return Rules(tokens, certificates)


def _rows(
    tables: Mapping[str, Any],
    name: str,
    keys: Mapping[str, Validator],
    where: str,
    *,
    required: tuple[str, ...],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row's place, and its checked values."""
    rows = tables.get(name, [])
    if not isinstance(rows, list):
        raise ConfigError(where, name, f"expected [[{name}]] tables, got {described(rows)}")
    for index, row in enumerate(rows):
        key = f"{name}[{index}]"
        given = table(row, where, key)
        check_keys(given, keys, where, key)
        values = {}
        for one, value in given.items():
            try:
                values[one] = keys[one].read(value)
            except Mismatch as mismatch:
                raise ConfigError(where, f"{key}.{one}", str(mismatch)) from None
        for one in required:
            if one not in values:
                raise ConfigError(where, f"{key}.{one}", f"expected {keys[one].expected}, got nothing")
        yield key, values
