"""The backups of the last day by VM, and what needs a look: for a mail from cron.

A VM needs a look when its newest ended backup of the period did not complete, or when
it has no restore point at all; a site does when its VMs are not known, since its agent
is away or reports none. Exit code 0: nothing needs a look; 1: something does; 2: wrong
usage; 3: the hub could not be asked.
"""

import argparse
import os
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from sendense import Agent, Backup, BackupStatus, Client, Protection, SendenseError, VirtualMachine

HUB = os.environ.get("SENDENSE_HUB") or "127.0.0.1:8443"


def main() -> int:
    parser = argparse.ArgumentParser(description="Report the backups of the last day by VM.")
    parser.add_argument("--hub", default=HUB, help="host:port, or SENDENSE_HUB  [%(default)s]")
    parser.add_argument("--hours", type=float, default=24, help="how far back  [%(default)s]")
    arguments = parser.parse_args()
    try:
        since = datetime.now(UTC) - timedelta(hours=arguments.hours)
    except (OverflowError, ValueError):
        parser.error("--hours is too far back, or no number of hours")
    if arguments.hours <= 0:
        parser.error("--hours must be more than 0")

    try:
        with Client(arguments.hub) as client:
            jobs = list(client.list_backups(created_after=since))
            agents = client.list_agents()
            bare = client.list_virtual_machines(protection=Protection.NOT_PROTECTED)
    except SendenseError as error:
        print(f"error: {error} ({error.reason})", file=sys.stderr)
        return 3
    print(f"Backups since {since:%Y-%m-%d %H:%M}Z: {len(jobs)}")
    failed = report_jobs(jobs)
    report_bare(bare)
    unknown = report_sites(agents)
    print(f"\n{failed} VMs failed, {len(bare)} are {'known to be ' * unknown}not protected")
    return 1 if failed or bare or unknown else 0


def report_jobs(jobs: list[Backup]) -> int:
    """Print `jobs`, newest first, by VM and repository; returns how many VMs need a look."""
    by_context: dict[tuple[str, str, str, str], list[Backup]] = defaultdict(list)
    for job in jobs:
        by_context[job.vm_name, job.site, job.repository_name, job.context_id].append(job)
    failed = set()
    for (vm, site, repository, _), of_vm in sorted(by_context.items()):
        ended = [job for job in of_vm if BackupStatus(job.status).ended]
        wrong = bool(ended) and BackupStatus(ended[0].status) is not BackupStatus.COMPLETED
        if wrong:
            failed.add((vm, site))
        print(f"\n{vm} ({site}) in {repository}{': NEEDS A LOOK' if wrong else ''}")
        for job in of_vm:
            status = BackupStatus(job.status).name.lower()
            line = f"  {when(job.created_at)}  {status:9}  {job.bytes_stored:>15,} bytes"
            print(f"{line}  {job.error.message}".rstrip())
            for warning in job.warnings:
                print(f"    warning: {warning.message}")
    return len(failed)


def report_bare(bare: list[VirtualMachine]) -> None:
    """Print the VMs that have no restore point."""
    if bare:
        print("\nVMs without any restore point: NEED A LOOK")
    for machine in bare:
        print(f"  {machine.name} ({machine.site})")


def report_sites(agents: list[Agent]) -> bool:
    """Print the sites whose VMs may be others than the hub knows; returns whether there are any."""
    lines = [
        f"  {agent.site}: {'reports no VMs' if agent.connected else 'its agent is away'}, "
        f"last heard of {when(agent.last_seen_at)}"
        for agent in agents
        if not agent.connected or agent.vm_count == 0
    ]
    if not agents:
        lines = ["  there is no site: no agent ever registered"]
    if lines:
        print("\nSites whose VMs are not known, or not as they are now: NEED A LOOK")
        print("\n".join(lines))
    return bool(lines)


def when(moment: Timestamp) -> str:
    return f"{datetime.fromtimestamp(moment.seconds, UTC):%Y-%m-%d %H:%M}Z"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
