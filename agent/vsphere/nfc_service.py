"""Tickets for NFC. The service is not in the public WSDL; pyVmomi learns it here."""

from typing import Any

from agent.transports.nfc.ticket import NfcTicket
from agent.vsphere.api import VmomiSupport, vim
from agent.vsphere.properties import properties_of
from agent.vsphere.session import VsphereSession

_OPEN = "NfcRandomAccessOpenReadonly"
_VERSION = "vim.version.version2"
_NFC_PORT = 902


def _service_type() -> Any:
    """The managed type, registered once in this process."""
    try:
        return VmomiSupport.GetWsdlMethod("urn:vim25", _OPEN).info.type
    except KeyError:
        pass
    parameters = (
        ("vm", "vim.VirtualMachine", _VERSION, 0, None),
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
        [("randomAccessOpenReadonly", _OPEN, _VERSION, parameters, ticket, None, None)],
    )
    return VmomiSupport.GetWsdlMethod("urn:vim25", _OPEN).info.type


def ticket_for_disk(session: VsphereSession, vm_moref: str, disk_key: int) -> NfcTicket:
    """A ticket to read one disk of a VM once; the path given later says which link.

    Raises VsphereErrors, PermissionMissing among them.
    """
    on_host = session.content.about.apiType == "HostAgent"
    vm = vim.VirtualMachine(vm_moref, session.stub)
    service = _service_type()("ha-nfc" if on_host else "nfcService", session.stub)

    def issue() -> Any:
        host = properties_of(session, vm, ["runtime.host"]).get("runtime.host")
        return getattr(service, _OPEN)(vm, disk_key, host)

    ticket = session.run("give a ticket to read the disk", issue, repeatable=True)
    settings = session.settings
    pinned = settings.pinned_fingerprint() if on_host else None
    return NfcTicket(
        host=str(ticket.host or settings.host_and_port()[0]),
        port=int(ticket.port or _NFC_PORT),
        thumbprint_sha1=str(ticket.sslThumbprint or "").replace(":", "").strip().lower(),
        service=str(ticket.service),
        session_id=str(ticket.sessionId),
        certificate_sha256=pinned or "",
    )
