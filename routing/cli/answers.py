"""The server's answers as plain values, for `--json` and for tables."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routing.client.values import Metrics


def answer_values(answer: object) -> dict[str, Any]:
    """A client's result as a dict under the contract's field names."""
    names = {"at": "timestamp", "recorded": "success"}
    return {names.get(key, key): value for key, value in plain_values(answer).items()}


def update_values(update: "Metrics") -> dict[str, Any]:
    sections = plain_values(update)
    fixed = {"timestamp": sections.pop("at"), "status": sections.pop("status").name}
    sections |= sections.pop("other")
    return {**fixed, "metrics": {name: section for name, section in sections.items() if section is not None}}


def plain_values(value: Any) -> Any:
    """Dataclasses and mappings as dicts, recursively; other values unchanged."""
    if is_dataclass(value):
        return {field.name: plain_values(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain_values(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain_values(each) for each in value]
    return value
