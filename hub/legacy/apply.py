"""The import's writing: folders become repositories, then one transaction a context."""

from pathlib import Path

import structlog

from hub.catalog import repositories as rules
from hub.catalog.legacy.write import WrittenContext, write_context
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.parts import Parts
from hub.jobs.repositories import MAX_PATH_CHARS
from hub.legacy.places import Place
from hub.legacy.plan import with_places
from hub.legacy.planned import ImportPlan, PlannedContext
from hub.repository import Repository
from hub.repository.errors import RepositoryUnusable

_log = structlog.get_logger(__name__)


def apply_plan(parts: Parts, plan: ImportPlan) -> list[WrittenContext]:
    """Write what is new. To be repeated when it was interrupted: what is there stays as it is.

    Raises CatalogUnavailable, RepositoryUnusable, RepositoryFull, RepositoryExists,
    InvalidArgument; contexts before the one that failed are imported then.
    """
    made = {str(place.root): _make(parts, place) for place in plan.new_places}
    return [
        _write(parts, context) for context in with_places(plan, made).contexts if context.new_jobs
    ]


def _make(parts: Parts, place: Place) -> str:
    """Take the folder over; the repository's id. Repeat it when it was interrupted."""
    path = str(place.root)
    if len(path) > MAX_PATH_CHARS:
        raise RepositoryUnusable(path, f"its path has more than {MAX_PATH_CHARS} characters")
    now = parts.now()
    with parts.catalog.read() as session:
        rules.require_free(session, name=place.name, path=path)
        marked = Repository.id_in(place.root)
        if marked is not None and rules.is_free_id(session, marked):
            repository_id = marked
        else:
            repository_id = rules.free_repository_id(session, place.name, now)
    Repository.adopt(place.root, repository_id=repository_id, name=place.name)
    with parts.catalog.write() as session:
        rules.add_repository(
            session,
            repository_id=repository_id,
            name=place.name,
            path=path,
            default=False,
            now=now,
        )
    _log.info("repository_adopted", repository=place.name, path=path)
    return repository_id


@retry_catalog
def _write(parts: Parts, context: PlannedContext) -> WrittenContext:
    with parts.catalog.write() as session:
        written = write_context(
            session,
            context,
            folder_exists=lambda name: _exists(context.place.root, name),
            now=parts.now(),
        )
    _log.info(
        "context_imported",
        context_id=written.context_id,
        vm=context.vm_name,
        jobs=len(written.job_ids),
    )
    return written


def _exists(root: Path, name: str) -> bool:
    return (root / name).exists() or (root / name).is_symlink()
