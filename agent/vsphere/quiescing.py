"""Guests that cannot be quiesced: which faults say so, and what people are told."""

from typing import Any

from agent.vsphere.api import vim
from agent.vsphere.models import Warning

_OF_THE_GUEST = (
    vim.fault.ApplicationQuiesceFault,
    vim.fault.FilesystemQuiesceFault,
    vim.fault.ToolsUnavailable,
    vim.fault.GuestOperationsFault,
    vim.fault.InvalidState,
)


def is_quiesce_fault(fault: Any) -> bool:
    """Whether a snapshot that failed with it may succeed without quiescing."""
    if isinstance(fault, _OF_THE_GUEST):
        return True
    # The plain one says nothing; those derived from it name reasons that quiescing has no part in.
    if type(fault) is vim.fault.SnapshotFault:
        return True
    # Some hosts wrap what the guest said, such as msg.snapshot.error-QUIESCINGERROR.
    messages = getattr(fault, "faultMessage", None) or []
    return any("quiesc" in str(one.key).lower() for one in messages)


def not_quiesced(problem: str) -> Warning:
    """The warning of a snapshot that was to be quiesced and is not."""
    return Warning(
        "QUIESCE_FAILED",
        f"the guest could not be quiesced ({problem}): this restore point is as after a "
        "power failure; see whether VMware Tools run in the guest",
    )
