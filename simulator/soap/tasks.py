"""Tasks: a method that takes a while answers with one, and clients wait for its `info`."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from simulator.faults.api_kinds import TaskFail, TaskSlow, TaskStall
from simulator.faults.board import FaultBoard
from simulator.faults.kind import Place
from simulator.snapshots import OperationRefused
from simulator.soap.faults import VimFault, named_fault, refused, task_in_progress
from simulator.soap.vmomi import Fault, Reference, support, vim

_KEPT = 200
_LONGEST_STALL_S = 3600.0


@dataclass
class Task:
    """One task. Written by its own thread; `info` may be asked for by any."""

    moid: str
    method: str
    entity: Reference
    entity_name: str
    user: str
    queued: datetime
    event: int
    state: str = "queued"
    started: datetime | None = None
    completed: datetime | None = None
    result: Any = None
    error: Fault | None = None
    finished: threading.Event = field(default_factory=threading.Event)

    def info(self) -> Any:
        """vim.TaskInfo"""
        return vim.TaskInfo(
            key=self.moid,
            task=vim.Task(self.moid),
            name=support.GetWsdlMethod("urn:vim25", self.method),
            descriptionId=_description(self.method),
            entity=self.entity,
            entityName=self.entity_name,
            state=self.state,
            cancelled=False,
            cancelable=False,
            result=self.result,
            error=self.error,
            reason=vim.TaskReasonUser(userName=self.user),
            queueTime=self.queued,
            startTime=self.started,
            completeTime=self.completed,
            eventChainId=self.event,
            progress=100 if self.state == "success" else None,
        )


def _description(method: str) -> str:
    """What vSphere calls a task of this WSDL method: `vm.Snapshot.remove`."""
    info = support.GetWsdlMethod("urn:vim25", method).info
    owner: str = info.type.__name__.removeprefix("vim.")
    return f"{owner}.{info.name[0].lower()}{info.name[1:]}"


class Tasks:
    """Runs tasks, each in a thread of its own, and remembers the latest."""

    def __init__(self, touched: Callable[[], None], faults: FaultBoard) -> None:
        self._touched = touched
        self._faults = faults
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._tasks: dict[str, Task] = {}

    def start(
        self,
        method: str,
        entity: Reference,
        entity_name: str,
        user: str,
        work: Callable[[], Any],
        *,
        file: str = "",
    ) -> Task:
        """Run `work` in the background; its return value is the task's result.

        Raises VimFault (TaskInProgress) while another task works on the entity.
        """
        with self._lock:
            for other in self._tasks.values():
                if other.entity._moId == entity._moId and other.state in ("queued", "running"):
                    raise task_in_progress(vim.Task(other.moid))
        number = next(self._numbers)
        task = Task(
            moid=f"haTask-{entity._moId}-vim.{_description(method)}-{number}",
            method=method,
            entity=entity,
            entity_name=entity_name,
            user=user,
            queued=datetime.now(UTC),
            event=number,
        )
        with self._lock:
            self._tasks[task.moid] = task
            done = [one.moid for one in self._tasks.values() if one.finished.is_set()]
            for moid in done[: max(0, len(self._tasks) - _KEPT)]:
                del self._tasks[moid]
        self._touched()
        threading.Thread(
            target=self._run, args=(task, work, file), name=task.moid, daemon=True
        ).start()
        return task

    def _run(self, task: Task, work: Callable[[], Any], file: str) -> None:
        task.started = datetime.now(UTC)
        task.state = "running"
        self._touched()
        try:
            task.result = self._work(task, work)
        except VimFault as error:
            self._fail(task, error)
        except OperationRefused as error:
            self._fail(task, refused(error, file))
        except (OSError, ValueError) as error:
            self._fail(task, named_fault("SystemError", str(error)))
        else:
            task.completed = datetime.now(UTC)
            task.state = "success"
        task.finished.set()
        self._touched()

    def _work(self, task: Task, work: Callable[[], Any]) -> Any:
        """The task's result, after what faults want of it. Raises VimFault."""
        at = Place(task.entity._moId)

        def of_method(kind: TaskFail | TaskSlow | TaskStall) -> bool:
            return kind.method in (None, task.method)

        failed = self._faults.fire(TaskFail, at, of_method, method=task.method)
        error = named_fault(failed.kind.fault, "the task was told to fail") if failed else None
        if failed and error and not failed.kind.effect:
            raise error
        slow = self._faults.fire(TaskSlow, at, of_method, method=task.method)
        if slow:
            slow.wait_cleared(slow.kind.seconds)
        stalled = self._faults.fire(TaskStall, at, of_method, method=task.method)
        if stalled:
            stalled.wait_cleared(_LONGEST_STALL_S)
        result = work()
        if error:
            raise error
        return result

    @staticmethod
    def _fail(task: Task, error: VimFault) -> None:
        error.fault.msg = error.text
        task.error = error.fault
        task.completed = datetime.now(UTC)
        task.state = "error"

    def get(self, moid: str) -> Task | None:
        with self._lock:
            return self._tasks.get(moid)

    def recent(self) -> list[Task]:
        with self._lock:
            return list(self._tasks.values())[-20:]

    def wait_all(self, timeout_s: float) -> None:
        """Let running tasks end, each within the time."""
        with self._lock:
            tasks = list(self._tasks.values())
        for task in tasks:
            task.finished.wait(timeout_s)
