"""What the shell offers for names and ids: asked from the hub, quickly or not at all."""

import re
import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

import typer

from sendense import Backup, BackupStatus, Client
from sendense.cli import text
from sendense.cli.state import State

# The person waits at a prompt: after this time there is nothing to offer.
DEADLINE_S: Final = 1.0
# The newest jobs and the first contexts; one page of a list.
AT_MOST: Final = 200

# A shell puts what is chosen into the command line as it is. Names come from guests and sites:
# those that a shell would take apart, expand or run are not offered.
_HARMLESS = re.compile(r"[\w@./][\w@%+=:,./-]*")

Offer = tuple[str, str]  # the word, and what it is


def jobs(context: typer.Context, incomplete: str) -> list[Offer]:
    """Job ids."""
    return _offered(context, incomplete, lambda client: _jobs(client))


def running_jobs(context: typer.Context, incomplete: str) -> list[Offer]:
    """Ids of jobs that have not ended."""
    wanted = (BackupStatus.RUNNING, BackupStatus.PENDING)
    return _offered(context, incomplete, lambda client: _jobs(client, *wanted))


def unsuccessful_jobs(context: typer.Context, incomplete: str) -> list[Offer]:
    """Ids of failed and cancelled jobs."""
    wanted = (BackupStatus.FAILED, BackupStatus.CANCELLED)
    return _offered(context, incomplete, lambda client: _jobs(client, *wanted))


def restore_points(context: typer.Context, incomplete: str) -> list[Offer]:
    """Ids of completed jobs."""
    return _offered(context, incomplete, lambda client: _jobs(client, BackupStatus.COMPLETED))


def disk_indexes(context: typer.Context, incomplete: str) -> list[Offer]:
    """Indexes of the disks of the job that was typed before."""
    job = str(context.params.get("job") or "")
    return _offered(
        context,
        incomplete,
        lambda client: _disks(client, job),
    )


def disk_indexes_of_vm(context: typer.Context, incomplete: str) -> list[Offer]:
    """Indexes of the disks in the last backup of the VM that was typed before."""
    vm, site, repository = (
        str(context.params.get(name) or "") for name in ("vm", "site", "repository")
    )

    def ask(client: Client) -> Iterable[Offer]:
        found = client.list_backups(
            vm_name=vm, repository=repository, status=BackupStatus.COMPLETED
        )
        for job in islice(found, AT_MOST):
            if site in ("", job.site):
                return _disks(client, job.job_id)
        return []

    return _offered(context, incomplete, ask)


def contexts(context: typer.Context, incomplete: str) -> list[Offer]:
    """Context ids."""
    return _offered(
        context,
        incomplete,
        lambda client: (
            (item.context_id, text.count(item.restore_point_count, "restore point"))
            for item in islice(client.list_contexts(), AT_MOST)
        ),
    )


def repositories(context: typer.Context, incomplete: str) -> list[Offer]:
    """Names of repositories."""
    return _offered(
        context,
        incomplete,
        lambda client: (
            (item.name, "disabled" if item.disabled else "repository")
            for item in client.list_repositories()
        ),
    )


def sites(context: typer.Context, incomplete: str) -> list[Offer]:
    """Names of sites."""
    return _offered(
        context,
        incomplete,
        lambda client: (
            (agent.site, "connected" if agent.connected else "away")
            for agent in client.list_agents()
        ),
    )


def virtual_machines(context: typer.Context, incomplete: str) -> list[Offer]:
    """Names of the VMs that the sites report."""
    return _offered(
        context,
        incomplete,
        lambda client: ((vm.name, "VM") for vm in client.list_virtual_machines()),
    )


def vms_backed_up(context: typer.Context, incomplete: str) -> list[Offer]:
    """Names of the VMs that have contexts."""
    return _offered(
        context,
        incomplete,
        lambda client: ((item.vm_name, "VM") for item in islice(client.list_contexts(), AT_MOST)),
    )


def _disks(client: Client, job_id: str) -> Iterable[Offer]:
    for disk in client.get_backup(job_id).disks:
        yield str(disk.disk_index), text.size(disk.capacity_bytes)


def _jobs(client: Client, *wanted: BackupStatus) -> Iterable[Offer]:
    for status in wanted or (BackupStatus.UNSPECIFIED,):
        for job in islice(client.list_backups(status=status), AT_MOST):
            yield job.job_id, _about(job)


def _about(job: Backup) -> str:
    return f"{text.status(job.status)}, {text.when(job.created_at)}"


def _offered(
    context: typer.Context, incomplete: str, ask: Callable[[Client], Iterable[Offer]]
) -> list[Offer]:
    """What the hub tells within the deadline, each word once; nothing after any error."""
    state = context.ensure_object(State)
    found: list[Offer] = []

    def collect() -> None:
        try:
            with state.client(timeout_s=DEADLINE_S) as client:
                found.extend(ask(client))
        except Exception:  # noqa: BLE001 - a message would stand in the middle of what is typed
            return

    # Each request has the deadline, several together have it by not being waited for.
    worker = threading.Thread(target=collect, name="completion", daemon=True)
    worker.start()
    worker.join(DEADLINE_S)
    offers: dict[str, str] = {}
    for word, about in list(found):
        if word.startswith(incomplete) and _HARMLESS.fullmatch(word):
            offers.setdefault(word, about)
    return list(offers.items())
