"""Requests of the protos, made from values of callers: what does not fit is InvalidArgument."""

from collections.abc import Callable
from datetime import datetime
from typing import ParamSpec, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sendense.errors import InvalidArgument
from sendense.models import OpenEnum

P = ParamSpec("P")
Request = TypeVar("Request", bound=Message)


def build(kind: Callable[P, Request], *args: P.args, **fields: P.kwargs) -> Request:
    """`kind(**fields)`. Raises InvalidArgument naming each field whose value does not fit."""
    try:
        return kind(*args, **fields)
    except (TypeError, ValueError) as error:
        # protobuf does not always say which field it was.
        violations = [
            (name, problem)
            for name, value in fields.items()
            if (problem := _problem(kind, name, value))
        ]
        if not violations:
            raise
        message = "; ".join(f"{name}: {problem}" for name, problem in violations)
        raise InvalidArgument(message, violations=violations) from error


def choice(name: str, kind: type[OpenEnum], value: object) -> str:
    """The name that the protos give to a member of an enumeration. Raises InvalidArgument."""
    for member in kind:
        if value == member:
            return member.proto_name
    problem = f"{value!r} is no {kind.__name__}"
    raise InvalidArgument(f"{name}: {problem}", violations=[(name, problem)])


def moment(name: str, value: datetime | None) -> Timestamp | None:
    """A time as the protos have it. Raises InvalidArgument for one without a time zone."""
    if value is None:
        return None
    if not isinstance(value, datetime) or value.utcoffset() is None:
        problem = "must have a time zone, such as datetime.now(UTC)"
        raise InvalidArgument(f"{name}: {problem}", violations=[(name, problem)])
    timestamp = Timestamp()
    try:
        timestamp.FromDatetime(value)
    except (ValueError, OverflowError) as error:
        problem = "must be between the years 1 and 9999 in UTC"
        raise InvalidArgument(f"{name}: {problem}", violations=[(name, problem)]) from error
    return timestamp


def _problem(kind: Callable[..., Message], name: str, value: object) -> str:
    """Why a field of a request cannot have that value; empty when it can."""
    try:
        kind(**{name: value})
    except UnicodeError:
        return "is no text"
    except ValueError:
        return f"{value!r} is out of range"
    except TypeError:
        return f"{value!r} is of the wrong type"
    return ""
