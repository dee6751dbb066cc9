"""The rules that the protos declare for the fields of requests (sendense/v1/field_rules.proto)."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sendense.v1 import field_rules_pb2
from sendense.v1.field_rules_pb2 import FieldRules
from shared.errors import InvalidArgument, InvalidRequest

DEFAULT_MAX_CHARS: Final = 256
# What is told of one request. It travels in the trailers, which have room for little.
MAX_VIOLATIONS: Final = 16
TIMESTAMP: Final = Timestamp.DESCRIPTOR.full_name
FIRST_SECOND: Final = -62_135_596_800  # 0001-01-01T00:00:00Z
LAST_SECOND: Final = 253_402_300_799  # 9999-12-31T23:59:59Z
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# The stubs call them field descriptors.
_FIELD_RULES: Final[Any] = field_rules_pb2.rules
_MESSAGE_RULES: Final[Any] = field_rules_pb2.message_rules

# The problem of a value, or "".
Check = Callable[[Any], str]


def check_request(request: Message) -> None:
    """Raises InvalidArgument for one violated rule, InvalidRequest for several."""
    found = violations(request)[:MAX_VIOLATIONS]
    if len(found) == 1:
        raise found[0]
    if found:
        raise InvalidRequest(found)


def violations(message: Message, prefix: str = "") -> list[InvalidArgument]:
    """What the message's fields violate, in their order; those of messages in it as `outer.inner`."""
    found = []
    for field, check in _checks(message.DESCRIPTOR):
        value = getattr(message, field.name)
        values = [*value] if field.is_repeated else [value]
        for index, each in enumerate(values):
            name = f"{prefix}{field.name}[{index}]" if field.is_repeated else prefix + field.name
            if problem := check(each):
                found.append(InvalidArgument(name, problem))
            elif _holds_rules(field) and (field.is_repeated or message.HasField(field.name)):
                found += violations(each, f"{name}.")
    return found + [
        InvalidArgument(f"{prefix}{group.fields[0]}", problem)
        for group, problem in _group_problems(message)
    ]


def _holds_rules(field: FieldDescriptor) -> bool:
    """Whether it is a message of ours, whose fields have rules."""
    kind = field.message_type
    return kind is not None and kind.file.package == field_rules_pb2.DESCRIPTOR.package


def _group_problems(message: Message) -> list[tuple[field_rules_pb2.FieldGroup, str]]:
    rules: field_rules_pb2.MessageRules = message.DESCRIPTOR.GetOptions().Extensions[_MESSAGE_RULES]
    found = []
    for group in rules.exactly_one:
        if sum(map(bool, _given(message, group))) != 1:
            found.append((group, f"give exactly one of {', '.join(group.fields)}"))
    for group in rules.at_most_one:
        if sum(map(bool, _given(message, group))) > 1:
            found.append((group, f"give at most one of {', '.join(group.fields)}"))
    return found


def _given(message: Message, group: field_rules_pb2.FieldGroup) -> Sequence[Any]:
    fields = message.DESCRIPTOR.fields_by_name
    return [
        message.HasField(name) if fields[name].has_presence else getattr(message, name)
        for name in group.fields
    ]


@cache
def _checks(descriptor: Descriptor) -> Sequence[tuple[FieldDescriptor, Check]]:
    """The fields of a message with what is asked of their values; raises for a rule on a field
    of a kind that it says nothing about."""
    return [(field, _check_of(field)) for field in descriptor.fields]


def _check_of(field: FieldDescriptor) -> Check:
    rules: FieldRules = field.GetOptions().Extensions[_FIELD_RULES]
    if field.type == FieldDescriptor.TYPE_STRING:
        kind, check = "text", _text_check(rules)
    elif field.enum_type is not None:
        kind, check = "enumeration", _enumeration_check(field.enum_type, rules)
    elif field.message_type is not None:
        kind, check = "message", _message_check(field.message_type, rules)
    elif field.cpp_type in _NUMBERS:
        kind, check = "number", _number_check(rules)
    else:
        kind, check = "other", _required_check(rules)
    strange = {each.name for each, _ in rules.ListFields()} - {"required"} - _RULES_OF[kind]
    if strange:
        raise ValueError(f"{field.full_name} is no field for the rules {sorted(strange)}")
    return check


_NUMBERS: Final = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)
_RULES_OF: Final = {
    "text": {"max_chars", "pattern", "pattern_means"},
    "number": {"minimum", "maximum"},
    "enumeration": set[str](),
    "message": set[str](),
    "other": set[str](),
}
_MISSING: Final = "must be given"


def _text_check(rules: FieldRules) -> Check:
    limit = rules.max_chars or DEFAULT_MAX_CHARS
    pattern = re.compile(rules.pattern, re.DOTALL) if rules.pattern else None

    def check(value: str) -> str:
        if not value.strip():
            # Spaces alone name nothing.
            return _MISSING if rules.required or value else ""
        if len(value) > limit:
            return f"has {len(value)} characters, at most {limit} are taken"
        if _CONTROL.search(value):
            return "has control characters"
        if pattern is not None and not pattern.fullmatch(value):
            return rules.pattern_means
        return ""

    return check


def _number_check(rules: FieldRules) -> Check:
    least = rules.minimum if rules.HasField("minimum") else None
    most = rules.maximum if rules.HasField("maximum") else None

    def check(value: int) -> str:
        if rules.required and not value:
            return _MISSING
        if (least is not None and value < least) or (most is not None and value > most):
            if most is None:
                return f"must be at least {least}"
            return (
                f"must be between {least} and {most}"
                if least is not None
                else f"must be at most {most}"
            )
        return ""

    return check


def _enumeration_check(enumeration: EnumDescriptor, rules: FieldRules) -> Check:
    names = [value.name for value in enumeration.values if value.number]

    def check(value: int) -> str:
        if not value:
            return _MISSING if rules.required else ""
        if value not in enumeration.values_by_number:
            return f"{value} is no {enumeration.name}: {', '.join(names)}"
        return ""

    return check


def _message_check(kind: Descriptor, rules: FieldRules) -> Check:
    is_time = kind.full_name == TIMESTAMP

    def check(value: Message) -> str:
        if rules.required and not value.ListFields():
            return _MISSING
        if (
            isinstance(value, Timestamp)
            and is_time
            and not (
                FIRST_SECOND <= value.seconds <= LAST_SECOND and 0 <= value.nanos < 1_000_000_000
            )
        ):
            return "is no time between the years 1 and 9999"
        return ""

    return check


def _required_check(rules: FieldRules) -> Check:
    return lambda value: _MISSING if rules.required and not value else ""
