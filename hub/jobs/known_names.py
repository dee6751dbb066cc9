"""Whether names that a request filters by name anything: a misspelt one is no empty list."""

from hub.catalog.agents import is_known_site
from hub.catalog.lists import list_contexts
from hub.errors import SiteNotFound, VmUnheardOf
from hub.jobs.parts import Parts


def require_site(parts: Parts, site: str) -> None:
    """Raises SiteNotFound when no agent serves the site and no VM of it was backed up; "" is
    any site."""
    if not site:
        return
    with parts.catalog.read() as session:
        if not is_known_site(session, site):
            raise SiteNotFound(site)


def require_vm_name(parts: Parts, vm_name: str) -> None:
    """Raises VmUnheardOf when no site reported such a VM and none was backed up; "" is any VM."""
    if not vm_name or parts.agents.reported(name=vm_name):
        return
    with parts.catalog.read() as session:
        contexts, _ = list_contexts(session, vm_name=vm_name, page_size=1)
    if not contexts:
        raise VmUnheardOf(vm_name)
