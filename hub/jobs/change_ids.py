"""The change id of a VM's disk, and why there is none."""

from hub.catalog.change_ids import DiskChangeId
from hub.catalog.change_ids import get_change_id as catalog_change_id
from hub.errors import ChangeIdNotFound, VmNotFound
from hub.jobs.parts import Parts


def get_change_id(
    parts: Parts, *, vm: str, site: str, repository: str, disk_index: int
) -> DiskChangeId:
    """As the catalog's rule; a VM that a site reports is known, if never backed up.

    Raises RepositoryNotFound, NoDefaultRepository, VmNotFound, VmAmbiguous,
    VmUnidentified, ChangeIdNotFound.
    """
    try:
        with parts.catalog.read() as session:
            return catalog_change_id(
                session, vm=vm, site=site, repository=repository, disk_index=disk_index
            )
    except VmNotFound as error:
        if parts.agents.find_vm(vm, site) is None:
            raise
        raise ChangeIdNotFound(vm, disk_index, "it was never backed up") from error
