"""The uploads that are going on: one a disk."""

import threading
from typing import Final, Protocol

import structlog

from hub.errors import UploadActive
from shared.errors import SendenseError

# How long an upload may take to notice that it is to end, before its RPC is
# cancelled, and after that.
NOTICE_S: Final = 5.0
RELEASE_S: Final = 20.0

_log = structlog.get_logger(__name__)


class Upload(Protocol):
    """What others may do to an upload."""

    job_id: str
    disk_index: int
    released: threading.Event  # its files are closed, or sealed

    def abort(self, error: SendenseError) -> None: ...

    def expire(self, limit_s: float) -> None: ...

    def cancel_rpc(self) -> None: ...


class ActiveUploads:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploads: dict[tuple[str, int], Upload] = {}

    def enter(self, upload: Upload) -> None:
        """Claim the upload's disk. Raises UploadActive."""
        with self._lock:
            key = (upload.job_id, upload.disk_index)
            if key in self._uploads:
                raise UploadActive(*key)
            self._uploads[key] = upload

    def leave(self, upload: Upload) -> None:
        """Give the disk back; an upload that never entered may leave too."""
        with self._lock:
            key = (upload.job_id, upload.disk_index)
            if self._uploads.get(key) is upload:
                del self._uploads[key]

    def count(self) -> int:
        """Uploads going on."""
        with self._lock:
            return len(self._uploads)

    def job_ids(self) -> set[str]:
        """Jobs of which something is being uploaded."""
        with self._lock:
            return {job_id for job_id, _ in self._uploads}

    def expire(self, limit_s: float) -> None:
        """Fail the uploads that have waited so long for their next part."""
        with self._lock:
            uploads = list(self._uploads.values())
        for upload in uploads:
            upload.expire(limit_s)

    def stop(self, error: SendenseError) -> None:
        """End all uploads, without waiting for them."""
        with self._lock:
            uploads = list(self._uploads.values())
        for upload in uploads:
            upload.abort(error)

    def abort_job(self, job_id: str, error: SendenseError) -> None:
        """End the uploads of a job and wait until they closed their files."""
        with self._lock:
            uploads = [u for u in self._uploads.values() if u.job_id == job_id]
        for upload in uploads:
            upload.abort(error)
        for upload in uploads:
            if upload.released.wait(NOTICE_S):
                continue
            upload.cancel_rpc()
            if not upload.released.wait(RELEASE_S):
                _log.error(
                    "upload_does_not_end", job_id=upload.job_id, disk_index=upload.disk_index
                )
