"""The server itself."""

from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


@dataclass(eq=False)
class TooManyStreams(SendenseError):
    """The hub serves as many streams of the kind as it may."""

    code: ClassVar[str] = "TOO_MANY_STREAMS"
    status: ClassVar[StatusCode] = StatusCode.RESOURCE_EXHAUSTED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "{limit} {kind} streams are open, which is the limit; try again later"

    kind: str
    limit: int


@dataclass(eq=False)
class HubStopping(SendenseError):
    """The hub is shutting down."""

    code: ClassVar[str] = "HUB_STOPPING"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the hub is shutting down; try again when it serves again"
