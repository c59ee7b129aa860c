"""Reads backend profiles from the `[[backends]]` tables of a config file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from routing.config.toml import check_keys, table
from routing.config.validators import (
    LARGEST_INT64,
    Mismatch,
    Validator,
    affinities,
    described,
    names,
    number,
    switch,
    text,
    whole,
)
from routing.core.model import Backend
from routing.errors import ConfigError, shown

LARGEST_NUMBER = 1_000_000_000
"""More than any plausible price, latency (11 days), speed or count, so that no arithmetic on a
profile overflows."""


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """A row of PROFILE: the validator and the help of one key."""

    validator: Validator
    help: str


PROFILE: Mapping[str, ProfileKey] = MappingProxyType(
    {
        "id": ProfileKey(text(1, 256), "the backend's name; required, unique"),
        "enabled": ProfileKey(switch(), "whether it may be chosen"),
        "region": ProfileKey(text(0, 256), "compared with the client's region where coordinates are missing"),
        "latitude": ProfileKey(number(-90, 90), "degrees north; needs `longitude`"),
        "longitude": ProfileKey(number(-180, 180), "degrees east; needs `latitude`"),
        "storage_usd_per_gb_month": ProfileKey(
            number(0, LARGEST_NUMBER), "price of keeping 10⁹ bytes for a month"
        ),
        "egress_usd_per_gb": ProfileKey(number(0, LARGEST_NUMBER), "price of reading 10⁹ bytes once"),
        "request_usd_per_1000": ProfileKey(number(0, LARGEST_NUMBER), "price of 1,000 requests"),
        "latency_ms": ProfileKey(
            number(0, LARGEST_NUMBER), "time to first byte, without the delay of the client's distance"
        ),
        "throughput_mbps": ProfileKey(number(0.001, LARGEST_NUMBER), "megabits per second"),
        "success_rate": ProfileKey(number(0, 1), "share of operations that succeed"),
        "max_object_bytes": ProfileKey(
            whole(1, LARGEST_INT64), "largest object that it accepts; no limit if left out"
        ),
        "max_inflight": ProfileKey(
            whole(1, LARGEST_NUMBER), "operations in flight at which it is full; no limit if left out"
        ),
        "tags": ProfileKey(names(64, 256), "names that a request's `require_tags` can ask for"),
        "content_affinity": ProfileKey(
            affinities(256), "how well it suits MIME types: exact before `type/*` before `*/*`"
        ),
    }
)
"""The keys of a profile. One that is left out keeps the default of Backend."""


def read_profiles(rows: object, where: str) -> tuple[Backend, ...]:
    """The backends of a file's `[[backends]]`, in the order of the file."""
    if not isinstance(rows, list):
        raise ConfigError(where, "backends", f"expected [[backends]] tables, got {described(rows)}")
    backends = tuple(_read_profile(row, where, f"backends[{index}]") for index, row in enumerate(rows))
    _check_unique(backends, where)
    return backends


def _read_profile(row: object, where: str, key: str) -> Backend:
    given = table(row, where, key)
    # Messages name the backend by its id as well, unless the id is not text.
    name = f" ({shown(given['id'])})" if isinstance(given.get("id"), str) else ""
    check_keys(given, PROFILE, where, key, name)
    values: dict[str, Any] = {}
    for one, value in given.items():
        try:
            values[one] = PROFILE[one].validator.read(value)
        except Mismatch as mismatch:
            raise ConfigError(where, f"{key}.{one}{mismatch.at}{name}", str(mismatch)) from None
    if "id" not in values:
        raise ConfigError(where, f"{key}.id", f"expected {PROFILE['id'].validator.expected}, got nothing")
    for one, other in (("latitude", "longitude"), ("longitude", "latitude")):
        if one in values and other not in values:
            raise ConfigError(where, f"{key}.{other}{name}", f"expected a number, because {one} is given")
    return Backend(**values)


def _check_unique(backends: Sequence[Backend], where: str) -> None:
    firsts: dict[str, int] = {}
    for index, backend in enumerate(backends):
        first = firsts.setdefault(backend.id, index)
        if first != index:
            expected = f"expected a name of its own, got {shown(backend.id)} like backends[{first}]"
            raise ConfigError(where, f"backends[{index}].id", expected)
