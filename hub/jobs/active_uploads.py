"""The streams of jobs' disks that are going on: uploads, one a disk, and readers of bases.

The newest upload of a disk counts: the agent that opens it has given the others up.
"""

import threading
from typing import Final, Protocol

import structlog

from hub.errors import UploadNotReady, UploadSuperseded
from shared.errors import SendenseError

# How long a stream may take to notice that it is to end, before its RPC is
# cancelled, and after that.
NOTICE_S: Final = 5.0
RELEASE_S: Final = 20.0

_log = structlog.get_logger(__name__)


class DiskStream(Protocol):
    """What others may do to an upload and to a reader of a base."""

    job_id: str
    disk_index: int
    released: threading.Event  # its files are closed, or sealed

    def abort(self, error: SendenseError) -> None: ...

    def cancel_rpc(self) -> None: ...


class Upload(DiskStream, Protocol):
    """An upload."""

    def expire(self, limit_s: float) -> None: ...


class Reader(DiskStream, Protocol):
    """A reader of a disk's base."""

    def finish(self) -> None: ...


class ActiveUploads:
    """Thread-safe.

    A reader lives no longer than its job runs and its disk is not sealed. An idle one
    has no deadline of its own: an agent may read long what one answer told it of.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploads: dict[tuple[str, int], Upload] = {}
        # Of each disk, the one that asked for it last; it may still wait for its turn.
        self._newest: dict[tuple[str, int], Upload] = {}
        self._readers: set[Reader] = set()

    def enter(self, upload: Upload) -> None:
        """Claim the upload's disk, once the one that has it is ended and has closed its files.

        Raises UploadSuperseded (a newer one came meanwhile), UploadNotReady.
        """
        key = (upload.job_id, upload.disk_index)
        with self._lock:
            self._newest[key] = upload
        while True:
            with self._lock:
                if self._newest.get(key) is not upload:
                    raise UploadSuperseded(*key)
                before = self._uploads.get(key)
                if before is None:
                    self._uploads[key] = upload
                    return
            before.abort(UploadSuperseded(*key))
            if not _released(before):
                raise UploadNotReady(*key, "an earlier upload of it has not ended yet")

    def leave(self, upload: Upload) -> None:
        """Give the disk back; an upload that never entered may leave too."""
        with self._lock:
            key = (upload.job_id, upload.disk_index)
            for uploads in (self._uploads, self._newest):
                if uploads.get(key) is upload:
                    del uploads[key]

    def enter_reader(self, reader: Reader) -> None:
        """A reader of the disk's base begins. Enter before its rows are looked at."""
        with self._lock:
            self._readers.add(reader)

    def leave_reader(self, reader: Reader) -> None:
        """It has ended; one that never entered may leave too."""
        with self._lock:
            self._readers.discard(reader)

    def finish_readers(self, job_id: str, disk_index: int) -> None:
        """The disk is sealed: nobody needs to know its base any more."""
        with self._lock:
            key = (job_id, disk_index)
            readers = [one for one in self._readers if (one.job_id, one.disk_index) == key]
        for reader in readers:
            reader.finish()

    def count(self) -> int:
        """Uploads going on."""
        with self._lock:
            return len(self._uploads)

    def reader_count(self) -> int:
        """Readers of bases."""
        with self._lock:
            return len(self._readers)

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
        """End all streams, without waiting for them."""
        for stream in self._streams():
            stream.abort(error)

    def abort_job(self, job_id: str, error: SendenseError) -> None:
        """End the streams of a job and wait until they closed their files."""
        streams = [stream for stream in self._streams() if stream.job_id == job_id]
        for stream in streams:
            stream.abort(error)
        for stream in streams:
            _released(stream)

    def _streams(self) -> list[DiskStream]:
        with self._lock:
            return [*{*self._uploads.values(), *self._newest.values()}, *self._readers]


def _released(stream: DiskStream) -> bool:
    """Wait until an aborted stream has closed its files; after a while its RPC is broken off."""
    if stream.released.wait(NOTICE_S):
        return True
    stream.cancel_rpc()
    if stream.released.wait(RELEASE_S):
        return True
    _log.error("upload_does_not_end", job_id=stream.job_id, disk_index=stream.disk_index)
    return False
