"""What our own catalog has already, as far as an import asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hub.legacy.places import KnownRepository


@dataclass(frozen=True, slots=True)
class KnownDisk:
    """A disk row that was imported before."""

    legacy_id: str
    job_id: str
    context_id: str
    repository_id: str
    path: str


@dataclass(frozen=True, slots=True)
class KnownContext:
    context_id: str
    site: str
    instance_uuid: str
    repository_id: str
    vm_name: str
    moref: str


@dataclass(frozen=True, slots=True)
class KnownSite:
    """A site by its agent; the address is that of its vSphere."""

    site: str
    vsphere_address: str


@dataclass(frozen=True, slots=True)
class KnownCatalog:
    repositories: Sequence[KnownRepository]
    sites: Sequence[KnownSite]
    contexts: Mapping[str, KnownContext]
    disks: Mapping[str, KnownDisk]  # by legacy id
