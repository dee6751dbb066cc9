"""Contexts: VMs in repositories."""

from collections.abc import Iterator

from sendense.api.connection import Connection
from sendense.requests import build
from sendense.v1 import backup_pb2, context_pb2, context_pb2_grpc


class ContextCalls(Connection):
    """ContextService."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        super().__init__(address, timeout_s=timeout_s)
        self._contexts = context_pb2_grpc.ContextServiceStub(self._channel)

    def get_context(self, context_id: str) -> context_pb2.BackupContext:
        """One VM in one repository. Raises NotFound (CONTEXT_NOT_FOUND)."""
        request = build(context_pb2.GetContextRequest, context_id=context_id)
        return self._call(self._contexts.GetContext, request).context

    def list_contexts(
        self, *, vm_name: str = "", repository: str = "", site: str = ""
    ) -> Iterator[context_pb2.BackupContext]:
        """Contexts ordered by VM name; pages are fetched as they are needed."""
        request = build(
            context_pb2.ListContextsRequest, vm_name=vm_name, repository=repository, site=site
        )
        return self._pages(self._contexts.ListContexts, request, lambda page: page.contexts)

    def delete_context(self, context_id: str) -> backup_pb2.DeletedBackups:
        """Delete a context with all its jobs and their files.

        Raises NotFound (CONTEXT_NOT_FOUND), FailedPrecondition (JOB_NOT_ENDED,
        RESTORE_RUNNING); nothing is deleted then.
        """
        request = build(context_pb2.DeleteContextRequest, context_id=context_id)
        return self._call(self._contexts.DeleteContext, request).deleted
