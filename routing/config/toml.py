"""A TOML file as checked tables: what is not a table, or not known, has a name and a place."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from routing.config.validators import seen
from routing.errors import ConfigError, listed, shown

MAX_FILE_BYTES = 16 << 20
"""Room for the most backends allowed at 256 bytes each; a device or a stray data file is refused
before it fills the memory."""

_LONGEST_COMPARED = 64
"""No key is longer; comparing takes time that grows with the product of the lengths."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


def read_file(path: str) -> dict[str, Any]:
    """The tables of the TOML file at `path`; ConfigError says what is wrong with it."""
    where = place(path)
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(where, "", f"expected a file that can be read: {reason}") from None
    return _parse(content, where)


def read_shipped(name: str) -> dict[str, Any]:
    """The tables of a TOML file of this package."""
    return _parse(files("routing").joinpath(name).read_bytes(), name)


def place(path: str) -> str:
    """The path as one line of text."""
    return path if path.isprintable() and path else repr(path)


def table(value: object, where: str, key: str) -> Mapping[str, Any]:
    """The value, if it is a table."""
    if not isinstance(value, dict):
        raise ConfigError(where, key, f"expected a table, got {seen(value)}")
    return value


def check_keys(
    given: Mapping[str, Any], known: Iterable[str], where: str, prefix: str = "", suffix: str = ""
) -> None:
    """ConfigError for the first key that is not known, with the one that was probably meant."""
    valid = tuple(known)
    for key in given:
        if key not in valid:
            spelled = key if _BARE_KEY.fullmatch(key) else shown(key)
            dotted = f"{prefix}.{spelled}" if prefix else spelled
            raise ConfigError(where, dotted + suffix, f"unknown key; {meant(key, valid)}")


def meant(name: str, valid: tuple[str, ...]) -> str:
    """What somebody who wrote `name` may have meant, for the end of a message."""
    close = difflib.get_close_matches(name[:_LONGEST_COMPARED], valid, n=1)
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
