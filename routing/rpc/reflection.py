"""grpc.reflection.v1 and v1alpha: serves the server's schema to tools such as grpcurl."""

from collections.abc import AsyncIterator, Callable, Mapping
from importlib import resources
from typing import Any

from grpclib.const import Handler
from routing_pb.grpc.reflection.v1 import (
    ErrorResponse,
    ExtensionNumberResponse,
    ExtensionRequest,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionBase,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from routing.errors import InvalidArgument, NotServed, RoutingError, listed, shown
from routing.protobuf.descriptors import Schema
from routing.rpc.status import status_and_message


class Reflection(ServerReflectionBase):
    """Answers each request about the schema with one response; an error does not end the stream."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._answers: Mapping[str, Callable[[Any], ServerReflectionResponse]] = {
            "file_by_filename": self._file,
            "file_containing_symbol": self._file_declaring,
            "file_containing_extension": self._extension,
            "all_extension_numbers_of_type": self._extension_numbers,
            "list_services": self._services,
        }

    async def server_reflection_info(
        self, messages: AsyncIterator[ServerReflectionRequest]
    ) -> AsyncIterator[ServerReflectionResponse]:
        async for request in messages:
            try:
                answer = self._answer(request)
            except RoutingError as error:
                status, message = status_and_message(error)
                answer = ServerReflectionResponse(error_response=ErrorResponse(status.value, message))
            answer.valid_host = request.host
            answer.original_request = request
            yield answer

    def _answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        for field, answer in self._answers.items():
            value = getattr(request, field)
            if value is not None:
                return answer(value)
        raise InvalidArgument("message_request", None, f"one of {listed(self._answers)}")

    def _file(self, name: str) -> ServerReflectionResponse:
        files = self._schema.with_imports(name)
        if files is None:
            raise NotServed(f"file_by_filename: {shown(name)} is not a file of this schema")
        return ServerReflectionResponse(file_descriptor_response=FileDescriptorResponse(files))

    def _file_declaring(self, symbol: str) -> ServerReflectionResponse:
        file = self._schema.file_declaring(symbol)
        if file is None:
            raise NotServed(f"file_containing_symbol: {shown(symbol)} is not declared in this schema")
        return self._file(file)

    def _extension(self, extension: ExtensionRequest) -> ServerReflectionResponse:
        wanted = f"{shown(extension.containing_type)}, number {extension.extension_number}"
        raise NotServed(f"file_containing_extension: {wanted} is not declared in this schema; it has none")

    def _extension_numbers(self, symbol: str) -> ServerReflectionResponse:
        if not self._schema.is_message(symbol):
            raise NotServed(f"all_extension_numbers_of_type: {shown(symbol)} is not a message of this schema")
        numbers = ExtensionNumberResponse(base_type_name=symbol)
        return ServerReflectionResponse(all_extension_numbers_response=numbers)

    def _services(self, _: str) -> ServerReflectionResponse:
        services = [ServiceResponse(name) for name in self._schema.services]
        return ServerReflectionResponse(list_services_response=ListServiceResponse(services))


class ReflectionAlpha(Reflection):
    """The same service as v1alpha, whose messages have the same bytes."""

    def __mapping__(self) -> dict[str, Handler]:
        return {path.replace(".v1.", ".v1alpha."): handler for path, handler in super().__mapping__().items()}


def compiled_schema() -> Schema:
    """The schema that gen/ was compiled from. The server serves all services in it."""
    return Schema(resources.files("routing_pb").joinpath("descriptors.bin").read_bytes())
