"""Faults of the property collector."""

from typing import ClassVar

from pydantic import Field

from simulator.faults.api_kinds import VimFaultName
from simulator.faults.kind import FaultKind, Scope


class PropertyHidden(FaultKind):
    """A property of the VM, with all below it, is not shown, as when its host is disconnected."""

    NAME: ClassVar[str] = "property-hidden"
    SCOPE: ClassVar[Scope] = Scope.VM

    path: str = Field(description="as in a PropertySpec, such as snapshot or config.hardware")
    fault: VimFaultName = Field("HostCommunication", description="vSphere's reason, by its name")

    def hides(self, asked: str) -> bool:
        """Whether a path that is asked for is among what is not shown."""
        return asked == self.path or asked.startswith((self.path + ".", self.path + "["))
