"""Watching a job over streams that may break: renewed until the job ended."""

import time
from collections.abc import Iterator
from typing import Final

from sendense.errors import HubUnavailable, WaitTimeout, typed_errors
from sendense.models import BackupStatus
from sendense.requests import build
from sendense.v1 import backup_pb2, backup_pb2_grpc

# A stream is given up and opened anew after this time, so that none can hang for ever.
STREAM_LIMIT_S: Final = 600.0
# How long the hub may be away (a restart, a network fault) before the watcher is told.
AWAY_LIMIT_S: Final = 30.0
# Streams in a row that break after a single state: the hub is up, but cannot keep a watch.
BROKEN_STREAMS_LIMIT: Final = 10


def watch_backup(
    stub: backup_pb2_grpc.BackupServiceStub,
    address: str,
    job_id: str,
    deadline: float | None = None,
) -> Iterator[backup_pb2.Backup]:
    """Yield the job's states until the last one; `deadline` is a time.monotonic() value.

    A stream that breaks after it delivered is opened again once the hub is
    back. Raises HubUnavailable when it does not come back or when a stream
    delivers nothing, WaitTimeout at the deadline.
    """
    request = build(backup_pb2.WatchBackupRequest, job_id=job_id)
    broken_streams = 0
    while True:
        delivered = 0
        limit_s = AWAY_LIMIT_S if broken_streams else STREAM_LIMIT_S
        if deadline is not None:
            limit_s = min(limit_s, max(deadline - time.monotonic(), 0.001))
        try:
            with typed_errors(address):
                # Opened again, it waits for the hub to come back instead of failing at once.
                stream = stub.WatchBackup(
                    request, timeout=limit_s, wait_for_ready=broken_streams > 0
                )
                try:
                    for response in stream:
                        delivered += 1
                        yield response.backup
                        if BackupStatus(response.backup.status).ended:
                            return
                finally:
                    stream.cancel()
            # A hub that shuts down in good order ends its streams; ask again.
            raise HubUnavailable(f"hub {address} ended the watch of job {job_id} before the job")
        except HubUnavailable as broken:
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(
                    f"job {job_id} has not ended yet", metadata={"job_id": job_id}
                ) from broken
            if not delivered:
                raise
            if broken.reason == "HUB_TIMEOUT":  # its time was up: nothing broke
                broken_streams = 0
                continue
            broken_streams = broken_streams + 1 if delivered == 1 else 1
            if broken_streams >= BROKEN_STREAMS_LIMIT:
                raise
