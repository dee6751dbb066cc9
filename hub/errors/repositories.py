"""Repositories."""

from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


@dataclass(eq=False)
class RepositoryNotFound(SendenseError):
    """No repository has that name or id."""

    code: ClassVar[str] = "REPOSITORY_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "there is no repository {repository!r}; sendense repository list shows all"
    )

    repository: str


@dataclass(eq=False)
class NoDefaultRepository(SendenseError):
    """No repository was named and none is the default."""

    code: ClassVar[str] = "REPOSITORY_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "no repository was named and none is the default one; name one, make one the default "
        "with sendense repository set-default, or make a first one with sendense repository create"
    )


@dataclass(eq=False)
class RepositoryExists(SendenseError):
    """A repository has that name or folder."""

    code: ClassVar[str] = "REPOSITORY_EXISTS"
    status: ClassVar[StatusCode] = StatusCode.ALREADY_EXISTS
    text: ClassVar[str] = "repository {name!r} exists, in {path}"

    name: str
    path: str


@dataclass(eq=False)
class RepositoryDisabled(SendenseError):
    """No new backup may start in the repository."""

    code: ClassVar[str] = "REPOSITORY_DISABLED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "repository {repository!r} is disabled; enable it with "
        "sendense repository enable, or name another one"
    )

    repository: str


@dataclass(eq=False)
class RepositoryNotEmpty(SendenseError):
    """The repository has contexts, or files of deleted jobs that could not be removed yet."""

    code: ClassVar[str] = "REPOSITORY_NOT_EMPTY"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "repository {repository!r} still has {count} {problem}; delete each context with "
        "sendense context delete, also one without jobs; "
        "sendense context list --repository {repository} shows all"
    )

    repository: str
    contexts: int
    problem: str

    def __str__(self) -> str:
        if self.contexts:
            count = "1 context" if self.contexts == 1 else f"{self.contexts} contexts"
            return self.text.format(repository=self.repository, count=count, problem=self.problem)
        return (
            f"repository {self.repository!r} is not empty: {self.problem}; "
            "the hub goes on with it, see its log"
        )


@dataclass(eq=False)
class RepositoryIsDefault(SendenseError):
    """The default repository is not deleted while there are others."""

    code: ClassVar[str] = "REPOSITORY_IS_DEFAULT"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "repository {repository!r} is the default one; make another one the default "
        "with sendense repository set-default, then delete it"
    )

    repository: str
