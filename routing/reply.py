"""Calls that are answered there and then, or after a moment's wait, without a task."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from grpclib.const import Status
from grpclib.metadata import encode_grpc_message


@dataclass(frozen=True, slots=True)
class Reply:
    """The one message of a unary call, behind its prefix; or, where `status` is not OK, why there is none."""

    data: bytes
    status: Status = Status.OK
    message: str = ""


def refused(reply: Reply) -> list[tuple[str, str]]:
    """The headers that are the whole answer where there is no message."""
    return [
        (":status", "200"),
        ("content-type", "application/grpc+proto"),
        ("grpc-accept-encoding", "identity"),
        ("grpc-status", str(reply.status.value)),
        ("grpc-message", encode_grpc_message(reply.message)),
    ]


Prompt = Callable[[bytes, Callable[[], str]], Reply | asyncio.Future[Reply]]
"""Answers the bytes of one message, given without their prefix, now or a little later. Is told
who asks, as a function, since finding that out costs more than it is mostly used for."""


@runtime_checkable
class Prompting(Protocol):
    """A servable some of whose methods can also be answered there and then."""

    @property
    def prompts(self) -> Mapping[str, Prompt]:
        """By method path."""
        ...
