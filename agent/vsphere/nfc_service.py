"""Tickets for NFC. The service is not in the public WSDL; pyVmomi learns it here."""

from collections.abc import Callable, Sequence
from typing import Any

from agent.transports.nfc.ticket import NfcTicket
from agent.vsphere.api import VmomiSupport, vim, vmodl
from agent.vsphere.properties import properties_of
from agent.vsphere.session import VsphereSession

_VM_TICKET = "NfcGetVmFiles"
_DISK_TICKET = "NfcRandomAccessOpenReadonly"
_VERSION = "vim.version.version2"
_NFC_PORT = 902

# Both names of a host's service are on record. VDDK asks the undocumented
# RetrieveInternalContent; asking by name costs a fault once, on hosts of the
# rarer kind, and needs no types that nobody published.
_HOST_MOREFS = ("ha-nfc-service", "ha-nfc")
_VCENTER_MOREFS = ("nfcService",)

_UNKNOWN_METHOD = (
    vmodl.fault.MethodNotFound,
    vmodl.fault.NotSupported,
    vmodl.fault.NotImplemented,
    vmodl.fault.InvalidRequest,
)


def _service_type() -> Any:
    """The managed type, registered once in this process."""
    try:
        return VmomiSupport.GetWsdlMethod("urn:vim25", _VM_TICKET).info.type
    except KeyError:
        pass
    vm = ("vm", "vim.VirtualMachine", _VERSION, 0, None)
    disk = (
        ("diskDeviceKey", "int", _VERSION, 0, None),
        ("hostForAccess", "vim.HostSystem", _VERSION, VmomiSupport.F_OPTIONAL, None),
    )
    ticket = (0, "vim.HostServiceTicket", "vim.HostServiceTicket")
    VmomiSupport.CreateManagedType(
        "vim.NfcService",
        "NfcService",
        "vmodl.ManagedObject",
        _VERSION,
        None,
        [
            ("getVmFiles", _VM_TICKET, _VERSION, (vm,), ticket, None, None),
            ("randomAccessOpenReadonly", _DISK_TICKET, _VERSION, (vm, *disk), ticket, None, None),
        ],
    )
    return VmomiSupport.GetWsdlMethod("urn:vim25", _VM_TICKET).info.type


class NfcTickets:
    """Asks one site's NFC service for tickets. Any thread may call.

    What the site was found to answer (name of the service) is remembered; two
    threads that find out at the same time find the same.
    """

    def __init__(self, session: VsphereSession) -> None:
        self._session = session
        self._on_host = session.content.about.apiType == "HostAgent"
        self._morefs: Sequence[str] = _HOST_MOREFS if self._on_host else _VCENTER_MOREFS

    def host_of(self, vm_moref: str) -> str:
        """The id of the host where the VM is: whose NFC service reads its disks.

        Empty when the account may not see it. Raises VsphereErrors.
        """
        vm = vim.VirtualMachine(vm_moref, self._session.stub)
        found = self._session.run(
            "tell the VM's host",
            lambda: properties_of(self._session, vm, ["runtime.host"]),
            repeatable=True,
        )
        host = found.get("runtime.host")
        return str(host._GetMoId()) if host is not None else ""

    def for_disk(self, vm_moref: str, disk_key: int) -> NfcTicket:
        """A ticket to read one disk of a VM once; the path given later says which link.

        Raises VsphereErrors, PermissionMissing among them.
        """
        session, settings = self._session, self._session.settings
        vm = vim.VirtualMachine(vm_moref, session.stub)
        ticket = session.run(
            "give a ticket to read the disk",
            lambda: self._of_known_service(lambda service: self._issue(service, vm, disk_key)),
            repeatable=True,
        )
        pinned = settings.pinned_fingerprint() if self._on_host else None
        return NfcTicket(
            # A host leaves itself unnamed: its authd is where its API is.
            host=str(ticket.host or settings.host_and_port()[0]),
            port=int(ticket.port or _NFC_PORT),
            thumbprint_sha1=str(ticket.sslThumbprint or "").replace(":", "").strip().lower(),
            service=str(ticket.service),
            session_id=str(ticket.sessionId),
            certificate_sha256=pinned or "",
        )

    def _of_known_service(self, issue: Callable[[Any], Any]) -> Any:
        """The ticket of the first service that exists. Raises pyVmomi's faults."""
        *others, last = self._morefs
        for moref in others:
            try:
                ticket = issue(_service_type()(moref, self._session.stub))
            except vmodl.fault.ManagedObjectNotFound as fault:
                if fault.obj is not None and fault.obj._GetMoId() != moref:
                    raise  # the VM is gone, not the service
                continue
            self._morefs = (moref,)
            return ticket
        ticket = issue(_service_type()(last, self._session.stub))
        self._morefs = (last,)
        return ticket

    def _issue(self, service: Any, vm: Any, disk_key: int) -> Any:
        # For the whole VM first: it is what VDDK asks for to read, on record for
        # vCenter and for a host of its own; the ticket of one disk is on record
        # for vCenter alone. Their privileges differ (GetVmFiles, DiskRandomRead):
        # a role may hold either.
        try:
            return getattr(service, _VM_TICKET)(vm)
        except _UNKNOWN_METHOD:
            return self._issue_for_disk(service, vm, disk_key)
        except vim.fault.NoPermission as refused:
            try:
                return self._issue_for_disk(service, vm, disk_key)
            except (vim.fault.NoPermission, *_UNKNOWN_METHOD):
                raise refused from None  # the one to name is that of the usual way

    def _issue_for_disk(self, service: Any, vm: Any, disk_key: int) -> Any:
        host = properties_of(self._session, vm, ["runtime.host"]).get("runtime.host")
        return getattr(service, _DISK_TICKET)(vm, disk_key, host)
