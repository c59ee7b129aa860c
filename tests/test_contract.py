"""The names in `routing.contract` are those of the compiled schema and of the core."""

from routing import contract, wire
from routing.core.model import Query
from routing.rpc.reflection import compiled_schema


def test_the_services_are_those_of_the_schema() -> None:
    served = {contract.ROUTING_SERVICE, contract.HEALTH_SERVICE}
    served |= {contract.REFLECTION_SERVICE, contract.REFLECTION_ALPHA_SERVICE}
    assert served == set(compiled_schema().services)


def test_the_methods_are_those_of_the_generated_base() -> None:
    paths = [contract.method_path(contract.ROUTING_SERVICE, method) for method in contract.ROUTING_METHODS]
    assert paths == list(wire.RoutingServiceBase().__mapping__())


def test_every_metadata_key_is_a_field_of_a_query() -> None:
    assert set(contract.METADATA_KEYS) <= set(Query._fields)
