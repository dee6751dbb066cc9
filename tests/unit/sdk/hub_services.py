"""The services of the hub of the client's tests: one answer for every public RPC."""

import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import grpc
from google.protobuf import message_factory

import sendense.v1
from sendense.v1 import backup_pb2, context_pb2, inventory_pb2, repository_pb2
from shared.errors import SendenseError
from tests.unit.sdk.hub_state import HubState, Part, fail, find, refused

# What agents call; everything else is for people and programs.
OF_AGENTS = {"AgentSessionService", "UploadService"}

Status = grpc.StatusCode


def public_services() -> list[Any]:
    """The descriptors of all services that people and programs use, of every proto file."""
    names = [module.name for module in pkgutil.iter_modules(sendense.v1.__path__)]
    return [
        service
        for name in sorted(names)
        if name.endswith("_pb2")
        for service in import_module(f"sendense.v1.{name}").DESCRIPTOR.services_by_name.values()
        if service.name not in OF_AGENTS
    ]


def public_rpcs() -> list[str]:
    """The names of all RPCs of these services."""
    return sorted(method.name for service in public_services() for method in service.methods)


def add_services(server: grpc.Server, state: HubState) -> None:
    """Answer every public RPC from `state`. Raises KeyError for an RPC that nobody answers here."""
    for service in public_services():
        handlers = {method.name: _handler(method, state) for method in service.methods}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service.full_name, handlers),)
        )


def _handler(method: Any, state: HubState) -> grpc.RpcMethodHandler:
    request_class = message_factory.GetMessageClass(method.input_type)
    response_class = message_factory.GetMessageClass(method.output_type)
    if method.server_streaming:
        stream = STREAMS[method.name]

        def send(request: Any, context: Any) -> Iterator[Any]:
            context.add_callback(state.stream_ended.set)
            state.enter(method.name, request, context)
            yield from stream(state, context)

        return grpc.unary_stream_rpc_method_handler(
            send, request_class.FromString, response_class.SerializeToString
        )
    answer = ANSWERS[method.name]

    def reply(request: Any, context: Any) -> Any:
        state.enter(method.name, request, context)
        try:
            return response_class(**answer(state, request))
        except SendenseError as error:
            fail(context, error)

    return grpc.unary_unary_rpc_method_handler(
        reply, request_class.FromString, response_class.SerializeToString
    )


def _job(state: HubState, job_id: str) -> backup_pb2.Backup:
    return find(state.backups, "job_id", job_id, "JOB_NOT_FOUND")


def _start(state: HubState, request: Any) -> dict[str, Any]:
    job = backup_pb2.Backup(job_id=f"backup-{request.vm}-1", vm_name=request.vm, status=1)
    state.backups.insert(0, job)
    return {"backup": job}


def _retry(state: HubState, request: Any) -> dict[str, Any]:
    of = _job(state, request.job_id)
    job = backup_pb2.Backup(job_id=f"{of.job_id}-again", retry_of_job_id=of.job_id, status=1)
    state.backups.insert(0, job)
    return {"backup": job}


def _delete(state: HubState, request: Any) -> dict[str, Any]:
    job = _job(state, request.job_id)
    if state.dependants and not request.cascade:
        raise refused(
            f"later backups build on {job.job_id}",
            status=Status.FAILED_PRECONDITION,
            code="JOB_HAS_DEPENDANTS",
            dependants=state.dependants,
        )
    others = [item for item in state.dependants.split(",") if item]
    return _deleted(state, [*reversed(others), job.job_id])


def _deleted(state: HubState, job_ids: list[str]) -> dict[str, Any]:
    gone = [job for job in state.backups if job.job_id in job_ids]
    state.backups = [job for job in state.backups if job not in gone]
    deleted = backup_pb2.DeletedBackups(
        job_ids=job_ids,
        bytes_stored=sum(job.bytes_stored for job in gone),
        pending_job_ids=state.pending,
    )
    return {"deleted": deleted}


def _context(state: HubState, request: Any) -> context_pb2.BackupContext:
    return find(state.contexts, "context_id", request.context_id, "CONTEXT_NOT_FOUND")


def _delete_context(state: HubState, request: Any) -> dict[str, Any]:
    _context(state, request)
    return _deleted(state, [job.job_id for job in state.backups])


def _disk(state: HubState, request: Any) -> dict[str, Any]:
    chain = [disk for disk in state.disks if disk.disk_index == request.disk_index]
    if not chain:
        raise refused("no such disk", code="DISK_NOT_FOUND")
    return {"disk": chain[0], "chain": chain}


def _fields(message: Any) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields()}


def _create(state: HubState, request: Any) -> dict[str, Any]:
    made = repository_pb2.Repository(repository_id="repo-1", name=request.name, path=request.path)
    state.repositories.append(made)
    return {"repository": made}


def _repository(state: HubState, request: Any) -> repository_pb2.Repository:
    return find(state.repositories, "name", request.repository, "REPOSITORY_NOT_FOUND")


def _changed(**changes: Callable[[Any], Any]) -> Callable[[HubState, Any], dict[str, Any]]:
    def answer(state: HubState, request: Any) -> dict[str, Any]:
        item = _repository(state, request)
        for name, value in changes.items():
            setattr(item, name, value(request))
        return {"repository": item}

    return answer


def _delete_repository(state: HubState, request: Any) -> dict[str, Any]:
    item = _repository(state, request)
    state.repositories.remove(item)
    return {"repository": item}


def _test(state: HubState, request: Any) -> dict[str, Any]:
    passed = all(check.passed for check in state.checks)
    return {"repository": _repository(state, request), "checks": state.checks, "passed": passed}


def _agent(state: HubState, request: Any) -> inventory_pb2.Agent:
    return find(state.agents, "site", request.site, "AGENT_NOT_FOUND")


def _draining(wanted: bool) -> Callable[[HubState, Any], dict[str, Any]]:
    def answer(state: HubState, request: Any) -> dict[str, Any]:
        agent = _agent(state, request)
        agent.draining = wanted
        return {"agent": agent}

    return answer


def _remove_agent(state: HubState, request: Any) -> dict[str, Any]:
    agent = _agent(state, request)
    state.agents.remove(agent)
    return {"agent": agent}


def _listed(name: str, of: str) -> Callable[[HubState, Any], dict[str, Any]]:
    def answer(state: HubState, request: Any) -> dict[str, Any]:
        page, token = state.page(getattr(state, of), request)
        return {name: page, "next_page_token": token}

    return answer


ANSWERS: dict[str, Callable[[HubState, Any], dict[str, Any]]] = {
    "StartBackup": _start,
    "GetBackup": lambda state, request: {"backup": _job(state, request.job_id)},
    "ListBackups": _listed("backups", "backups"),
    "CancelBackup": lambda state, request: {"backup": _job(state, request.job_id)},
    "RetryBackup": _retry,
    "DeleteBackup": _delete,
    "GetContext": lambda state, request: {"context": _context(state, request)},
    "ListContexts": _listed("contexts", "contexts"),
    "DeleteContext": _delete_context,
    "GetDisk": _disk,
    "ListDisks": _listed("disks", "disks"),
    "GetChain": lambda state, request: _fields(state.chain),
    "GetChangeId": lambda state, request: _fields(state.change_id),
    "CreateRepository": _create,
    "GetRepository": lambda state, request: {"repository": _repository(state, request)},
    "ListRepositories": _listed("repositories", "repositories"),
    "TestRepository": _test,
    "RenameRepository": _changed(name=lambda request: request.new_name),
    "SetDefaultRepository": _changed(is_default=lambda request: True),
    "DisableRepository": _changed(disabled=lambda request: True),
    "EnableRepository": _changed(disabled=lambda request: False),
    "DeleteRepository": _delete_repository,
    "ListAgents": _listed("agents", "agents"),
    "GetAgent": lambda state, request: {"agent": _agent(state, request)},
    "DrainAgent": _draining(True),
    "ResumeAgent": _draining(False),
    "RecoveryReport": lambda state, request: _fields(state.recovery),
    "RemoveAgent": _remove_agent,
    "ListVirtualMachines": _listed("virtual_machines", "virtual_machines"),
    "GetStatistics": lambda state, request: _fields(state.statistics),
}


def _watch(state: HubState, context: Any) -> Iterator[Any]:
    for item in state.watches.pop(0) if state.watches else ():
        if isinstance(item, backup_pb2.Backup):
            yield backup_pb2.WatchBackupResponse(backup=item)
        else:
            fail(context, item)


def _restore(state: HubState, context: Any) -> Iterator[Any]:
    for item in state.restore():
        if isinstance(item, Part):
            yield item
        else:
            fail(context, item)


STREAMS: dict[str, Callable[[HubState, Any], Iterator[Any]]] = {
    "WatchBackup": _watch,
    "RestoreDisk": _restore,
}
