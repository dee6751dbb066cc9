"""Repositories: the folders on the hub that hold the layers."""

from os import PathLike

from sendense.api.connection import Connection
from sendense.requests import build
from sendense.v1 import repository_pb2, repository_pb2_grpc


class RepositoryCalls(Connection):
    """RepositoryService. A repository is named by its name or id."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        super().__init__(address, timeout_s=timeout_s)
        self._repositories = repository_pb2_grpc.RepositoryServiceStub(self._channel)

    def create_repository(
        self, name: str, path: str | PathLike[str], *, make_default: bool = False
    ) -> repository_pb2.Repository:
        """Make (or adopt) a repository folder on the hub; `path` is absolute, there.

        Raises AlreadyExists (REPOSITORY_EXISTS), FailedPrecondition (REPOSITORY_UNUSABLE).
        """
        request = build(
            repository_pb2.CreateRepositoryRequest,
            name=name,
            path=str(path),
            make_default=make_default,
        )
        return self._call(self._repositories.CreateRepository, request).repository

    def get_repository(self, repository: str) -> repository_pb2.Repository:
        """One repository. Raises NotFound (REPOSITORY_NOT_FOUND)."""
        request = build(repository_pb2.GetRepositoryRequest, repository=repository)
        return self._call(self._repositories.GetRepository, request).repository

    def list_repositories(self) -> list[repository_pb2.Repository]:
        """All repositories ordered by name, with capacity and use."""
        request = repository_pb2.ListRepositoriesRequest()
        stub = self._repositories
        return list(self._pages(stub.ListRepositories, request, lambda page: page.repositories))

    def test_repository(self, repository: str) -> repository_pb2.TestRepositoryResponse:
        """Try a repository out; a check that fails is an answer, no error. Raises NotFound."""
        request = build(repository_pb2.TestRepositoryRequest, repository=repository)
        return self._call(self._repositories.TestRepository, request)

    def rename_repository(self, repository: str, new_name: str) -> repository_pb2.Repository:
        """Give a repository another name. Raises NotFound, AlreadyExists (REPOSITORY_EXISTS)."""
        request = build(
            repository_pb2.RenameRepositoryRequest, repository=repository, new_name=new_name
        )
        return self._call(self._repositories.RenameRepository, request).repository

    def set_default_repository(self, repository: str) -> repository_pb2.Repository:
        """Use a repository where a request names none.

        Raises NotFound, FailedPrecondition (REPOSITORY_DISABLED).
        """
        request = build(repository_pb2.SetDefaultRepositoryRequest, repository=repository)
        return self._call(self._repositories.SetDefaultRepository, request).repository

    def disable_repository(self, repository: str) -> repository_pb2.Repository:
        """Let no new backup start there; running ones, restores and deletions work. Raises NotFound."""
        request = build(repository_pb2.DisableRepositoryRequest, repository=repository)
        return self._call(self._repositories.DisableRepository, request).repository

    def enable_repository(self, repository: str) -> repository_pb2.Repository:
        """Let backups start there again. Raises NotFound."""
        request = build(repository_pb2.EnableRepositoryRequest, repository=repository)
        return self._call(self._repositories.EnableRepository, request).repository

    def delete_repository(self, repository: str) -> repository_pb2.Repository:
        """Forget a repository without contexts, and return it as it was.

        Raises NotFound, FailedPrecondition (REPOSITORY_NOT_EMPTY, REPOSITORY_IS_DEFAULT).
        """
        request = build(repository_pb2.DeleteRepositoryRequest, repository=repository)
        return self._call(self._repositories.DeleteRepository, request).repository
