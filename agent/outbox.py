"""What jobs tell the hub, kept until the hub has answered it, over any number of sessions."""

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from sendense.v1 import agent_session_pb2 as pb

Send = Callable[[pb.SessionRequest], None]

_FINAL: Final = ("job_uploaded", "job_failed")


class _Key(NamedTuple):
    job_id: str
    kind: str


class Outbox:
    """Events go out at once while a session is attached, and again at each later one. Thread-safe.

    JobOpened is kept until the job's plan came or the job ended, JobRead, JobUploaded and
    JobFailed until the hub closed the job. A hub that closes no jobs is told their
    end once, and no JobRead.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows, and the order of what is sent
        self._kept: dict[_Key, pb.SessionRequest] = {}  # in the order of posting
        self._send: Send | None = None
        self._closes_jobs = True

    def post(self, event: pb.SessionRequest) -> None:
        """Tell the hub, now or when it is there again. Does not block, raises nothing."""
        key = _key_of(event)
        with self._lock:
            if key.kind in _FINAL:
                self._kept.pop(_Key(key.job_id, "job_opened"), None)
            self._kept[key] = event
            self._deliver(key)

    def attach(self, send: Send, *, closes_jobs: bool) -> None:
        """A session stands: all that is kept goes to it first. `send` must not block or raise."""
        with self._lock:
            self._send, self._closes_jobs = send, closes_jobs
            for key in list(self._kept):
                self._deliver(key)

    def detach(self) -> None:
        """The session is gone."""
        with self._lock:
            self._send = None

    def planned(self, job_id: str) -> None:
        """The hub has answered the job's JobOpened."""
        with self._lock:
            self._kept.pop(_Key(job_id, "job_opened"), None)

    def closed(self, job_id: str) -> None:
        """The hub wants to know nothing more of the job."""
        with self._lock:
            self._kept = {key: event for key, event in self._kept.items() if key.job_id != job_id}

    def job_ids(self) -> set[str]:
        """Jobs of which the hub has something to answer."""
        with self._lock:
            return {key.job_id for key in self._kept}

    def _deliver(self, key: _Key) -> None:
        if self._send is None:
            return
        if not self._closes_jobs and key.kind == "job_read":
            del self._kept[key]
            return
        self._send(self._kept[key])
        if not self._closes_jobs and key.kind in _FINAL:
            del self._kept[key]


def _key_of(event: pb.SessionRequest) -> _Key:
    match event.WhichOneof("event"):
        case "job_opened":
            return _Key(event.job_opened.job_id, "job_opened")
        case "job_read":
            return _Key(event.job_read.job_id, "job_read")
        case "job_uploaded":
            return _Key(event.job_uploaded.job_id, "job_uploaded")
        case "job_failed":
            return _Key(event.job_failed.job_id, "job_failed")
        case other:
            raise ValueError(f"{other} is no event of a job")
