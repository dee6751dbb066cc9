"""Who an old VM is for us: its site, its instance uuid, the context it may have already."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hub.catalog.contexts import IMPORTED_UUID
from hub.legacy.known import KnownCatalog, KnownContext
from hub.legacy.old_catalog import OldCatalog, OldVm
from shared.errors import ConfigurationError

_UUID_CHARS: Final = 64
_MOREF_CHARS: Final = 64
_NAME_CHARS: Final = 255


@dataclass(frozen=True, slots=True)
class Choices:
    """What the administrator says: repositories by old id, uuids by VM name, the site or ""."""

    repositories: Mapping[str, str]
    instance_uuids: Mapping[str, str]
    site: str


class NotPlaced(Exception):
    """A VM's backups have no place in our catalog; the text says why."""


class VmFinder:
    """Answers for one old catalog. Raises ConfigurationError for uuids of unknown VMs."""

    def __init__(self, catalog: OldCatalog, known: KnownCatalog, choices: Choices) -> None:
        self._catalog = catalog
        self._known = known
        self._choices = choices
        names = {disk.vm.vm_name for disk in catalog.disks}
        for name in choices.instance_uuids:
            if name not in names:
                raise ConfigurationError("--vm", f"the old catalog has no VM {name!r}")
            contexts = {disk.vm.context_id for disk in catalog.disks if disk.vm.vm_name == name}
            morefs = {catalog.contexts[each].moref for each in contexts if each in catalog.contexts}
            if len(morefs) > 1:
                raise ConfigurationError(
                    "--vm", f"several VMs of the old catalog have the name {name!r}"
                )

    def site(self, vm: OldVm) -> str:
        """As chosen; else that of the one agent which it must be. Raises NotPlaced."""
        if self._choices.site:
            return self._choices.site
        row = self._catalog.contexts.get(vm.context_id)
        host = row.vcenter_host.strip().lower() if row is not None else ""
        if host:
            found = [
                each.site
                for each in self._known.sites
                if _host_of(each.vsphere_address.strip().lower()) == _host_of(host)
            ]
            if len(found) == 1:
                return found[0]
            raise NotPlaced(
                f"it is not told which site its vCenter {host} is: no agent of one site alone "
                "has registered with that address; name it with --site"
            )
        if len(self._known.sites) == 1:
            return self._known.sites[0].site
        raise NotPlaced("it is not told which site it is at; name it with --site")

    def known_context(self, vm: OldVm, site: str, repository_id: str) -> KnownContext | None:
        """The context that backups of this VM into this repository have now. Raises NotPlaced."""
        if not repository_id:
            return None
        wanted = self.instance_uuid(vm)
        moref = self.moref(vm)
        there = [
            each
            for each in self._known.contexts.values()
            if each.site == site and each.repository_id == repository_id
        ]
        is_known = not wanted.startswith(IMPORTED_UUID)
        for each in there:
            if each.instance_uuid == wanted:
                if not is_known and each.vm_name != vm.vm_name:
                    raise NotPlaced(
                        f"its context would be that of {each.vm_name!r}; name it with --vm"
                    )
                return each
        if is_known or not moref:
            return None
        # As the next backup of the VM would find an imported context (hub.catalog.contexts).
        found = [each for each in there if (each.vm_name, each.moref) == (vm.vm_name, moref)]
        return found[0] if len(found) == 1 else None

    def moref(self, vm: OldVm) -> str:
        """As recorded, or ""."""
        row = self._catalog.contexts.get(vm.context_id)
        return row.moref if row is not None and len(row.moref) <= _MOREF_CHARS else ""

    def instance_uuid(self, vm: OldVm) -> str:
        """As chosen or recorded; else what stands for it until the VM's next backup. Raises NotPlaced."""
        if len(vm.vm_name) > _NAME_CHARS:
            raise NotPlaced(f"its name has more than {_NAME_CHARS} characters")
        chosen = self._choices.instance_uuids.get(vm.vm_name, "")
        row = self._catalog.contexts.get(vm.context_id)
        recorded = row.instance_uuid if row is not None else ""
        instance_uuid = (chosen or recorded).strip().lower()
        if instance_uuid:
            if len(instance_uuid) > _UUID_CHARS:
                raise NotPlaced(f"its instance uuid has more than {_UUID_CHARS} characters")
            return instance_uuid
        placeholder = f"{IMPORTED_UUID}{vm.context_id}"
        if vm.context_id and len(placeholder) <= _UUID_CHARS:
            return placeholder
        text = "\0".join((vm.vm_name, vm.repository_id, vm.context_id))
        return f"{IMPORTED_UUID}{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def _host_of(address: str) -> str:
    """`host` of `host` or `host:port`; an IPv6 address is left alone."""
    host, colon, port = address.rpartition(":")
    return host if colon and port.isdecimal() and ":" not in host else address
