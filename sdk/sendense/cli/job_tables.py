"""Jobs and disks as tables."""

from sendense import Backup, BackupDisk
from sendense.cli import text
from sendense.cli.output import print_table
from sendense.cli.tables import Column, number, words


def print_jobs(jobs: list[Backup]) -> None:
    """A table of jobs."""
    print_table(
        (
            "Job",
            words("VM", spare=1),  # a job's id begins with it
            words("Site", spare=4),
            words("Repository", spare=5),
            "Type",
            "Status",
            number("Warnings"),
            "Created",
            Column("Took", spare=2),
            number("Read", spare=6),
            number("Sent", spare=3),
            number("Stored", spare=7),
        ),
        [
            (
                job.job_id,
                job.vm_name,
                job.site,
                job.repository_name,
                text.backup_type(job.backup_type),
                text.stage(job),
                str(len(job.warnings) or ""),
                text.when(job.created_at),
                text.elapsed(job),
                text.of_job(job, text.size(job.bytes_read)),
                text.of_job(job, text.size(job.bytes_transferred)),
                text.size(job.bytes_stored),
            )
            for job in jobs
        ],
        empty="no jobs",
    )


def print_disks(disks: list[BackupDisk], *, with_job: bool = True) -> None:
    """A table of disk rows; without the column of jobs where all are of one that is known."""
    print_table(
        (
            *(["Job"] if with_job else []),
            number("Disk"),
            number("Key", spare=4),
            words("Label"),
            number("Capacity"),
            "Type",
            Column("Read by", spare=6),
            "Status",
            number("Read", spare=3),
            number("Sent", spare=1),
            number("Stored", spare=2),
            Column("Resumed", spare=7),
            Column("Completed", spare=5),
        ),
        [
            (
                *([disk.job_id] if with_job else []),
                str(disk.disk_index),
                text.disk_key(disk.vmware_disk_key),
                disk.label,
                text.size(disk.capacity_bytes),
                text.backup_type(disk.backup_type),
                text.read_method(disk.read_method),
                text.status(disk.status),
                text.of_disk(disk, text.size(disk.bytes_read)),
                text.of_disk(disk, text.size(disk.bytes_transferred)),
                text.size(disk.bytes_stored),
                text.resumes(disk),
                text.when(disk.completed_at),
            )
            for disk in disks
        ],
        empty="no disks",
    )
