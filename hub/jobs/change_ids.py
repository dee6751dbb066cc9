"""The change id of a VM's disk, and why there is none."""

from hub.catalog.change_ids import DiskChangeId, change_id_by_word, change_id_of
from hub.catalog.contexts import VmIdentity
from hub.jobs.parts import Parts


def get_change_id(
    parts: Parts, *, vm: str, site: str, repository: str, disk_index: int
) -> DiskChangeId:
    """What the next increment of the disk would build on; `vm` as StartBackup takes it.

    A VM that a site reports is who that site says: contexts may have the name of one that
    was renamed since. Only of VMs that no site reports the contexts' names tell.

    Raises RepositoryNotFound, NoDefaultRepository, VmNotFound, VmAmbiguous,
    VmUnidentified, ChangeIdNotFound.
    """
    found = parts.agents.find_vm(vm, site)
    with parts.catalog.read() as session:
        if found is None:
            return change_id_by_word(
                session, vm=vm, site=site, repository=repository, disk_index=disk_index
            )
        identity = VmIdentity(
            site=found.site,
            instance_uuid=found.instance_uuid,
            moref=found.vmware_vm_id,
            name=found.name,
        )
        return change_id_of(session, identity, vm=vm, repository=repository, disk_index=disk_index)
