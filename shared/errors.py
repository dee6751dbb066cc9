"""The errors of Sendense: classes with facts, a stable code and a gRPC status.

Code raises these; the edges (gRPC, command line, log) phrase them. A code is
part of the contract: it is `google.rpc.ErrorInfo.reason` on the wire and
`BackupError.reason` in the catalog.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from grpc import StatusCode


@dataclass(eq=False)
class SendenseError(Exception):
    """Base of all errors that people and programs are told of.

    Subclasses are dataclasses: fields are facts, `code` is stable, `text` says
    what happened to which object and what to do next.
    """

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[StatusCode] = StatusCode.INTERNAL
    retryable: ClassVar[bool] = False
    text: ClassVar[str] = "internal error"

    def __str__(self) -> str:
        return self.text.format(**{f.name: getattr(self, f.name) for f in fields(self)})

    def facts(self) -> dict[str, str]:
        """The fields as strings, for ErrorInfo.metadata and log lines."""
        facts: dict[str, str] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (list, tuple, set, frozenset)):
                facts[field.name] = ",".join(str(item) for item in value)
            elif value is not None:
                facts[field.name] = str(value)
        return facts


@dataclass(eq=False)
class InvalidArgument(SendenseError):
    """A request field cannot be used as given."""

    code: ClassVar[str] = "INVALID_ARGUMENT"
    status: ClassVar[StatusCode] = StatusCode.INVALID_ARGUMENT
    text: ClassVar[str] = "{field}: {problem}"

    field: str
    problem: str


@dataclass(eq=False)
class InvalidRequest(SendenseError):
    """Several fields of a request cannot be used as given."""

    code: ClassVar[str] = InvalidArgument.code
    status: ClassVar[StatusCode] = StatusCode.INVALID_ARGUMENT

    violations: Sequence[InvalidArgument]

    def __str__(self) -> str:
        return "; ".join(map(str, self.violations))

    def facts(self) -> dict[str, str]:
        """The names of the fields."""
        return {"fields": ",".join(each.field for each in self.violations)}


@dataclass(eq=False)
class ConfigurationError(SendenseError):
    """The configuration file or environment cannot be used."""

    code: ClassVar[str] = "CONFIGURATION"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "{source}: {problem}"

    source: str
    problem: str
