"""Restore a disk of a VM's newest backup to a file, checked against its digests.

Exit code 0: restored; 1: it was not, and no file was written; 2: wrong usage.
"""

import argparse
import sys
from pathlib import Path

from sendense import BackupStatus, Client, RestoreProgress, SendenseError


def main() -> int:
    parser = argparse.ArgumentParser(description="Restore a disk of a VM to a file.")
    parser.add_argument("vm", help="name of the VM")
    parser.add_argument("output", type=Path, help="file to write")
    parser.add_argument("--disk", type=int, default=0, help="index of the disk  [%(default)s]")
    parser.add_argument("--job", help="a backup other than the newest one")
    parser.add_argument("--format", choices=("raw", "qcow2"), default="raw")
    parser.add_argument("--hub", default="127.0.0.1:8443", help="host:port  [%(default)s]")
    arguments = parser.parse_args()

    try:
        with Client(arguments.hub) as client:
            job_id = arguments.job or newest_restore_point(client, arguments.vm)
            if job_id is None:
                print(f"error: VM {arguments.vm} has no restore point", file=sys.stderr)
                return 1
            result = client.restore_disk(
                job_id, arguments.disk, arguments.output, arguments.format, progress=Progress()
            )
    except SendenseError as error:
        print(f"error: {error} ({error.reason})", file=sys.stderr)
        return 1
    print(f"{result.path}: disk {arguments.disk} of {job_id}, {result.capacity_bytes} bytes")
    print(f"root digest {result.root_digest}")
    return 0


def newest_restore_point(client: Client, vm: str) -> str | None:
    """The id of the VM's last completed backup, in whichever repository; None without one."""
    jobs = client.list_backups(vm_name=vm, status=BackupStatus.COMPLETED)
    return next((job.job_id for job in jobs), None)


class Progress:
    """Says every tenth of the way on standard error; `restore_disk` calls it."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, progress: RestoreProgress) -> None:
        if not progress.total_known:
            return  # an imported backup: how much comes is not known
        tenths = 10 * progress.done_bytes // max(1, progress.total_bytes)
        if tenths > self._told:
            self._told = tenths
            print(f"{tenths * 10} %", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
