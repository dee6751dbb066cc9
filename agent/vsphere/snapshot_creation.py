"""Making a job's snapshot, so that a failure leaves none, or says that it cannot tell."""

from collections.abc import Callable
from typing import Any

import structlog
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from agent.vsphere.api import vim, vmodl
from agent.vsphere.devices import escaped
from agent.vsphere.errors import (
    SnapshotMaybeLeft,
    VsphereError,
    VsphereFault,
)
from agent.vsphere.properties import TaskFailed, wait_for_task
from agent.vsphere.session import VsphereSession
from agent.vsphere.snapshot_removal import morefs_by_name, remove_by_moref
from agent.vsphere.tasks import TaskTurn, run_task

_log = structlog.get_logger(__name__)

CREATE_TIMEOUT_S = 1200.0
"""Quiescing alone may take 15 minutes. Other tasks at the VM are waited for within it."""
UNREACHABLE_S = 120.0
"""Without any answer; then a job has failed, and what it made is looked for later."""
SETTLE_TIMEOUT_S = 300.0
"""More for a task whose result is not known, before its snapshot is looked for by name."""
APPEAR_TIMEOUT_S = 30.0
"""For the snapshot of a task that nobody knows: the answer that named it was lost."""


class SnapshotCreation:
    """Makes one snapshot by its name, which is the job's own; `undo` makes up for any failure."""

    def __init__(
        self, session: VsphereSession, vm_moref: str, name: str, description: str, doing: str
    ) -> None:
        self._session = session
        self._vm_moref = vm_moref
        self._name = name
        self._description = description
        self._doing = doing
        self._task: Any = None
        self._started = False  # or it may have been
        self._under_way = False  # asked for, and neither result nor refusal seen

    def create(self, *, quiesced: bool) -> Any:
        """The snapshot, made after other tasks at the VM. Raises TaskFailed, VsphereErrors.

        `refused` tells afterwards whether vSphere said that there is none.
        """
        turn = TaskTurn(CREATE_TIMEOUT_S, UNREACHABLE_S)
        return self._watched(
            lambda: run_task(self._session, self._doing, lambda: self._start(quiesced), turn)
        )

    def _start(self, quiesced: bool) -> Any:
        vm = vim.VirtualMachine(self._vm_moref, self._session.stub)
        started_before, self._started = self._started, True
        self._task, self._under_way = None, True
        try:
            self._task = vm.CreateSnapshot_Task(
                escaped(self._name), self._description, False, quiesced
            )
        except vmodl.MethodFault:
            # An answer, also that the session had expired: nothing was started.
            self._started, self._under_way = started_before, False
            raise
        return self._task

    @property
    def refused(self) -> bool:
        """Whether the last failure means that the snapshot was not made and will not be."""
        return not self._under_way

    def _watched(self, wait: Callable[[], Any]) -> Any:
        """The result that `wait` returns; it is known then, as when the task failed."""
        try:
            result = wait()
        except TaskFailed:
            self._under_way = False
            raise
        self._under_way = False
        return result

    def undo(self, failure: BaseException) -> None:
        """Remove what was made, or may yet be, under the name.

        Raises SnapshotMaybeLeft, from `failure`, when that is not known to be gone.
        """
        if not self._started:
            return
        doubt = ""
        try:
            self._settle()
        except VsphereError as error:
            doubt = str(error)  # unless its snapshot is there already
        try:
            doubt = self._remove(doubt)
        except VsphereError as error:
            doubt = str(error)
        if not doubt:
            return
        _log.error("snapshot_maybe_left", snapshot=self._name, vm=self._vm_moref, doubt=doubt)
        if isinstance(failure, Exception):
            problem = str(failure) or type(failure).__name__
            raise SnapshotMaybeLeft(self._vm_moref, self._name, problem, doubt) from failure

    def _settle(self) -> None:
        """Wait for a task whose result is not known: a snapshot is found once it ended."""
        if not self._under_way or self._task is None:
            return
        try:
            self._watched(
                lambda: wait_for_task(
                    self._session, self._task, self._doing, SETTLE_TIMEOUT_S, UNREACHABLE_S
                )
            )
        except TaskFailed:
            return
        except VsphereFault as error:
            # The host restarted and forgot the task, which did not survive it.
            if not error.is_object_gone:
                raise
            self._under_way = False

    def _remove(self, doubt: str) -> str:
        """Remove by name; returns why one may be there all the same, or nothing."""
        if self._under_way and self._task is None:
            doubt = "the connection broke when it was asked for, it may yet appear"
            found = self._appearing()
        else:
            found = self._morefs()
        for moref in found:
            remove_by_moref(self._session, self._vm_moref, moref, self._name)
        return "" if found else doubt

    def _morefs(self) -> list[str]:
        return morefs_by_name(self._session, self._vm_moref, self._name)

    def _appearing(self) -> list[str]:
        attempts = Retrying(
            retry=retry_if_result(lambda found: not found),
            stop=stop_after_delay(APPEAR_TIMEOUT_S),
            wait=wait_fixed(1.0),
            retry_error_callback=lambda state: [],
        )
        found: list[str] = attempts(self._morefs)
        return found
