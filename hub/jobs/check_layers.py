"""Whether the layers that the catalog counts on are in their repositories, with their sizes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hub.catalog.check import Finding
from hub.catalog.engine import Catalog
from hub.catalog.layers import StoredLayer, is_stored, stored_layers
from hub.catalog.repositories import all_repositories
from hub.jobs.repositories import open_repository
from hub.repository.paths import manifest_path
from shared.errors import SendenseError


@dataclass
class CheckedLayers:
    """What was looked at, what is wrong, and which repositories could not be asked."""

    layers: int = 0
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def check_layers(catalog: Catalog) -> CheckedLayers:
    """Look for the file of every completed disk; none is opened. Raises CatalogUnavailable."""
    checked = CheckedLayers()
    with catalog.read() as session:
        rows = all_repositories(session)
    for row in rows:
        try:
            folder = open_repository(row).path
        except SendenseError as error:
            checked.remarks.append(f"layers of repository {row.name} were not looked for: {error}")
            continue
        for layer in _layers(catalog, row.id):
            checked.layers += 1
            problem = _problem(folder, layer)
            # A hub may have deleted the backup since its row was read.
            if problem and _still_stored(catalog, layer):
                checked.findings.append(_finding(row.name, layer, problem))
    return checked


def _finding(repository: str, layer: StoredLayer, problem: str) -> Finding:
    return Finding(
        "files",
        f"repository {repository}, job {layer.job_id}",
        f"{problem}; put the file back from a copy of the repository, or give the backup up "
        f"with sendense job delete {layer.job_id}",
    )


def _layers(catalog: Catalog, repository_id: str) -> Iterator[StoredLayer]:
    """In pages: no read transaction is open while files are looked for."""
    after = 0
    while True:
        with catalog.read() as session:
            page = stored_layers(session, repository_id, after)
        yield from page
        if not page:
            return
        after = page[-1].disk_id


def _still_stored(catalog: Catalog, layer: StoredLayer) -> bool:
    with catalog.read() as session:
        return is_stored(session, layer.disk_id)


def _problem(repository: Path, layer: StoredLayer) -> str:
    names = [layer.path] if layer.is_imported else [layer.path, manifest_path(layer.path)]
    size_bytes = 0
    for name in names:
        try:
            size_bytes += (repository / name).stat().st_size
        except OSError as error:
            return f"{name}: {error.strerror}"
    if size_bytes == layer.bytes_stored:
        return ""
    what = "the layer has" if layer.is_imported else "layer and manifest have"
    return f"{layer.path}: {what} {size_bytes} bytes, not the {layer.bytes_stored} that were stored"
