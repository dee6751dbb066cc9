"""Back a VM up, wait until the backup ended, and say how it went.

Exit code 0: it completed; 1: it did not, or the hub refused; 2: wrong usage; 130:
interrupted, a backup that was started goes on.
"""

import argparse
import os
import sys

from sendense import BackupStatus, BackupType, Client, SendenseError, WaitTimeout

HUB = os.environ.get("SENDENSE_HUB") or "127.0.0.1:8443"


def main() -> int:
    parser = argparse.ArgumentParser(description="Back a VM up and wait for the end.")
    parser.add_argument("vm", help="name, moref or instance uuid of the VM")
    parser.add_argument("--hub", default=HUB, help="host:port, or SENDENSE_HUB  [%(default)s]")
    parser.add_argument("--repository", default="", help="name or id  [the hub's default]")
    parser.add_argument("--full", action="store_true", help="read all of the disks")
    parser.add_argument("--timeout", type=float, default=86_400, help="seconds  [%(default)s]")
    arguments = parser.parse_args()

    wanted = BackupType.FULL if arguments.full else BackupType.INCREMENTAL
    job = None
    try:
        with Client(arguments.hub) as client:
            job = client.start_backup(
                arguments.vm, repository=arguments.repository, backup_type=wanted
            )
            print(f"started {job.job_id}", flush=True)
            job = client.wait(job.job_id, timeout_s=arguments.timeout)
    except WaitTimeout as error:
        print(f"{error}; it goes on, `sendense job watch` follows it", file=sys.stderr)
        return 1
    except SendenseError as error:
        print(f"error: {error} ({error.reason})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if job is None:
            print("interrupted; `sendense job list` tells whether it started", file=sys.stderr)
        else:
            print(f"interrupted; {job.job_id} goes on", file=sys.stderr)
        return 130

    for warning in job.warnings:
        print(f"warning: {warning.message} ({warning.code})")
    if BackupStatus(job.status) is not BackupStatus.COMPLETED:
        print(f"{job.job_id} did not complete: {job.error.message} ({job.error.reason})")
        return 1
    kind = BackupType(job.backup_type).name.lower()
    print(f"completed: {kind}, {job.disk_count} disks, {job.bytes_stored} bytes stored")
    return 0


if __name__ == "__main__":
    sys.exit(main())
