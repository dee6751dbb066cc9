"""The tables of an earlier system that an import reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

JOBS, DISKS, CONTEXTS, REPOSITORIES = (
    "backup_jobs",
    "backup_disks",
    "vm_backup_contexts",
    "backup_repositories",
)
# What is asked for where a table has it; other columns are of no use here.
COLUMNS: Final[Mapping[str, frozenset[str]]] = {
    JOBS: frozenset(
        [
            "id",
            "disk_id",
            "change_id",
            "vm_name",
            "repository_id",
            "repository_path",
            "parent_backup_id",
            "backup_type",
            "status",
            "created_at",
            "started_at",
            "completed_at",
            "bytes_transferred",
            "vm_context_id",
            "vm_backup_context_id",
        ]
    ),
    DISKS: frozenset(
        [
            "id",
            "vm_backup_context_id",
            "backup_job_id",
            "disk_index",
            "vmware_disk_key",
            "size_gb",
            "disk_change_id",
            "qcow2_path",
            "bytes_transferred",
            "status",
            "created_at",
            "completed_at",
        ]
    ),
    CONTEXTS: frozenset(
        [
            "context_id",
            "vm_name",
            "vmware_vm_id",
            "vcenter_host",
            "repository_id",
            "instance_uuid",
            "vm_instance_uuid",
            "created_at",
        ]
    ),
    REPOSITORIES: frozenset(
        ["id", "name", "path", "base_path", "mount_path", "mount_point", "config"]
    ),
}
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OldTables:
    """Rows by table, ordered by their first column's text; a table that is missing is empty."""

    rows: Mapping[str, Sequence[Row]]
    columns: Mapping[str, frozenset[str]]
