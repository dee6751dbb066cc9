"""What ends a probe early."""

from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


@dataclass(eq=False)
class VmNotThere(SendenseError):
    """No VM is called what the user asked for."""

    code: ClassVar[str] = "VM_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "vSphere at {address} shows no VM {vm!r} to this user; give its name, moref or instance "
        "uuid, or leave --vm out to see them all"
    )

    address: str
    vm: str


@dataclass(eq=False)
class ReadTooSlow(SendenseError):
    """The timed read did not end in the time that a look may take."""

    code: ClassVar[str] = "READ_TOO_SLOW"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the read did not end within {limit_s:g} s and was given up"

    limit_s: float
