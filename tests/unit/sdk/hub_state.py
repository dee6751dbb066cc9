"""What the hub of the client's tests answers, and what it was asked."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

import grpc

from sendense.v1 import (
    backup_pb2,
    context_pb2,
    hub_pb2,
    inventory_pb2,
    repository_pb2,
    restore_pb2,
    statistics_pb2,
)
from shared.errors import SendenseError
from shared.grpc_errors import abort_with

Part = restore_pb2.RestoreDiskResponse
Failure = grpc.StatusCode | SendenseError


@dataclass(eq=False)
class _Refused(SendenseError):
    text: ClassVar[str] = "{sentence}"

    sentence: str


def refused(
    sentence: str,
    *,
    status: grpc.StatusCode = grpc.StatusCode.NOT_FOUND,
    code: str = "JOB_NOT_FOUND",
    **facts: str,
) -> SendenseError:
    """An error as the hub sends them, with whatever code, status and metadata a test needs."""
    error = type("_RefusedSo", (_Refused,), {"status": status, "code": code})(sentence)
    known = error.facts() | facts
    error.facts = lambda: known
    return error


@dataclass
class Seen:
    """One request as it arrived."""

    rpc: str
    request: Any
    peer: str
    deadline_s: float | None


@dataclass
class HubState:
    """What the hub answers; a test fills it."""

    backups: list[backup_pb2.Backup] = field(default_factory=list)
    contexts: list[context_pb2.BackupContext] = field(default_factory=list)
    disks: list[backup_pb2.BackupDisk] = field(default_factory=list)
    repositories: list[repository_pb2.Repository] = field(default_factory=list)
    agents: list[inventory_pb2.Agent] = field(default_factory=list)
    virtual_machines: list[inventory_pb2.VirtualMachine] = field(default_factory=list)
    chain: context_pb2.GetChainResponse = field(default_factory=context_pb2.GetChainResponse)
    change_id: context_pb2.GetChangeIdResponse = field(
        default_factory=context_pb2.GetChangeIdResponse
    )
    checks: list[repository_pb2.RepositoryCheck] = field(default_factory=list)
    recovery: hub_pb2.RecoveryReportResponse = field(default_factory=hub_pb2.RecoveryReportResponse)
    statistics: statistics_pb2.GetStatisticsResponse = field(
        default_factory=statistics_pb2.GetStatisticsResponse
    )
    # Jobs that build on the job that is to be deleted, as metadata have them.
    dependants: str = ""
    # Jobs whose files the hub cannot remove at once.
    pending: list[str] = field(default_factory=list)
    # What the next calls of an RPC fail with, one each.
    failures: dict[str, list[Failure]] = field(default_factory=lambda: defaultdict(list))
    # What each further WatchBackup sends: states, then perhaps a failure.
    watches: list[Iterable[backup_pb2.Backup | Failure]] = field(default_factory=list)
    restore: Callable[[], Iterable[Part | Failure]] = list
    seen: list[Seen] = field(default_factory=list)
    # RPCs that answer only when `released`; `held` is set when one waits.
    hold: set[str] = field(default_factory=set)
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    stream_ended: threading.Event = field(default_factory=threading.Event)

    def requests(self, rpc: str) -> list[Any]:
        """What was asked of one RPC."""
        return [item.request for item in self.seen if item.rpc == rpc]

    def enter(self, rpc: str, request: Any, context: grpc.ServicerContext) -> None:
        """Record a call, hold it, fail it, as the test said."""
        kept = type(request)()
        kept.CopyFrom(request)
        self.seen.append(Seen(rpc, kept, context.peer(), context.time_remaining()))
        if rpc in self.hold:
            self.held.set()
            self.released.wait(30)
        if self.failures[rpc]:
            fail(context, self.failures[rpc].pop(0))

    def page(self, items: list[Any], request: Any) -> tuple[list[Any], str]:
        """The page asked for, and the token of the next one."""
        start = int(request.page_token or 0)
        end = start + (request.page_size or 100)
        return items[start:end], str(end) if end < len(items) else ""


def find(items: list[Any], name: str, value: str, code: str) -> Any:
    """The item whose field `name` is `value`. Raises SendenseError, as the hub's own error."""
    for item in items:
        if getattr(item, name) == value:
            return item
    raise refused(f"{name} {value} does not exist", code=code)


def fail(context: grpc.ServicerContext, failure: Failure) -> NoReturn:
    """End an RPC as the real hub would, or as a proxy that knows nothing of Sendense would."""
    if isinstance(failure, grpc.StatusCode):
        context.abort(failure, f"plain {failure.name}")
        raise AssertionError("abort returned")
    abort_with(context, failure)
