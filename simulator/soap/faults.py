"""vSphere faults: made in one place, raised through a Python exception."""

from simulator.snapshots import OperationRefused
from simulator.soap.vmomi import Fault, Reference, vim, vmodl


class VimFault(Exception):
    """A method ends with a vSphere fault; `text` is what a person reads."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault
        self.text = text


def not_authenticated(this: Reference) -> VimFault:
    return VimFault(
        vim.fault.NotAuthenticated(object=this, privilegeId="System.View"),
        "The session is not authenticated.",
    )


def invalid_login() -> VimFault:
    return VimFault(
        vim.fault.InvalidLogin(),
        "Cannot complete login due to an incorrect user name or password.",
    )


def object_not_found(reference: Reference) -> VimFault:
    return VimFault(
        vmodl.fault.ManagedObjectNotFound(obj=reference),
        f"The object '{reference._wsdlName}:{reference._moId}' has already been deleted "
        "or has not been completely created",
    )


def invalid_property(path: str) -> VimFault:
    return VimFault(vmodl.query.InvalidProperty(name=path), f"Invalid property: {path}")


def invalid_argument(name: str) -> VimFault:
    return VimFault(
        vmodl.fault.InvalidArgument(invalidProperty=name),
        f"A specified parameter was not correct: {name}",
    )


def method_not_found(this: Reference, method: str) -> VimFault:
    return VimFault(
        vmodl.fault.MethodNotFound(receiver=this, method=method),
        f"Method {method} is not supported by {this._wsdlName}:{this._moId}",
    )


def no_permission(this: Reference, privilege: str) -> VimFault:
    return VimFault(
        vim.fault.NoPermission(object=this, privilegeId=privilege),
        "Permission to perform this operation was denied.",
    )


def task_in_progress(task: Reference) -> VimFault:
    return VimFault(vim.fault.TaskInProgress(task=task), "Another task is already in progress.")


def not_supported(text: str) -> VimFault:
    return VimFault(vmodl.fault.NotSupported(), text)


def named_fault(name: str, text: str, file: str = "") -> VimFault:
    """A fault by vSphere's name of it; `file` is named by faults about files."""
    if name == "SystemError":
        return VimFault(
            vmodl.fault.SystemError(reason=text), f"A general system error occurred: {text}"
        )
    kind = getattr(vim.fault, name, None) or getattr(vmodl.fault, name)
    if issubclass(kind, vim.fault.FileFault):
        return VimFault(kind(file=file), f"{text} ({file})" if file else text)
    if issubclass(kind, vim.fault.InvalidPowerState):
        # Without this field no client can read the fault, or the update that tells of it.
        return VimFault(kind(existingState=vim.VirtualMachine.PowerState.poweredOn), text)
    return VimFault(kind(), text)


def refused(error: OperationRefused, file: str = "") -> VimFault:
    """The vSphere fault of what a VM refused; `file` is named by faults about files."""
    if error.kind == "InvalidArgument":
        return invalid_argument(error.problem)
    return named_fault(error.kind, error.problem, file)
