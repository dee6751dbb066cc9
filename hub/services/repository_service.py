"""RepositoryService."""

import grpc

from hub.jobs.manage_repositories import (
    delete_repository,
    make_repository,
    rename_repository,
    set_default_repository,
    set_disabled,
    try_repository,
)
from hub.jobs.parts import Parts
from hub.jobs.repository_states import get_repository, list_repositories
from hub.services.place_messages import repository_message
from sendense.v1 import repository_pb2 as pb
from sendense.v1.repository_pb2_grpc import RepositoryServiceServicer
from shared.grpc_errors import status_from


class RepositoryService(RepositoryServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def CreateRepository(
        self, request: pb.CreateRepositoryRequest, context: grpc.ServicerContext
    ) -> pb.CreateRepositoryResponse:
        with status_from(context):
            made = make_repository(
                self._parts, name=request.name, path=request.path, default=request.make_default
            )
            return pb.CreateRepositoryResponse(repository=repository_message(made))

    def GetRepository(
        self, request: pb.GetRepositoryRequest, context: grpc.ServicerContext
    ) -> pb.GetRepositoryResponse:
        with status_from(context):
            found = get_repository(self._parts, request.repository)
            return pb.GetRepositoryResponse(repository=repository_message(found))

    def ListRepositories(
        self, request: pb.ListRepositoriesRequest, context: grpc.ServicerContext
    ) -> pb.ListRepositoriesResponse:
        with status_from(context):
            found, next_token = list_repositories(
                self._parts, page_size=request.page_size, page_token=request.page_token
            )
            return pb.ListRepositoriesResponse(
                repositories=[repository_message(one) for one in found],
                next_page_token=next_token,
            )

    def TestRepository(
        self, request: pb.TestRepositoryRequest, context: grpc.ServicerContext
    ) -> pb.TestRepositoryResponse:
        with status_from(context):
            tried, checks = try_repository(self._parts, request.repository)
            return pb.TestRepositoryResponse(
                repository=repository_message(tried),
                checks=[
                    pb.RepositoryCheck(name=one.name, passed=one.passed, message=one.message)
                    for one in checks
                ],
                passed=all(one.passed for one in checks),
            )

    def RenameRepository(
        self, request: pb.RenameRepositoryRequest, context: grpc.ServicerContext
    ) -> pb.RenameRepositoryResponse:
        with status_from(context):
            renamed = rename_repository(self._parts, request.repository, request.new_name)
            return pb.RenameRepositoryResponse(repository=repository_message(renamed))

    def SetDefaultRepository(
        self, request: pb.SetDefaultRepositoryRequest, context: grpc.ServicerContext
    ) -> pb.SetDefaultRepositoryResponse:
        with status_from(context):
            changed = set_default_repository(self._parts, request.repository)
            return pb.SetDefaultRepositoryResponse(repository=repository_message(changed))

    def DisableRepository(
        self, request: pb.DisableRepositoryRequest, context: grpc.ServicerContext
    ) -> pb.DisableRepositoryResponse:
        with status_from(context):
            changed = set_disabled(self._parts, request.repository, True)
            return pb.DisableRepositoryResponse(repository=repository_message(changed))

    def EnableRepository(
        self, request: pb.EnableRepositoryRequest, context: grpc.ServicerContext
    ) -> pb.EnableRepositoryResponse:
        with status_from(context):
            changed = set_disabled(self._parts, request.repository, False)
            return pb.EnableRepositoryResponse(repository=repository_message(changed))

    def DeleteRepository(
        self, request: pb.DeleteRepositoryRequest, context: grpc.ServicerContext
    ) -> pb.DeleteRepositoryResponse:
        with status_from(context):
            deleted = delete_repository(self._parts, request.repository)
            return pb.DeleteRepositoryResponse(repository=repository_message(deleted))
