"""The settings, and the table of their options.

A setting is one field below: its default, what it may hold, and what it means.
The flag, the TOML key, the environment variable, the help and the table in
docs/configuration.md all come from that field.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from routing.config.http2_limits import Http2Limits
from routing.config.validators import Validator, number, one_of, switch, text, whole
from routing.config.validators import setting as _setting
from routing.contract import DEFAULT_PORT
from routing.core.model import Backend

ENVIRONMENT_PREFIX = "ROUTING_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """[server]: where to listen, with what, and how to speak about it."""

    host: str = _setting("0.0.0.0", text(1, 255), "address to listen on", "HOST")  # noqa: S104 - the contract's
    port: int = _setting(DEFAULT_PORT, whole(0, 65535), "port to listen on; 0 takes any free one", "PORT")
    workers: int = _setting(10, whole(1, 1024), "most threads that blocking work may use", "N")
    use_ssl: bool = _setting(False, switch(), "serve TLS; needs ssl_cert and ssl_key")
    ssl_cert: str | None = _setting(None, text(1, 4096), "PEM file with the certificate chain", "FILE")
    ssl_key: str | None = _setting(None, text(1, 4096), "PEM file with the private key", "FILE")
    ssl_client_ca: str | None = _setting(
        None,
        text(1, 4096),
        "PEM file with the authorities of clients' certificates, which it asks for",
        "FILE",
    )
    ssl_client_auth: str = _setting(
        "required",
        one_of("required", "optional"),
        "whether a client must show a certificate, or may have a token instead",
    )
    auth_file: str | None = _setting(
        None, text(1, 4096), "TOML file with who may call; everybody without", "FILE"
    )
    rate_limit: float | None = _setting(
        None, number(0.001, 1_000_000), "most calls a second of one caller; no limit without", "CALLS"
    )
    rate_burst: int | None = _setting(
        None, whole(1, 1_000_000), "calls that one caller may make at once; rate_limit if left out", "CALLS"
    )
    reload_seconds: float = _setting(
        10.0, number(0.1, 86_400), "how often certificates and auth_file are looked at for changes", "SECONDS"
    )
    log_level: str = _setting("INFO", one_of("DEBUG", "INFO", "WARNING", "ERROR"), "least level to log")
    log_format: str = _setting("logfmt", one_of("logfmt", "json"), "shape of a log line")
    grace_period_seconds: float = _setting(
        10.0, number(0, 3600), "how long calls already begun may take to finish on shutdown", "SECONDS"
    )
    event_loop: str = _setting(
        "auto", one_of("auto", "asyncio", "uvloop"), "what it runs on; auto takes uvloop where installed"
    )
    fast_path: bool = _setting(
        True, switch(), "answer short calls as they are read, and remember header blocks"
    )
    state: str | None = _setting(
        None, text(1, 4096), "where to keep what was learned, as sqlite:///PATH; in memory without", "URL"
    )
    durability: str = _setting(
        "ack", one_of("ack", "interval"), "answer an outcome when it is on disk, or write once an interval"
    )
    durability_interval_seconds: float = _setting(
        1.0, number(0.01, 3600), "longest that what nobody waits for stays unwritten", "SECONDS"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """[routing]: what the router may learn and keep. `weights` replaces the default
    weights of the factors that it names; the router renormalises."""

    discover: bool = _setting(True, switch(), "learn backends that only clients name")
    max_backends: int = _setting(1024, whole(1, 65_536), "most backends known at a time", "N")
    max_content_types: int = _setting(
        256, whole(1, 65_536), "most MIME types counted apart; the rest is counted as `other`", "N"
    )
    clock: str = _setting(
        "system", one_of("system", "request"), "`request` takes the time from the requests, to replay a trace"
    )
    retention_hours: int = _setting(168, whole(1, 8760), "how long outcomes are kept and accepted", "HOURS")
    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a server needs to start. `warnings` are lines for its log: settings
    that are allowed, but probably not what was meant."""

    server: ServerSettings = field(default_factory=ServerSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    backends: tuple[Backend, ...] = ()
    warnings: tuple[str, ...] = ()
    http2: Http2Limits = field(default_factory=Http2Limits)


@dataclass(frozen=True, slots=True)
class Option:
    """A row of OPTIONS: one setting, and how it is spelled everywhere."""

    section: str
    key: str
    validator: Validator
    default: Any
    help: str
    metavar: str

    @property
    def toml(self) -> str:
        """The key in a config file, with its table."""
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable; those of [http2] say so, since its keys say little alone."""
        key = f"{self.section}_{self.key}" if self.section == "http2" else self.key
        return ENVIRONMENT_PREFIX + key.upper()

    @property
    def flag(self) -> str | None:
        """The flag of `routing serve`; only [server] has flags, to keep its help short."""
        return f"--{self.key.replace('_', '-')}" if self.section == "server" else None


def _options() -> tuple[Option, ...]:
    sections = {"server": ServerSettings, "routing": RoutingSettings, "http2": Http2Limits}
    return tuple(
        Option(section, one.name, default=one.default, **one.metadata)
        for section, settings in sections.items()
        for one in fields(settings)
        if "validator" in one.metadata
    )


OPTIONS = _options()
"""Every setting that is one value, in the order of the help."""
