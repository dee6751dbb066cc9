"""How the simulated host answers where real hosts differ. What it does wrong: simulator.faults."""

from dataclasses import dataclass
from typing import Literal

from simulator.disks.tracking import RevertedTracking

DEFAULT_SLICE_BYTES = 32 << 30  # of disk that one QueryChangedDiskAreas covers
LARGEST_SLICE_AREAS = 2000
LARGEST_BUFFER_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Flavour:
    """What answers at the API, and how its NFC service is found."""

    api_type: Literal["HostAgent", "VirtualCenter"]
    nfc_moref: str
    nfc_service: str  # of tickets; authd connects it, plain or with "ssl" behind
    ticket_names_host: bool


FLAVOURS: dict[str, Flavour] = {
    # As captured on ESXi 8.0.3 without a vCenter.
    "esxi": Flavour("HostAgent", "ha-nfc-service", "nfc", ticket_names_host=False),
    # As other notes have it.
    "esxi_ha_nfc": Flavour("HostAgent", "ha-nfc", "ha-nfc", ticket_names_host=True),
    # A vCenter in front of the host, as far as API type and NFC tickets go.
    "vcenter": Flavour("VirtualCenter", "nfcService", "vpxa-nfc", ticket_names_host=True),
}


@dataclass(slots=True)
class Behaviour:
    """Settings of a running site; changing one takes effect at once."""

    flavour: Literal["esxi", "esxi_ha_nfc", "vcenter"] = "esxi"
    nfc_methods_refused: frozenset[str] = frozenset()  # WSDL names: MethodNotFound
    privileges_missing: frozenset[str] = frozenset()  # of the user's role: NoPermission
    star: Literal["allocated", "whole", "fault"] = "allocated"  # what change id * answers
    page_objects: int | None = None  # most objects in one RetrieveResult
    session_idle_s: float = 1800
    longest_wait_s: float = 1800  # of WaitForUpdatesEx without maxWaitSeconds
    nfc_idle_s: float = 900  # a reader that is silent for longer is dropped
    nfc_send_s: float = 60  # a reader that takes nothing for longer is dropped
    shuffle_fragments: bool = False  # read replies out of order, requests interleaved
    reverted_tracking: RevertedTracking = "new"  # what a revert makes of change tracking

    @property
    def site(self) -> Flavour:
        """What the flavour stands for."""
        return FLAVOURS[self.flavour]
