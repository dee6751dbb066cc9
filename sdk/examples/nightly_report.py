"""The backups of the last day by VM, and what needs a look: for a mail from cron.

A VM needs a look when its newest ended backup of the period did not complete, or when
it has no restore point at all. Exit code 0: nothing does; 1: something does, or the
hub could not be asked; 2: wrong usage.
"""

import argparse
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from sendense import Backup, BackupStatus, Client, Protection, SendenseError, VirtualMachine


def main() -> int:
    parser = argparse.ArgumentParser(description="Report the backups of the last day by VM.")
    parser.add_argument("--hub", default="127.0.0.1:8443", help="host:port  [%(default)s]")
    parser.add_argument("--hours", type=float, default=24, help="how far back  [%(default)s]")
    arguments = parser.parse_args()
    try:
        since = datetime.now(UTC) - timedelta(hours=arguments.hours)
    except (OverflowError, ValueError):
        parser.error("--hours is too far back, or no number of hours")

    try:
        with Client(arguments.hub) as client:
            jobs = list(client.list_backups(created_after=since))
            bare = client.list_virtual_machines(protection=Protection.NOT_PROTECTED)
    except SendenseError as error:
        print(f"error: {error} ({error.reason})", file=sys.stderr)
        return 1
    print(f"Backups since {since:%Y-%m-%d %H:%M}Z: {len(jobs)}")
    return 1 if report(jobs, bare) else 0


def report(jobs: list[Backup], bare: list[VirtualMachine]) -> int:
    """Print the report of `jobs`, newest first; returns how many VMs need a look."""
    by_context: dict[tuple[str, str, str], list[Backup]] = defaultdict(list)
    for job in jobs:
        by_context[job.vm_name, job.site, job.context_id].append(job)
    failed = 0
    for (vm, site, _), of_vm in sorted(by_context.items()):
        ended = [job for job in of_vm if BackupStatus(job.status).ended]
        wrong = bool(ended) and BackupStatus(ended[0].status) is not BackupStatus.COMPLETED
        failed += wrong
        print(f"\n{vm} ({site}){': NEEDS A LOOK' if wrong else ''}")
        for job in of_vm:
            created = datetime.fromtimestamp(job.created_at.seconds, UTC)
            status = BackupStatus(job.status).name.lower()
            line = f"  {created:%Y-%m-%d %H:%M}Z  {status:9}  {job.bytes_stored:>15,} bytes"
            print(f"{line}  {job.error.message}".rstrip())
            for warning in job.warnings:
                print(f"    warning: {warning.message}")
    if bare:
        print("\nVMs without any restore point: NEED A LOOK")
        for machine in bare:
            print(f"  {machine.name} ({machine.site})")
    print(f"\n{failed} VMs failed, {len(bare)} are not protected")
    return failed + len(bare)


if __name__ == "__main__":
    sys.exit(main())
