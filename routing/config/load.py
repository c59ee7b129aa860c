"""Loads the settings: a flag overrides an environment variable, that a file, that a default.

Every given value is validated, also one that another source overrides.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from routing.config.http2_limits import Http2Limits
from routing.config.options import (
    ENVIRONMENT_PREFIX,
    OPTIONS,
    RoutingSettings,
    ServerSettings,
    Settings,
    SuspensionSettings,
)
from routing.config.profiles import read_profiles
from routing.config.toml import check_keys, place, read_file, read_shipped, table
from routing.config.validators import Mismatch, number
from routing.core.factors import FACTORS
from routing.core.model import Backend
from routing.errors import ConfigError

CONFIG_VARIABLE = f"{ENVIRONMENT_PREFIX}CONFIG"
DEFAULT_PROFILES = "config/backends.toml"

WEIGHT = number(0, 1_000_000)
"""Weights are relative: at a million to one, the other factors no longer matter."""

TYPO_SIMILARITY = 0.7
"""From which ratio of difflib on a name counts as a typo of another: PROT of PORT (0.75), but
not HOST of PORT (0.5). Lower would warn about variables that belong to other software."""

_KNOWN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "server": tuple(option.key for option in OPTIONS if option.section == "server"),
        "routing": (*(option.key for option in OPTIONS if option.section == "routing"), "weights"),
        "suspension": tuple(option.key for option in OPTIONS if option.section == "suspension"),
        "http2": tuple(option.key for option in OPTIONS if option.section == "http2"),
    }
)
"""The valid keys of each table of a config file."""

_REQUIRES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "use_ssl": ("ssl_cert", "ssl_key"),
        "ssl_cert": ("ssl_key",),
        "ssl_key": ("ssl_cert",),
        "ssl_client_ca": ("use_ssl",),
        "ssl_client_auth": ("ssl_client_ca",),
    }
)
"""{setting: the settings that it has no effect without}."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Given:
    """A validated value, with its source and key for messages."""

    value: Any
    where: str
    key: str


def load(
    *,
    path: str | None = None,
    environment: Mapping[str, str] = _NOTHING,
    flags: Mapping[str, object] = _NOTHING,
) -> Settings:
    """The settings in force; ConfigError names the source, the key and what was expected.

    If `path` is None, ROUTING_CONFIG names the file, if any. `flags` maps an option's key to
    its value, as text or as TOML would give it. A flag that is None and an environment variable
    that is empty count as not given.

    >>> load(environment={"ROUTING_PORT": "50052"}, flags={"host": "127.0.0.1"}).server.port
    50052
    """
    path = path if path is not None else environment.get(CONFIG_VARIABLE) or None
    tables, where = ({}, "") if path is None else (read_file(path), place(path))
    check_keys(tables, (*_KNOWN, "backends"), where)
    given = {**_from_file(tables, where), **_from_environment(environment), **_from_flags(flags)}
    _check_requirements(given)
    server = ServerSettings(**_values(given, "server"))
    routing = RoutingSettings(**_values(given, "routing"), weights=_read_weights(tables, where))
    backends = _read_backends(tables, where, routing.max_backends, given.get("max_backends"))
    http2 = Http2Limits(**_values(given, "http2"))
    suspension = SuspensionSettings(**_values(given, "suspension"))
    _check_waits(suspension, given)
    warnings = (*_ineffective(server), *_misspelled(environment))
    return Settings(server, routing, backends, warnings, http2, suspension)


def _values(given: Mapping[str, _Given], section: str) -> dict[str, Any]:
    return {key: given[key].value for key in _KNOWN[section] if key in given}


def _from_file(tables: Mapping[str, Any], where: str) -> dict[str, _Given]:
    given = {}
    for section, known in _KNOWN.items():
        values = table(tables.get(section, {}), where, section)
        check_keys(values, known, where, section)
        for option in OPTIONS:
            if option.section == section and option.key in values:
                given[option.key] = _read(option.validator.read, values[option.key], where, option.toml)
    return given


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    return {
        option.key: _read(
            option.validator.read_text, environment[option.variable], "environment", option.variable
        )
        for option in OPTIONS
        if environment.get(option.variable)
    }


def _from_flags(flags: Mapping[str, object]) -> dict[str, _Given]:
    check_keys(flags, (option.key for option in OPTIONS), "command line")
    given = {}
    for option in OPTIONS:
        value = flags.get(option.key)
        if value is not None:
            read = option.validator.read_text if isinstance(value, str) else option.validator.read
            given[option.key] = _read(read, value, "command line", option.flag or option.key)
    return given


def _read(read: Callable[[Any], Any], value: object, where: str, key: str) -> _Given:
    try:
        return _Given(read(value), where, key)
    except Mismatch as mismatch:
        raise ConfigError(where, key, str(mismatch)) from None


def _check_requirements(given: Mapping[str, _Given]) -> None:
    """ConfigError where a TLS setting lacks one that it requires. Ignoring it would leave a server
    open whose operator believes that it is not."""
    for key, required in _REQUIRES.items():
        if key in given and given[key].value:
            for option in OPTIONS:
                if option.key in required and not (option.key in given and given[option.key].value):
                    how = f"{option.flag}, {option.toml} or {option.variable}"
                    raise ConfigError(
                        given[key].where, given[key].key, f"expected {option.key} as well ({how})"
                    )


def _check_waits(suspension: SuspensionSettings, given: Mapping[str, _Given]) -> None:
    """ConfigError for a longest wait that is shorter than the first."""
    first, longest = suspension.first_wait_seconds, suspension.longest_wait_seconds
    if longest < first:
        if "longest_wait_seconds" in given:
            source, expected = given["longest_wait_seconds"], f"at least first_wait_seconds ({first:g})"
        else:
            source, expected = given["first_wait_seconds"], f"at most longest_wait_seconds ({longest:g})"
        raise ConfigError(source.where, source.key, f"expected {expected}, got {source.value:g}")


def _ineffective(server: ServerSettings) -> Iterator[str]:
    if server.ssl_cert is not None and not server.use_ssl:
        yield "ssl_cert and ssl_key are given, but use_ssl is false: calls are not encrypted"
    if server.rate_burst is not None and server.rate_limit is None:
        yield "rate_burst is given, but rate_limit is not: calls are not limited"
    if server.ssl_client_auth == "optional" and server.auth_file is None:
        yield "ssl_client_auth is optional, but there is no auth_file: clients need no certificate"


def _misspelled(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Warnings about ROUTING_* variables that look like a typo of a setting's. They are no errors:
    the variable may belong to other software."""
    known = {option.variable: option.key.upper() for option in OPTIONS} | {CONFIG_VARIABLE: "CONFIG"}
    warnings = []
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known:
            tail = name.removeprefix(ENVIRONMENT_PREFIX)
            for close in difflib.get_close_matches(tail, known.values(), n=1, cutoff=TYPO_SIMILARITY):
                meant = ENVIRONMENT_PREFIX + close
                warnings.append(f"{place(name)} is not a setting and is ignored; did you mean {meant}?")
    return tuple(warnings)


def _read_weights(tables: Mapping[str, Any], where: str) -> Mapping[str, float]:
    key = "routing.weights"
    given = table(tables.get("routing", {}).get("weights", {}), where, key)
    check_keys(given, FACTORS, where, key)
    weights = {name: _read(WEIGHT.read, value, where, f"{key}.{name}").value for name, value in given.items()}
    if not any(weights.get(name, factor.weight) for name, factor in FACTORS.items()):
        raise ConfigError(where, key, "expected at least one weight above 0")
    return MappingProxyType(weights)


def _read_backends(
    tables: Mapping[str, Any], where: str, limit: int, limited_by: _Given | None
) -> tuple[Backend, ...]:
    """The file's profiles, or the default ones if it has none."""
    backends = read_profiles(tables.get("backends", []), where)
    if not backends:
        backends = read_profiles(read_shipped(DEFAULT_PROFILES)["backends"], DEFAULT_PROFILES)
    if len(backends) > limit:
        source = limited_by or _Given(limit, where, "routing.max_backends")
        raise ConfigError(
            source.where, source.key, f"expected room for {len(backends):,} backends, got {limit:,}"
        )
    return backends
