"""Authenticates callers by token or certificate, and authorises them by role.

A token is `routing_SALT_SECRET`. The file stores the salt, which is the key of its row, and the
SHA-256 of the whole token. The secret has 256 random bits, so the hash cannot be inverted by
guessing. A slow hash (scrypt, PBKDF2) is for passwords, which have few bits; here it would only
let unauthenticated callers consume CPU time.
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
"""The methods of the routing service that each role may call. Every role may use reflection, and
health needs no authentication."""

_ROLES_BY_PATH: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        method_path(ROUTING_SERVICE, method): tuple(
            role for role, methods in ROLES.items() if method in methods
        )
        for method in ROUTING_METHODS
    }
)
"""{method path: the roles that may call it}. A method of the routing service without an entry is
for admins; methods of other services are for all roles."""

_ADMIN: Final = ("admin",)

_ROUTING_PATHS: Final = method_path(ROUTING_SERVICE, "")

_SALT_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_TOKEN = re.compile(r"routing_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
"""The scheme of RFC 6750, whose name has no case (RFC 9110, section 11.1)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller: its name, for limits and messages, and its role."""

    name: str
    role: str


@dataclass(frozen=True, slots=True)
class _Token:
    """A row of `[[tokens]]`."""

    sha256: bytes
    identity: Identity


class Rules:
    """The contents of an auth file: who may call, and with which role."""

    def __init__(self, tokens: Mapping[str, _Token], certificates: Mapping[str, Identity]) -> None:
        self._tokens = tokens
        self._certificates = certificates
        accepted = []
        if tokens:
            accepted.append("Bearer and a token")
        if certificates:
            accepted.append("a client certificate")
        self._expected = " or ".join(accepted)

    @property
    def certificates(self) -> int:
        """The number of accepted certificate names."""
        return len(self._certificates)

    def __repr__(self) -> str:
        return f"<Rules tokens={len(self._tokens)} certificates={len(self._certificates)}>"

    def identify(self, caller: Caller) -> Identity:
        """The caller's identity; Unauthenticated says what is missing or unknown.

        A caller that sends a token is judged by the token alone. If a valid certificate made up
        for a wrong token, the mistake would go unnoticed.
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
        raise Unauthenticated(
            f"the client certificate's names ({listed(names) or 'none'}) are not known here"
        )

    def _by_token(self, authorization: str) -> Identity:
        bearer = _BEARER.fullmatch(authorization)
        token = _TOKEN.fullmatch(bearer[1]) if bearer else None
        if token is None:
            raise Unauthenticated("authorization: not a token of this server; expected Bearer and a token")
        row = self._tokens.get(token[1])
        if row is None or not hmac.compare_digest(_digest(token[0]), row.sha256):
            raise Unauthenticated("authorization: the token is unknown or was revoked")
        return row.identity


def check_role(path: str, identity: Identity) -> None:
    """Raises PermissionDenied if this caller's role may not call this method."""
    allowed = _ROLES_BY_PATH.get(path) or (_ADMIN if path.startswith(_ROUTING_PATHS) else tuple(ROLES))
    if identity.role not in allowed:
        method = path.rpartition("/")[2]
        roles = " or ".join(allowed)
        raise PermissionDenied(f"{method} needs the role {roles}; {identity.name} has {identity.role}")


def certificate_names(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in a certificate, in the form of `getpeercert`, each prefixed with its kind.

    >>> certificate_names({
    ...     "subject": ((("organizationName", "Example"),), (("commonName", "uploader"),)),
    ...     "subjectAltName": (("DNS", "Uploader.example"), ("URI", "spiffe://example/uploader")),
    ... })
    ('common_name:uploader', 'dns:uploader.example', 'uri:spiffe://example/uploader')
    """
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    names = [*subject, *certificate.get("subjectAltName", ())]
    return tuple(_qualified_name(_NAME_KEYS[kind], name) for kind, name in names if kind in _NAME_KEYS)


_NAME_KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {"commonName": "common_name", "DNS": "dns", "URI": "uri"}
)
"""{name in `getpeercert`: key in a row of `[[certificates]]`}."""


def _qualified_name(kind: str, name: str) -> str:
    # The kind is part of the name: an authority that verifies DNS names may not verify common names.
    return f"{kind}:{name.lower() if kind == 'dns' else name}"


def new_token(name: str, role: str) -> tuple[str, str]:
    """A new random token, and the row of an auth file that accepts it."""
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
    {**dict.fromkeys(_NAME_KEYS.values(), text(1, 1024)), "role": ROLE}
)


def read_rules(path: str) -> Rules:
    """The rules in the auth file at `path`; ConfigError names the invalid row and key.

    A file without rows is refused: it is more likely truncated than intended.
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
        kinds = [kind for kind in _NAME_KEYS.values() if kind in row]
        if len(kinds) != 1:
            raise ConfigError(where, key, f"expected one of {listed(_NAME_KEYS.values())}, got {len(kinds)}")
        name = _qualified_name(kinds[0], row[kinds[0]])
        if name in certificates:
            raise ConfigError(where, f"{key}.{kinds[0]}", "expected a name that no other row has")
        certificates[name] = Identity(name, row["role"])
    if not tokens and not certificates:
        raise ConfigError(
            where, "", "expected [[tokens]] or [[certificates]]; without, all calls are refused"
        )
    return Rules(tokens, certificates)


def _rows(
    tables: Mapping[str, Any],
    name: str,
    keys: Mapping[str, Validator],
    where: str,
    *,
    required: tuple[str, ...],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The dotted key of each row, and its validated values."""
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
