"""The tables of options and profile keys as Markdown, as the pages under docs/ show them."""

from collections.abc import Iterable
from dataclasses import MISSING, fields

from routing.config.options import OPTIONS
from routing.config.profiles import PROFILE
from routing.core.model import Backend


def options_table() -> str:
    """The options of [server] and [routing]."""
    rows = [
        (
            f"`{option.toml}`",
            f"`{option.flag}`" if option.flag else "—",
            f"`{option.variable}`",
            toml_default(option.default),
            option.validator.expected,
            option.help,
        )
        for option in OPTIONS
        if option.section in ("server", "routing")
    ]
    return markdown_table(("key", "flag", "environment", "default", "expected", "meaning"), rows)


def section_table(section: str) -> str:
    """The options of a section of which none has a flag."""
    rows = [
        (
            f"`{option.toml}`",
            f"`{option.variable}`",
            toml_default(option.default),
            option.validator.expected,
            option.help,
        )
        for option in OPTIONS
        if option.section == section
    ]
    return markdown_table(("key", "environment", "default", "expected", "meaning"), rows)


def profile_table() -> str:
    """The keys of a backend's profile."""
    defaults = {field.name: field.default for field in fields(Backend) if field.default is not MISSING}
    rows = [
        (f"`{name}`", toml_default(defaults.get(name)), key.validator.expected, key.help)
        for name, key in PROFILE.items()
    ]
    return markdown_table(("key", "default", "expected", "meaning"), rows)


def markdown_table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table of these cells."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def toml_default(value: object) -> str:
    """A default as a config file would spell it; a dash where there is none."""
    if value is None or (not value and not isinstance(value, bool | int | float | str)):
        return "—"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"
