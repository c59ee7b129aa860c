"""Reads TOML files, and checks their tables and keys; errors name the file and the key."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from routing.config.validators import described
from routing.errors import ConfigError, listed, shown

MAX_FILE_BYTES = 16 << 20
"""Room for the most backends allowed at 256 bytes each. A device or a stray data file is refused
before it fills the memory."""

_COMPARED_CHARACTERS = 64
"""No key is longer. Comparing takes time that grows with the product of the lengths."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


def read_file(path: str) -> dict[str, Any]:
    """The tables of the TOML file at `path`; ConfigError if it cannot be read or parsed."""
    where = place(path)
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(where, "", f"expected a file that can be read: {reason}") from None
    return _parse(content, where)


def read_shipped(name: str) -> dict[str, Any]:
    """The tables of a TOML file inside this package."""
    return _parse(files("routing").joinpath(name).read_bytes(), name)


def place(path: str) -> str:
    """The path for a message, on one line whatever characters it has."""
    return path if path.isprintable() and path else repr(path)


def table(value: object, where: str, key: str) -> Mapping[str, Any]:
    """The value as a table; ConfigError if it is none."""
    if not isinstance(value, dict):
        raise ConfigError(where, key, f"expected a table, got {described(value)}")
    return value


def check_keys(
    given: Mapping[str, Any], known: Iterable[str], where: str, prefix: str = "", suffix: str = ""
) -> None:
    """ConfigError for the first unknown key, with the most similar valid one."""
    valid = tuple(known)
    for key in given:
        if key not in valid:
            spelled = key if _BARE_KEY.fullmatch(key) else shown(key)
            dotted = f"{prefix}.{spelled}" if prefix else spelled
            raise ConfigError(where, dotted + suffix, f"unknown key; {suggestion(key, valid)}")


def suggestion(name: str, valid: tuple[str, ...]) -> str:
    """The most similar valid name, or all valid names, for the end of a message."""
    close = difflib.get_close_matches(name[:_COMPARED_CHARACTERS], valid, n=1)
    return f"did you mean {close[0]}?" if close else f"expected one of {listed(valid)}"


def _parse(content: bytes, where: str) -> dict[str, Any]:
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(where, "", f"expected at most {MAX_FILE_BYTES:,} bytes")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(where, f"line {line}", "expected UTF-8 text") from None
    except RecursionError:
        raise ConfigError(where, "", "expected TOML, got arrays or tables nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and a plain one for a number of too many digits
        raise ConfigError(where, "", f"expected TOML: {' '.join(str(error).split())}") from None
