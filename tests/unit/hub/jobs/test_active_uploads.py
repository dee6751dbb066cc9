"""Whose a disk is when several calls want to upload it."""

import threading

import pytest

from hub.errors import JobEnded, UploadNotReady, UploadSuperseded
from hub.jobs import active_uploads
from hub.jobs.active_uploads import ActiveUploads
from shared.errors import SendenseError

WAIT_S = 10.0


class OpenUpload:
    """Ends when it is told to, once the test lets it."""

    def __init__(self, uploads: ActiveUploads, *, lets_go: bool = True) -> None:
        self.job_id, self.disk_index = "job-1", 0
        self.released = threading.Event()
        self.told = threading.Semaphore(0)  # once for each time
        self.error: SendenseError | None = None
        self.cancelled = False
        self._uploads = uploads
        self._lets_go = lets_go

    def abort(self, error: SendenseError) -> None:
        self.error = self.error or error
        self.told.release()
        if self._lets_go:
            self.let_go()

    def let_go(self) -> None:
        self._uploads.leave(self)
        self.released.set()

    def expire(self, limit_s: float) -> None: ...

    def cancel_rpc(self) -> None:
        self.cancelled = True


def test_newer_upload_gets_the_disk_when_the_older_has_let_go() -> None:
    uploads = ActiveUploads()
    old, new = OpenUpload(uploads), OpenUpload(uploads)
    uploads.enter(old)
    uploads.enter(new)
    assert isinstance(old.error, UploadSuperseded)
    assert old.released.is_set()
    assert new.error is None
    assert uploads.count() == 1


def test_disk_is_not_given_to_two_when_the_older_does_not_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for wait in ("NOTICE_S", "RELEASE_S"):
        monkeypatch.setattr(active_uploads, wait, 0.05)
    uploads = ActiveUploads()
    old, new = OpenUpload(uploads, lets_go=False), OpenUpload(uploads)
    uploads.enter(old)
    with pytest.raises(UploadNotReady) as caught:
        uploads.enter(new)
    assert caught.value.retryable
    assert old.cancelled
    uploads.leave(new)
    assert uploads.count() == 1
    old.let_go()
    assert uploads.count() == 0


def test_of_two_that_wait_for_a_disk_exactly_one_gets_it() -> None:
    uploads = ActiveUploads()
    old = OpenUpload(uploads, lets_go=False)
    uploads.enter(old)
    waiting = [OpenUpload(uploads, lets_go=False) for _ in range(2)]
    refused: list[OpenUpload] = []

    def enter(upload: OpenUpload) -> None:
        try:
            uploads.enter(upload)
        except UploadSuperseded:
            refused.append(upload)
            upload.let_go()

    threads = [threading.Thread(target=enter, args=(upload,)) for upload in waiting]
    for thread in threads:
        thread.start()
    for _ in waiting:
        assert old.told.acquire(timeout=WAIT_S)
    old.let_go()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert len(refused) == 1
    assert uploads.count() == 1


def test_upload_that_waits_for_its_turn_hears_of_its_jobs_end() -> None:
    uploads = ActiveUploads()
    old, new = (OpenUpload(uploads, lets_go=False) for _ in range(2))
    uploads.enter(old)
    thread = threading.Thread(target=lambda: uploads.enter(new))
    thread.start()
    assert old.told.acquire(timeout=WAIT_S)
    uploads.stop(JobEnded("job-1", "failed"))
    assert isinstance(new.error, JobEnded)
    old.let_go()
    thread.join(WAIT_S)
    assert not thread.is_alive()
