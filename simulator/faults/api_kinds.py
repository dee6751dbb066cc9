"""Faults of the vSphere API: sessions, calls, tasks, snapshots."""

from typing import ClassVar, Literal

from pydantic import Field

from simulator.faults.kind import FaultKind, Scope
from simulator.faults.methods import MethodName, TaskMethodName

VimFaultName = Literal[
    "SystemError",
    "GenericVmConfigFault",
    "FileFault",
    "FileLocked",
    "SnapshotFault",
    "FilesystemQuiesceFault",
    "ApplicationQuiesceFault",
    "InvalidState",
    "InvalidPowerState",
    "NoPermission",
    "NoDiskSpace",
    "Timedout",
    "HostCommunication",
    "NotEnoughLicenses",
]


class SessionExpiry(FaultKind):
    """All login sessions end when a call arrives, which is then not authenticated, or a read."""

    NAME: ClassVar[str] = "session-expiry"
    SCOPE: ClassVar[Scope] = Scope.HOST

    on: Literal["call", "read"] = Field("call", description="an API call, or an NFC read request")
    method: MethodName | None = Field(None, description="only calls of this WSDL method")


class MethodFail(FaultKind):
    """A call of a method ends with a fault and has no effect."""

    NAME: ClassVar[str] = "method-fail"
    SCOPE: ClassVar[Scope] = Scope.VM

    method: MethodName = Field(description="WSDL name")
    fault: VimFaultName = Field("SystemError", description="vSphere's name of it")


class AnswerLost(FaultKind):
    """A call takes effect, but the connection drops instead of the answer."""

    NAME: ClassVar[str] = "answer-lost"
    SCOPE: ClassVar[Scope] = Scope.HOST

    method: MethodName = Field(description="WSDL name")


class AnswerHeld(FaultKind):
    """A call takes effect, but its answer is kept back until the fault is cleared."""

    NAME: ClassVar[str] = "answer-held"
    SCOPE: ClassVar[Scope] = Scope.HOST

    method: MethodName = Field(description="WSDL name")


class _TaskFault(FaultKind):
    """A fault of tasks."""

    method: TaskMethodName | None = Field(
        None, description="only tasks of this WSDL method, with its _Task"
    )


class TaskSlow(_TaskFault):
    """A task runs for so many seconds before it does its work."""

    NAME: ClassVar[str] = "task-slow"
    SCOPE: ClassVar[Scope] = Scope.VM

    seconds: float = Field(gt=0, le=3600)


class TaskStall(_TaskFault):
    """A task is running and does nothing until the fault is cleared."""

    NAME: ClassVar[str] = "task-stall"
    SCOPE: ClassVar[Scope] = Scope.VM


class TaskFail(_TaskFault):
    """A task ends with a fault."""

    NAME: ClassVar[str] = "task-fail"
    SCOPE: ClassVar[Scope] = Scope.VM

    fault: VimFaultName = Field("SystemError", description="vSphere's name of it")
    effect: bool = Field(False, description="it fails after it did its work")


class QuiesceFail(FaultKind):
    """A snapshot that is to be quiesced fails, as when VSS or a freeze script does."""

    NAME: ClassVar[str] = "quiesce-fail"
    SCOPE: ClassVar[Scope] = Scope.VM

    fault: Literal["FilesystemQuiesceFault", "ApplicationQuiesceFault"] = "FilesystemQuiesceFault"


class SnapshotRemoveFail(FaultKind):
    """The removal of a snapshot fails."""

    NAME: ClassVar[str] = "snapshot-remove-fail"
    SCOPE: ClassVar[Scope] = Scope.VM

    fault: VimFaultName = Field("GenericVmConfigFault", description="vSphere's name of it")
    gone: bool = Field(
        False, description="the snapshot goes, its links stay: consolidation is needed"
    )


class ConsolidationNeeded(FaultKind):
    """The VM says that it needs consolidation; so many consolidations do nothing.

    Removals of snapshots leave their links behind. `times=1`: the first consolidation helps.
    """

    NAME: ClassVar[str] = "consolidation-needed"
    SCOPE: ClassVar[Scope] = Scope.VM
