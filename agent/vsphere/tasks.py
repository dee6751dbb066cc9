"""Tasks at a VM that other tasks may be at: they are waited for first."""

import threading
import time
from collections.abc import Callable
from typing import Any

from tenacity import Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event

from agent.vsphere.api import vim
from agent.vsphere.errors import TaskTimedOut, VsphereFault
from agent.vsphere.properties import NEVER_ENDED, UNREACHABLE_S, TaskFailed, wait_for_task
from agent.vsphere.session import VsphereSession


class _Busy(Exception):
    """Another task was at the VM; it ended, or vSphere does not name it."""


class TaskTurn:
    """Until when the tasks of one piece of work may take, in all: `timeout_s` from now, or `ended`."""

    def __init__(
        self,
        timeout_s: float,
        unreachable_s: float = UNREACHABLE_S,
        ended: threading.Event = NEVER_ENDED,
    ) -> None:
        self.timeout_s = timeout_s
        self.unreachable_s = unreachable_s
        """Longest time without any answer; the task goes on in vSphere."""
        self.ended = ended
        """Set when nobody waits any more; it wakes whoever sleeps between tries."""
        self._end_s = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """Seconds; not below zero."""
        return 0.0 if self.ended.is_set() else max(0.0, self._end_s - time.monotonic())


def run_task(session: VsphereSession, doing: str, start: Callable[[], Any], turn: TaskTurn) -> Any:
    """Start a task, wait for it, return its result; while another one is at the VM, wait for that first.

    Raises TaskFailed, TaskTimedOut at the turn's end, VsphereErrors.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(_Busy),
        stop=lambda state: session.closed or not turn.left_s,
        wait=wait_random_exponential(multiplier=0.5, max=15),
        sleep=sleep_using_event(turn.ended),
        reraise=True,
    )
    try:
        return attempts(_run_once, session, doing, start, turn)
    except _Busy as error:
        raise TaskTimedOut(doing, turn.timeout_s) from error.__cause__


def _run_once(session: VsphereSession, doing: str, start: Callable[[], Any], turn: TaskTurn) -> Any:
    try:
        return _wait(session, session.run(doing, start), doing, turn)
    except (TaskFailed, VsphereFault) as error:
        fault = error.fault if isinstance(error, TaskFailed) else error.__cause__
        if not isinstance(fault, vim.fault.TaskInProgress):
            raise
        _wait_for_other(session, fault.task, turn)
        raise _Busy from error


def _wait(session: VsphereSession, task: Any, doing: str, turn: TaskTurn) -> Any:
    return wait_for_task(session, task, doing, turn.left_s, turn.unreachable_s, turn.ended)


def _wait_for_other(session: VsphereSession, task: Any, turn: TaskTurn) -> None:
    """Until another task ended, however; one that is not named or is gone is not waited for."""
    if task is None:
        return
    moref = vim.Task(task._GetMoId(), session.stub)
    try:
        _wait(session, moref, "end another task at the VM", turn)
    except (TaskFailed, VsphereFault):
        return
