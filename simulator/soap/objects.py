"""Managed objects on the host's side, and reading their properties by path."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from simulator.soap.faults import invalid_property
from simulator.soap.vmomi import Reference, support

_STEP = re.compile(r'(?P<name>\w+)(?:\["?(?P<key>[^"\]]*)"?\])?')


@dataclass(frozen=True)
class Managed:
    """A managed object: its reference, and a function per property that is set."""

    reference: Reference
    properties: Mapping[str, Callable[[], Any]]

    @property
    def kind(self) -> Any:
        return self.reference.__class__

    def value(self, path: str) -> Any:
        """What a property path holds, typed for the wire; None when unset.

        Raises VimFault (InvalidProperty) for a path that the type does not have.
        """
        holder: Any = self.kind
        value: Any = self
        info: Any = None
        for step in _steps(path):
            info = _info(holder, step["name"], path)
            value = self._next(value, step["name"])
            if step["key"] is not None:
                if not issubclass(info.type, list):
                    raise invalid_property(path)
                value = _by_key(value, step["key"])
                info = support.Object(type=info.type.Item)
            holder = value.__class__ if value is not None else info.type
        return typed(value, info.type)

    def _next(self, value: Any, name: str) -> Any:
        if value is None:
            return None
        if value is self:
            read = self.properties.get(name)
            return read() if read else None
        return getattr(value, name)

    def all_paths(self) -> list[str]:
        """The names of all properties that are set."""
        return list(self.properties)


def _steps(path: str) -> list[re.Match[str]]:
    steps: list[re.Match[str]] = []
    position = 0
    while True:
        match = _STEP.match(path, position)
        if not match:
            raise invalid_property(path)
        steps.append(match)
        position = match.end()
        if position == len(path):
            return steps
        if path[position] != ".":
            raise invalid_property(path)
        position += 1


def _info(holder: Any, name: str, path: str) -> Any:
    try:
        return holder._GetPropertyInfo(name)
    except AttributeError:
        raise invalid_property(path) from None


def _by_key(values: Any, key: str) -> Any:
    for value in values or []:
        if str(getattr(value, "key", None)) == key:
            return value
    return None


def typed(value: Any, kind: Any) -> Any:
    """A value as its declared type, so that an `anyType` on the wire names it."""
    if value is None:
        return None
    if issubclass(kind, list):
        return kind(value)
    if issubclass(kind, support.Enum) or kind is support.long:
        return kind(value)
    return value
