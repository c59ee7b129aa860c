"""Calls that are answered there and then, without ever waiting."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from grpclib.const import Status


@dataclass(frozen=True, slots=True)
class Reply:
    """The one message of a unary call, behind its prefix; or, where `status` is not OK, why there is none."""

    data: bytes
    status: Status = Status.OK
    message: str = ""


Prompt = Callable[[bytes, Callable[[], str]], Reply]
"""Answers the bytes of one message, given without their prefix. Is told who asks, as a
function, since finding that out costs more than it is mostly used for."""


@runtime_checkable
class Prompting(Protocol):
    """A servable some of whose methods can also be answered there and then."""

    @property
    def prompts(self) -> Mapping[str, Prompt]:
        """By method path."""
        ...
