"""What the descriptors say of a method: whether it is there, and what its answers can hold."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from sendense.v1 import (
    agent_session_pb2,
    backup_pb2,
    context_pb2,
    hub_pb2,
    inventory_pb2,
    repository_pb2,
    restore_pb2,
    statistics_pb2,
    upload_pb2,
)
from tests.api_page.json_lines import Node
from tests.api_page.shapes import Problem

_FILES: Final = (
    backup_pb2,
    context_pb2,
    hub_pb2,
    inventory_pb2,
    repository_pb2,
    restore_pb2,
    statistics_pb2,
)
# Between agents and the hub; nobody calls them by hand.
INTERNAL_SERVICES: Final = frozenset(
    f"{file.DESCRIPTOR.package}.{name}"
    for file in (agent_session_pb2, upload_pb2)
    for name in file.DESCRIPTOR.services_by_name
)
# Not ours, named once in the page: the health check, which programs and people ask.
HEALTH_CHECK: Final = (health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, "Check")


def public_services() -> list[ServiceDescriptor]:
    """The services that people and programs call."""
    return [one for file in _FILES for one in file.DESCRIPTOR.services_by_name.values()]


def public_methods() -> set[tuple[str, str]]:
    """Service and method of every RPC that people and programs call."""
    return {
        (service.full_name, method.name)
        for service in public_services()
        for method in service.methods
    }


def find_method(method: tuple[str, str]) -> MethodDescriptor | None:
    """The descriptor of a method, None when there is no such one."""
    service, name = method
    try:
        found: ServiceDescriptor = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return None
    return found.methods_by_name.get(name)


def message_problems(kind: Descriptor, shown: Node) -> Iterator[Problem]:
    """How a message of the page is not what the protos let a hub answer."""
    try:
        message = json_format.ParseDict(shown.plain, GetMessageClass(kind)())
    except json_format.ParseError as error:
        yield Problem(shown.line, f"no {kind.name}: {error}")
        return
    canonical = json_format.MessageToDict(message, preserving_proto_field_name=True)
    yield from _unlike(shown, canonical, kind.name)


def _unlike(shown: Node, canonical: Any, path: str) -> Iterator[Problem]:
    """Values that are not written as grpcurl writes them: 5 for "5", defaults, other names."""
    if isinstance(shown.value, Mapping) and isinstance(canonical, Mapping):
        for name, node in shown.value.items():
            if name in canonical:
                yield from _unlike(node, canonical[name], f"{path}.{name}")
            else:
                yield Problem(node.line, f"{path}.{name} is never printed so")
    elif isinstance(shown.value, list) and isinstance(canonical, list):
        for node, value in zip(shown.value, canonical, strict=True):
            yield from _unlike(node, value, f"{path}[]")
    elif shown.plain != canonical or isinstance(shown.value, str) != isinstance(canonical, str):
        yield Problem(shown.line, f"{path} is written {canonical!r}, not {shown.plain!r}")
