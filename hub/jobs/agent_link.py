"""The hub's end of one agent's session: commands out, signs of life in."""

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hub.errors import AgentSilent
from sendense.v1 import agent_session_pb2 as pb
from shared.errors import SendenseError

MAX_QUEUED_COMMANDS: Final = 1000
SILENT_INTERVALS: Final = 4


class AgentLink:
    """Commands wait in a bounded queue that one thread drains (`commands`); any thread sends."""

    def __init__(self) -> None:
        # Known once the agent registered; written before the link is shared.
        self.site = ""
        self.hostname = ""
        self.agent_id = ""
        self.run_id = ""
        self.keeps_jobs = False
        self.jobs_in_parallel = 0  # not told
        self._registered = False
        self._queue: queue.Queue[pb.SessionResponse] = queue.Queue(MAX_QUEUED_COMMANDS)
        self._wake = threading.Condition()
        self._closed = False
        self._error: SendenseError | None = None
        self._busy = False
        self._jobs: set[str] = set()
        self._seen_at = time.monotonic()

    def send(self, command: pb.SessionResponse) -> bool:
        """Queue a command. False when the link is closed or the agent takes none.

        Nothing is taken before `registered` is.
        """
        kind = command.WhichOneof("command")
        with self._wake:
            if self._closed or not (self._registered or kind == "registered"):
                return False
            try:
                self._queue.put_nowait(command)
            except queue.Full:
                return False
            self._registered = True
            if kind == "start_job":
                self._jobs.add(command.start_job.job_id)
            elif kind == "resume_job":
                self._jobs.add(command.resume_job.start.job_id)
            self._wake.notify_all()
            return True

    def take(self, job_id: str) -> None:
        """The agent holds the job since an earlier session of its run."""
        with self._wake:
            self._jobs.add(job_id)

    def serves(self, job_id: str) -> bool:
        """Whether the job was given to this session and has not ended."""
        with self._wake:
            return job_id in self._jobs

    def given(self) -> frozenset[str]:
        """The jobs that were given to this session and have not ended."""
        with self._wake:
            return frozenset(self._jobs)

    def job_ended(self, job_id: str) -> None:
        """Nothing more is to be done for the job."""
        with self._wake:
            self._jobs.discard(job_id)

    def close(self, error: SendenseError | None = None) -> None:
        """End the session, with an error or without. The first close decides."""
        with self._wake:
            if not self._closed:
                self._closed = True
                self._error = error
                self._wake.notify_all()

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken, nor to be taken from it."""
        return self._closed

    @property
    def error(self) -> SendenseError | None:
        """What the link was closed with."""
        return self._error

    @contextmanager
    def handling(self) -> Iterator[None]:
        """An event arrived and is worked on: the agent is not silent meanwhile."""
        self._busy = True
        try:
            yield
        finally:
            self._seen_at = time.monotonic()
            self._busy = False

    def silent_s(self) -> float:
        """Seconds since the last event."""
        return 0.0 if self._busy else time.monotonic() - self._seen_at

    def commands(self, interval_s: float) -> Iterator[pb.SessionResponse]:
        """Commands until the link is closed.

        Raises the error it was closed with, and AgentSilent after four
        heartbeat intervals without an event.
        """
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or not self._queue.empty(), interval_s)
                closed, error = self._closed, self._error
                command = None if self._queue.empty() else self._queue.get_nowait()
            if command is not None:
                yield command
            elif closed:
                if error is not None:
                    raise error
                return
            elif (silent_s := self.silent_s()) > SILENT_INTERVALS * interval_s:
                silent = AgentSilent(self.site, round(silent_s))
                self.close(silent)
                raise silent
