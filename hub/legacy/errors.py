"""What can go wrong with the programs that read other systems' layers."""

from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


@dataclass(eq=False)
class QemuMissing(SendenseError):
    """A program of QEMU is not installed on the hub."""

    code: ClassVar[str] = "QEMU_MISSING"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "imported restore points are read with {program}, which the hub's machine does not have: "
        "install QEMU's utilities there (package qemu-utils)"
    )

    program: str


class ImageUnfit(Exception):
    """A file is no layer that could be a restore point; the text says why, without its path."""


class NbdFailed(Exception):
    """The other side of an NBD connection ended it, was silent or answered with an error."""


@dataclass(eq=False)
class OldCatalogUnavailable(SendenseError):
    """The earlier system's database cannot be read."""

    code: ClassVar[str] = "OLD_CATALOG_UNAVAILABLE"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the old catalog {url} cannot be read: {problem}"

    url: str
    problem: str


class FolderUnsearchable(Exception):
    """A folder, or a file in it, may not be read; the text says which and why."""


@dataclass(eq=False)
class LayerNeeded(SendenseError):
    """A file that stays builds on an imported layer that is to be deleted."""

    code: ClassVar[str] = "LAYER_NEEDED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "{needed_by} builds on {path}, a layer of {job_id}, and is not deleted with it: copy the "
        "disk with qemu-img convert if it is wanted, move that file away, then delete again"
    )

    job_id: str
    path: str
    needed_by: str
