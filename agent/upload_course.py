"""How far an upload is: what the hub answered, what it owes, and how it all ended."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import grpc

from agent.ack_window import AckWindow
from agent.bounded_queue import QueueClosed
from agent.errors import HubMisbehaved, UploadStalled
from agent.hub_errors import hub_error
from agent.patience import Patience
from agent.read_plan import ReadPlan
from agent.sent_layer import SentLayer, UploadStart
from sendense.v1 import upload_pb2 as pb
from shared.fail_points import fail_point

LOOK_S: Final = 1.0


class UploadCourse:
    """Shared by the threads of one upload; thread-safe. The first error, or the seal, ends it."""

    def __init__(
        self,
        disk_index: int,
        patience: Patience,
        layer: SentLayer,
        plan: ReadPlan,
        capacity_bytes: int,
    ) -> None:
        self._disk_index = disk_index
        self._patience = patience
        self._layer = layer
        self._plan = plan
        self._capacity = capacity_bytes
        self._changed = threading.Condition()  # guards what follows
        self._error: BaseException | None = None
        self._sealed: pb.UploadSealed | None = None
        self._answered = False
        self._start: UploadStart | None = None
        self._finished = False
        self._window = AckWindow()
        self._hub_owes_since: float | None = None

    def fail(self, error: BaseException) -> None:
        """End the upload with this error unless it has ended already. Never blocks."""
        with self._changed:
            if self._error is None and self._sealed is None:
                self._error = error
                self._changed.notify_all()

    @contextmanager
    def failing(self) -> Iterator[None]:
        """End the upload with whatever is raised inside: nothing outlives a thread's last frame."""
        try:
            yield
        except QueueClosed:
            pass  # somebody else ended the upload
        except grpc.RpcError as error:
            self.fail(hub_error(error))
        except Exception as error:  # noqa: BLE001 - the caller raises it
            self.fail(error)

    def wait_end(self) -> pb.UploadSealed:
        """Watch the hub's deadlines until the disk is sealed. Raises the upload's error."""
        with self._changed:
            while True:
                if self._error is not None:
                    raise self._error
                if self._sealed is not None:
                    return self._sealed
                self._check_deadline(time.monotonic())
                self._changed.wait(LOOK_S)

    # The reading and the sending thread's.

    def wait_opened(self) -> UploadStart:
        """Where the upload begins. Raises QueueClosed when it ends first."""
        with self._changed:
            self._wait_until(lambda: self._start is not None)
            assert self._start is not None
            return self._start

    # The sending thread's.

    def opening(self) -> None:
        """The upload is asked for."""
        with self._changed:
            self._hub_owes()

    def sending(self, payload_bytes: int) -> None:
        """A frame goes out, as soon as the window has room. Raises QueueClosed, see `wait_opened`."""
        with self._changed:
            self._wait_until(lambda: self._window.has_room_for(payload_bytes))
            self._window.sent(payload_bytes)
            self._hub_owes()

    def finishing(self) -> None:
        """The last message goes out: only the seal is missing."""
        with self._changed:
            self._finished = True
            self._hub_owes_since = time.monotonic()

    # The answers' thread.

    def take_answers(self, call: Iterator[pb.UploadDiskResponse]) -> None:
        """Until the hub ends the call."""
        with self.failing():
            for answer in call:
                self._take(answer)
            raise HubMisbehaved("it ended an upload without sealing it")

    def _take(self, answer: pb.UploadDiskResponse) -> None:
        with self._changed:
            match answer.WhichOneof("part"):
                case "opened":
                    self._begin(answer.opened)
                case "ack":
                    self._window.acknowledged(answer.ack.durable_frames)
                    self._layer.durable_through(answer.ack.durable_through_cluster)
                    fail_point("agent.upload.acknowledged")
                case "sealed":
                    # Before any frame: the layer was sealed by an earlier call.
                    if not self._finished and self._answered:
                        raise HubMisbehaved(
                            f"it sealed disk {self._disk_index} before the agent sent all of it"
                        )
                    if self._error is None:
                        self._sealed = answer.sealed
                        fail_point("agent.upload.sealed")
                case _:
                    pass
            self._answered = True
            owes = self._finished or self._window.outstanding_frames
            self._hub_owes_since = time.monotonic() if owes else None
            self._changed.notify_all()

    # Inside the lock.

    def _begin(self, opened: pb.UploadOpened) -> None:
        if self._start is not None:
            raise HubMisbehaved(f"it opened the upload of disk {self._disk_index} twice")
        self._start = self._layer.open(opened, self._plan, self._capacity)
        self._window = AckWindow(self._start.durable.frames)
        fail_point("agent.upload.opened")

    def _hub_owes(self) -> None:
        """The hub has something to answer from now on, if it had not before."""
        if self._hub_owes_since is None:
            self._hub_owes_since = time.monotonic()

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for the hub; `wait_end` has the deadline."""
        self._changed.wait_for(lambda: condition() or self._error is not None or self._sealed)
        if self._error is not None or self._sealed is not None:
            raise QueueClosed

    def _check_deadline(self, now: float) -> None:
        limit_s = self._patience.seal_s if self._finished else self._patience.answer_s
        if self._hub_owes_since is not None and now - self._hub_owes_since > limit_s:
            raise UploadStalled(self._disk_index, limit_s)
