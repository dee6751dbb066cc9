"""What can go wrong in a repository, and OSError translated into it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError

# EFBIG: the file system (or a limit set for the hub) takes no longer file.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNUSABLE = frozenset(
    {
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOTDIR,
    }
)


@dataclass(eq=False)
class RepositoryFull(SendenseError):
    """The repository's file system takes no more bytes."""

    code: ClassVar[str] = "REPOSITORY_FULL"
    status: ClassVar[StatusCode] = StatusCode.RESOURCE_EXHAUSTED
    text: ClassVar[str] = "no space left for {path}: make room in the repository, then start again"

    path: str


@dataclass(eq=False)
class RepositoryUnusable(SendenseError):
    """The repository's folder is missing, not ours or not writable."""

    code: ClassVar[str] = "REPOSITORY_UNUSABLE"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "repository {path}: {problem}"

    path: str
    problem: str


@dataclass(eq=False)
class LayerWriteFailed(SendenseError):
    """A layer could not be written; its job fails, its files are discarded."""

    code: ClassVar[str] = "LAYER_WRITE_FAILED"
    status: ClassVar[StatusCode] = StatusCode.INTERNAL
    text: ClassVar[str] = "layer {path} was not written: {problem}"

    path: str
    problem: str


@dataclass(eq=False)
class LayerInUse(SendenseError):
    """Somebody writes the layer now: another hub, or a thread of this one that hangs in a sync."""

    code: ClassVar[str] = "LAYER_IN_USE"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "layer {path} is being written: is there another hub on this repository, or does its "
        "file system hang?"
    )

    path: str


@dataclass(eq=False)
class LayerDamaged(SendenseError):
    """A sealed layer or its manifest is missing or not what was sealed."""

    code: ClassVar[str] = "LAYER_DAMAGED"
    status: ClassVar[StatusCode] = StatusCode.DATA_LOSS
    text: ClassVar[str] = "layer {path} cannot be used: {problem}"

    path: str
    problem: str


def translated(error: OSError, path: Path | str) -> SendenseError:
    """The repository's error for a failed system call on `path`."""
    if error.errno in _FULL:
        return RepositoryFull(str(path))
    problem = error.strerror or str(error)
    if error.errno in _UNUSABLE:
        return RepositoryUnusable(str(path), problem)
    return LayerWriteFailed(str(path), problem)


@contextmanager
def os_errors_of(path: Path | str) -> Iterator[None]:
    """Translate an OSError raised inside."""
    try:
        yield
    except OSError as error:
        raise translated(error, path) from error
