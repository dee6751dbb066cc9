"""From a layer down to its full, through what the manifests say."""

from hub.repository.errors import LayerDamaged
from hub.repository.facts import LayerBase
from hub.repository.files import Descriptors
from hub.repository.journal import SealedManifest
from hub.repository.paths import checked_layer_path
from shared.errors import InvalidArgument


def open_lineage(files: Descriptors, layer: str) -> list[SealedManifest]:
    """The manifests of a layer and of all below it, newest first.

    Each must be what the one above was made on: job, disk, change id and root
    digest. Raises LayerDamaged naming the layer that is not.
    """
    manifests = [SealedManifest(files, layer)]
    while (base := manifests[-1].header.base) is not None:
        above = manifests[-1]
        try:
            checked_layer_path(base.path)
        except InvalidArgument as error:
            raise LayerDamaged(above.path, f"names a base that cannot be: {error}") from error
        if any(base.path == manifest.layer for manifest in manifests):
            raise LayerDamaged(above.path, f"its base {base.path} builds on it")
        below = SealedManifest(files, base.path)
        check_base(below, base)
        if below.footer.root_digest != above.header.base_root_digest:
            raise LayerDamaged(
                below.layer, f"is not the disk that {above.layer} was made on: other root digest"
            )
        if below.capacity_bytes > above.capacity_bytes:
            raise LayerDamaged(below.layer, f"is larger than {above.layer}, which builds on it")
        manifests.append(below)
    return manifests


def open_base(files: Descriptors, base: LayerBase, capacity_bytes: int) -> list[SealedManifest]:
    """The lineage of the base of a disk of that size, newest first.

    Raises LayerDamaged: it is not the base that the catalog names, it is larger than
    the disk, or one below it is not what it was made on.
    """
    layers = open_lineage(files, base.path)
    check_base(layers[0], base)
    if layers[0].capacity_bytes > capacity_bytes:
        raise LayerDamaged(
            base.path,
            f"is larger ({layers[0].capacity_bytes} bytes) than the disk to be backed up "
            f"({capacity_bytes} bytes): it cannot be its base",
        )
    return layers


def check_base(found: SealedManifest, expected: LayerBase) -> None:
    """Raise LayerDamaged unless the layer is that of the expected job, disk and change id."""
    identity = found.header.identity
    if (identity.job_id, identity.disk_index) != (expected.job_id, expected.disk_index):
        raise LayerDamaged(
            found.layer,
            f"belongs to disk {identity.disk_index} of job {identity.job_id}, "
            f"not to disk {expected.disk_index} of job {expected.job_id}",
        )
    if found.footer.change_id != expected.change_id:
        raise LayerDamaged(
            found.layer,
            f"has change id {found.footer.change_id!r}, not {expected.change_id!r}",
        )
