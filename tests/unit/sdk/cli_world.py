"""One VM with a job, a context, a repository and a site, as the command's tests see them."""

from google.protobuf.timestamp_pb2 import Timestamp

from sendense.v1 import backup_pb2, context_pb2, inventory_pb2, repository_pb2
from tests.unit.sdk.hub_state import HubState

JOB_ID = "backup-pgtest1-1759946759"


def job(status: int = 3, **fields: object) -> backup_pb2.Backup:
    return backup_pb2.Backup(
        job_id=JOB_ID,
        context_id="ctx-backup-pgtest1-1759943531",
        vm_name="pgtest1",
        site="site-1",
        repository_name="default",
        backup_type=2,
        status=status,
        created_at=Timestamp(seconds=1759946759),
        started_at=Timestamp(seconds=1759946760),
        completed_at=Timestamp(seconds=1759946885),
        disk_count=1,
        bytes_planned=3 << 30,
        bytes_read=3 << 30,
        bytes_transferred=300 << 20,
        bytes_stored=301 << 20,
        disks=[disk(status)],
        **fields,
    )


def disk(status: int = 3) -> backup_pb2.BackupDisk:
    return backup_pb2.BackupDisk(
        disk_id=7,
        job_id=JOB_ID,
        disk_index=0,
        vmware_disk_key=2000,
        label="Hard disk 1",
        capacity_bytes=102 << 30,
        backup_type=2,
        base_job_id="backup-pgtest1-1",
        disk_change_id="52 de c0/12",
        bytes_planned=3 << 30,
        bytes_read=3 << 30,
        bytes_transferred=300 << 20,
        root_digest="ab" * 32 if status == 3 else "",
        status=status,
    )


def furnish(state: HubState) -> None:
    """Let the hub answer with these."""
    state.backups = [job()]
    state.disks = [disk()]
    state.contexts = [
        context_pb2.BackupContext(
            context_id="ctx-1",
            vm_name="pgtest1",
            total_backups_run=4,
            successful_backups=3,
            failed_backups=1,
            last_backup_type=2,
        )
    ]
    state.repositories = [
        repository_pb2.Repository(
            repository_id="repo-1",
            name="default",
            path="/srv/backups",
            is_default=True,
            total_bytes=1 << 40,
            free_bytes=1 << 38,
        )
    ]
    vsphere = inventory_pb2.VsphereEndpoint(address="10.0.0.5", full_name="VMware ESXi 8.0.3")
    state.agents = [inventory_pb2.Agent(site="site-1", connected=True, vsphere=vsphere, vm_count=5)]
    independent = inventory_pb2.VirtualDisk(
        label="Hard disk 2", capacity_bytes=1 << 30, not_protectable_reason="independent"
    )
    state.virtual_machines = [
        inventory_pb2.VirtualMachine(
            name="pgtest1",
            site="site-1",
            vmware_vm_id="vm-12",
            power_state="poweredOn",
            disks=[independent],
        )
    ]


def lines(text: str) -> list[str]:
    """The lines that say something, with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]
