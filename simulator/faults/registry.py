"""All kinds of faults by name, and making one from its options."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from simulator.faults import api_kinds, collector_kinds, nfc_kinds, tracking_kinds
from simulator.faults.kind import FaultKind

KINDS: Final[dict[str, type[FaultKind]]] = {
    kind.NAME: kind
    for module in (api_kinds, collector_kinds, tracking_kinds, nfc_kinds)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, FaultKind) and "NAME" in vars(kind)
}


class BadFault(ValueError):
    """The fault cannot be set; the text says why."""


def kind_of(name: str) -> type[FaultKind]:
    """The kind of a name. Raises BadFault."""
    try:
        return KINDS[name]
    except KeyError:
        raise BadFault(f"no fault is named {name!r}; there are: {', '.join(KINDS)}") from None


def make_fault(name: str, options: Mapping[str, Any]) -> FaultKind:
    """A fault from its options, as values or as text. Raises BadFault."""
    kind = kind_of(name)
    try:
        return kind(**options)
    except ValidationError as error:
        known = ", ".join(kind.model_fields) or "none"
        problems = "; ".join(
            ": ".join([*map(str, one["loc"]), one["msg"].removeprefix("Value error, ")])
            for one in error.errors()
        )
        raise BadFault(f"{name}: {problems} (options: {known})") from error


def described() -> list[dict[str, Any]]:
    """Each kind for people: name, scope, text, and its options with type and default."""
    return [
        {
            "name": kind.NAME,
            "scope": kind.SCOPE.name.lower(),
            "text": (kind.__doc__ or "").strip(),
            "options": [
                {"name": name, **_option(kind.model_json_schema(), name)}
                for name in kind.model_fields
            ],
        }
        for kind in KINDS.values()
    ]


def _option(schema: dict[str, Any], name: str) -> dict[str, Any]:
    one = schema["properties"][name]
    parts = list(_parts(one))
    values = next((part["enum"] for part in parts if "enum" in part), None)
    return {
        "type": " or ".join(part["type"] for part in parts if part["type"] != "null"),
        "values": values,
        "required": name in schema.get("required", []),
        "default": one.get("default"),
        "text": one.get("description", ""),
    }


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives of a schema, each with one type."""
    if "anyOf" not in schema:
        yield schema
    for part in schema.get("anyOf", []):
        yield from _parts(part)
