"""Restore a disk of a VM's newest backup to a file, checked against its digests.

Exit code 0: restored; 1: it was not, and no file was written; 2: wrong usage; 130:
interrupted, no part of a file is left.
"""

import argparse
import os
import sys
from pathlib import Path

from sendense import BackupStatus, Client, RestoreProgress, SendenseError, TargetExists

HUB = os.environ.get("SENDENSE_HUB") or "127.0.0.1:8443"


def main() -> int:
    parser = argparse.ArgumentParser(description="Restore a disk of a VM to a file.")
    parser.add_argument("vm", help="name of the VM")
    parser.add_argument("output", type=Path, help="file to write")
    parser.add_argument("--disk", type=int, default=0, help="index of the disk  [%(default)s]")
    parser.add_argument("--site", default="", help="where several sites have a VM of that name")
    parser.add_argument("--job", help="a backup of the VM other than the newest one")
    parser.add_argument("--format", choices=("raw", "qcow2"), default="raw")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    parser.add_argument("--hub", default=HUB, help="host:port, or SENDENSE_HUB  [%(default)s]")
    arguments = parser.parse_args()

    try:
        with Client(arguments.hub) as client:
            job_id = restore_point(client, arguments.vm, arguments.site, arguments.job)
            result = client.restore_disk(
                job_id,
                arguments.disk,
                arguments.output,
                arguments.format,
                overwrite=arguments.overwrite,
                progress=Progress(),
            )
    except Unfit as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except TargetExists as error:
        print(f"error: {arguments.output} exists ({error.reason}): ", file=sys.stderr, end="")
        print("--overwrite replaces it once all is restored", file=sys.stderr)
        return 1
    except SendenseError as error:
        print(f"error: {error} ({error.reason})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; no part of a file is left", file=sys.stderr)
        return 130
    print(f"{result.path}: disk {arguments.disk} of {job_id}, {result.capacity_bytes} bytes")
    print(f"root digest {result.root_digest}")
    return 0


class Unfit(Exception):
    """There is no backup that is surely the one that was meant."""


def restore_point(client: Client, vm: str, site: str, job_id: str | None) -> str:
    """The id of the backup to restore: `job_id`, or else the VM's newest, in any repository.

    Raises Unfit when that is not one of this VM, or when there is none.
    """
    if job_id is not None:
        job = client.get_backup(job_id)
        if job.vm_name != vm or site not in ("", job.site):
            raise Unfit(f"backup {job_id} is of VM {job.vm_name} of site {job.site}")
        return job_id
    sites = {item.site for item in client.list_contexts(vm_name=vm, site=site)}
    if len(sites) > 1:
        raise Unfit(f"VM {vm} is in the sites {', '.join(sorted(sites))}: give --site")
    for job in client.list_backups(vm_name=vm, status=BackupStatus.COMPLETED):
        if job.site in sites:
            return job.job_id
    raise Unfit(f"VM {vm} has no restore point")


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
