"""VMs and sites that a request names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


@dataclass(eq=False)
class VmNotFound(SendenseError):
    """No agent reports such a VM."""

    code: ClassVar[str] = "VM_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = "no connected site has a VM {vm!r}; sendense vm list shows those known"

    vm: str
    site: str = ""

    def __str__(self) -> str:
        if not self.site:
            return super().__str__()
        return f"site {self.site!r} has no VM {self.vm!r}; sendense vm list shows those known"


@dataclass(eq=False)
class VmUnheardOf(VmNotFound):
    """Neither does an agent report such a VM, nor was one backed up."""

    text: ClassVar[str] = (
        "no VM {vm!r} was backed up, and no agent reports one; sendense context list shows "
        "the VMs that were backed up, sendense vm list those that agents report"
    )

    def __str__(self) -> str:
        if not self.site:
            return super().__str__()
        return (
            f"no VM {self.vm!r} of site {self.site!r} was backed up, and its agent reports none; "
            "sendense context list shows the VMs that were backed up"
        )


@dataclass(eq=False)
class SiteNotFound(SendenseError):
    """No agent ever registered for the site that a request names."""

    code: ClassVar[str] = "SITE_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = "there is no site {site!r}; sendense agent list shows all"

    site: str


@dataclass(eq=False)
class VmAmbiguous(SendenseError):
    """Several VMs answer to the name."""

    code: ClassVar[str] = "VM_AMBIGUOUS"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "several VMs match {vm!r}, at these sites: {sites}; name the site, "
        "or the VM by its instance uuid"
    )

    vm: str
    sites: Sequence[str]

    def __str__(self) -> str:
        return self.text.format(vm=self.vm, sites=", ".join(self.sites))


@dataclass(eq=False)
class TwinsAmbiguous(VmAmbiguous):
    """Several VMs of one site answer to the name: the site does not tell them apart."""

    text: ClassVar[str] = (
        "several VMs match {vm!r}, at these sites: {sites}; name the VM by its instance uuid, "
        "one of {instance_uuids}"
    )

    instance_uuids: Sequence[str]

    def __str__(self) -> str:
        return self.text.format(
            vm=self.vm,
            sites=", ".join(self.sites),
            instance_uuids=", ".join(self.instance_uuids),
        )


@dataclass(eq=False)
class VmUnidentified(SendenseError):
    """Backups of the VM could not be told from another VM's."""

    code: ClassVar[str] = "VM_UNIDENTIFIED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "VM {vm!r} cannot be told from others of its site: {problem}; give it an instance uuid of its own"
    )

    vm: str
    problem: str


@dataclass(eq=False)
class NoDisks(SendenseError):
    """The VM has no disk that can be backed up."""

    code: ClassVar[str] = "NO_DISKS"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "VM {vm!r} has no disk that can be backed up"

    vm: str
