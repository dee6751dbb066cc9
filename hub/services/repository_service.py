"""RepositoryService."""

import grpc

from hub.catalog.models import BackupRepository
from hub.catalog.repositories import all_repositories, find_repository
from hub.jobs.parts import Parts
from hub.jobs.repositories import create_repository, open_repository
from hub.services.messages import timestamp
from sendense.v1 import repository_pb2 as pb
from sendense.v1.repository_pb2_grpc import RepositoryServiceServicer
from shared.errors import SendenseError
from shared.grpc_errors import status_from


class RepositoryService(RepositoryServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def CreateRepository(
        self, request: pb.CreateRepositoryRequest, context: grpc.ServicerContext
    ) -> pb.CreateRepositoryResponse:
        with status_from(context):
            row = create_repository(
                self._parts, name=request.name, path=request.path, default=request.make_default
            )
            return pb.CreateRepositoryResponse(repository=repository_message(row))

    def GetRepository(
        self, request: pb.GetRepositoryRequest, context: grpc.ServicerContext
    ) -> pb.GetRepositoryResponse:
        with status_from(context):
            with self._parts.catalog.read() as session:
                row = find_repository(session, request.repository)
            return pb.GetRepositoryResponse(repository=repository_message(row))

    def ListRepositories(
        self, request: pb.ListRepositoriesRequest, context: grpc.ServicerContext
    ) -> pb.ListRepositoriesResponse:
        with status_from(context):
            with self._parts.catalog.read() as session:
                rows = all_repositories(session)
            return pb.ListRepositoriesResponse(repositories=[repository_message(r) for r in rows])


def repository_message(row: BackupRepository) -> pb.Repository:
    """A repository and how its folder is now."""
    message = pb.Repository(
        repository_id=row.id,
        name=row.name,
        path=row.path,
        is_default=row.is_default,
        created_at=timestamp(row.created_at),
    )
    try:
        repository = open_repository(row)
        repository.check_writable()
        space = repository.space()
    except SendenseError as error:
        message.problem = str(error)
    else:
        message.total_bytes = space.total_bytes
        message.free_bytes = space.free_bytes
    return message
