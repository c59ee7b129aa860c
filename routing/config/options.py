"""The settings, and OPTIONS, the table of all that are one value.

A setting is one dataclass field: its default, its validator and its help. The flag, the
TOML key and the environment variable follow from it; a test compares docs/configuration.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from routing.config.http2_limits import Http2Limits
from routing.config.validators import Validator, number, one_of, switch, text, whole
from routing.config.validators import setting as _setting
from routing.contract import DEFAULT_PORT, MAX_PORT
from routing.core.model import Backend, SuspensionRules

ENVIRONMENT_PREFIX = "ROUTING_"

_RULES = SuspensionRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """[server]: where to listen, TLS and access, logs, state."""

    host: str = _setting("0.0.0.0", text(1, 255), "address to listen on", "HOST")  # noqa: S104 - the contract's
    port: int = _setting(DEFAULT_PORT, whole(0, MAX_PORT), "port to listen on; 0 takes any free one", "PORT")
    workers: int = _setting(10, whole(1, 1024), "most threads for blocking work", "N")
    use_ssl: bool = _setting(False, switch(), "serve TLS; needs ssl_cert and ssl_key")
    ssl_cert: str | None = _setting(None, text(1, 4096), "PEM file with the certificate chain", "FILE")
    ssl_key: str | None = _setting(None, text(1, 4096), "PEM file with the private key", "FILE")
    ssl_client_ca: str | None = _setting(
        None,
        text(1, 4096),
        "PEM file with the authorities that sign clients' certificates; clients are then asked for one",
        "FILE",
    )
    ssl_client_auth: str = _setting(
        "required",
        one_of("required", "optional"),
        "whether every client needs a certificate, or may send a token instead",
    )
    auth_file: str | None = _setting(
        None,
        text(1, 4096),
        "TOML file with the tokens and certificates that may call; without it, all may",
        "FILE",
    )
    rate_limit: float | None = _setting(
        None, number(0.001, 1_000_000), "most calls a second of one caller; no limit if left out", "CALLS"
    )
    rate_burst: int | None = _setting(
        None, whole(1, 1_000_000), "most calls of one caller in a burst; rate_limit if left out", "CALLS"
    )
    reload_seconds: float = _setting(
        10.0, number(0.1, 86_400), "how often certificates and auth_file are checked for changes", "SECONDS"
    )
    log_level: str = _setting("INFO", one_of("DEBUG", "INFO", "WARNING", "ERROR"), "lowest level to log")
    log_format: str = _setting("logfmt", one_of("logfmt", "json"), "format of log lines")
    grace_period_seconds: float = _setting(
        10.0, number(0, 3600), "how long open calls may take to finish on shutdown", "SECONDS"
    )
    event_loop: str = _setting(
        "auto", one_of("auto", "asyncio", "uvloop"), "event loop; auto is uvloop where it is installed"
    )
    fast_path: bool = _setting(
        True, switch(), "answer short calls as soon as they are read, and cache header blocks"
    )
    state: str | None = _setting(
        None,
        text(1, 4096),
        "where to keep learned state, as sqlite:///PATH; in memory only if left out",
        "URL",
    )
    durability: str = _setting(
        "ack",
        one_of("ack", "interval"),
        "acknowledge an outcome once it is on disk, or at once and write in intervals",
    )
    durability_interval_seconds: float = _setting(
        1.0, number(0.01, 3600), "longest that an event without a waiting caller stays unwritten", "SECONDS"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """[routing]: what the router learns and keeps. `weights` replaces the default weights of
    the factors that it names; the router renormalises."""

    discover: bool = _setting(True, switch(), "add backends that only clients name")
    max_backends: int = _setting(1024, whole(1, 65_536), "most backends in the registry", "N")
    max_content_types: int = _setting(
        256, whole(1, 65_536), "most MIME types counted separately; the rest count as `other`", "N"
    )
    clock: str = _setting(
        "system",
        one_of("system", "request"),
        "`request` takes the time from requests' timestamps, to replay a trace",
    )
    max_pending: int = _setting(
        500_000, whole(1, 50_000_000), "most decisions of the last hour that outcomes are linked to", "N"
    )
    retention_hours: int = _setting(168, whole(1, 8760), "how long outcomes are kept and accepted", "HOURS")
    max_cost_usd: float | None = _setting(
        None,
        number(0, 1_000_000_000_000),
        "most that an object may cost, while a backend meets that",
        "DOLLARS",
    )
    max_ms: float | None = _setting(
        None,
        number(0, 1_000_000_000_000),
        "longest that an operation may be expected to take, likewise",
        "MS",
    )
    min_success: float | None = _setting(
        None, number(0, 1), "lowest probability of success that is acceptable, likewise", "SHARE"
    )
    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionSettings(SuspensionRules):
    """[suspension]: when a failing backend is suspended, when it is probed, and what lifts that."""

    failures_in_a_row: int = _setting(
        _RULES.failures_in_a_row, whole(1, 1000), "consecutive failures that suspend a backend"
    )
    least_success: float = _setting(
        _RULES.least_success, number(0, 1), "learned probability of success below which it is suspended"
    )
    least_outcomes: int = _setting(
        _RULES.least_outcomes, whole(1, 1_000_000), "outcomes from which on that probability counts"
    )
    window_seconds: float = _setting(
        _RULES.window_seconds,
        number(0, 1_000_000_000),
        "how long a success of another caller or type excuses the failures of one",
    )
    probe_decisions: int = _setting(
        _RULES.probe_decisions, whole(1, 1_000_000), "decisions after which a probe is due, whatever its wait"
    )
    probe_seconds: float = _setting(
        _RULES.probe_seconds, number(0, 1_000_000_000), "least time between two such probes of a backend"
    )
    least_decisions: int = _setting(
        _RULES.least_decisions, whole(1, 1_000_000), "at most one in so many decisions is a probe"
    )
    first_wait_seconds: float = _setting(
        _RULES.first_wait_seconds,
        number(0, 1_000_000_000),
        "wait for a probe; it doubles with each that fails",
    )
    longest_wait_seconds: float = _setting(
        _RULES.longest_wait_seconds, number(0, 1_000_000_000), "longest wait; at least first_wait_seconds"
    )
    successes_to_lift: int = _setting(
        _RULES.successes_to_lift, whole(1, 1000), "consecutive successes that lift a suspension"
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a server needs to start. `warnings` are lines for its log: settings
    that are valid, but probably a mistake."""

    server: ServerSettings = field(default_factory=ServerSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    backends: tuple[Backend, ...] = ()
    warnings: tuple[str, ...] = ()
    http2: Http2Limits = field(default_factory=Http2Limits)
    suspension: SuspensionSettings = field(default_factory=SuspensionSettings)


@dataclass(frozen=True, slots=True)
class Option:
    """A row of OPTIONS: one setting, with its TOML key, environment variable and flag."""

    section: str
    key: str
    validator: Validator
    default: Any
    help: str
    metavar: str

    @property
    def toml(self) -> str:
        """The dotted key in a config file."""
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable. Those of other sections than [server] and [routing] name
        the section: their keys alone are ambiguous."""
        key = self.key if self.section in ("server", "routing") else f"{self.section}_{self.key}"
        return ENVIRONMENT_PREFIX + key.upper()

    @property
    def flag(self) -> str | None:
        """The flag of `routing serve`; only [server] has flags, to keep its help short."""
        return f"--{self.key.replace('_', '-')}" if self.section == "server" else None


def _options() -> tuple[Option, ...]:
    sections = {
        "server": ServerSettings,
        "routing": RoutingSettings,
        "suspension": SuspensionSettings,
        "http2": Http2Limits,
    }
    return tuple(
        Option(section, each.name, default=each.default, **each.metadata)
        for section, settings in sections.items()
        for each in fields(settings)
        if "validator" in each.metadata
    )


OPTIONS = _options()
"""Every setting that is one value, in the order of the help."""
