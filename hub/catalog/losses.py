"""What an older schema cannot hold: told, and refused, before a downgrade."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, inspect, text

from hub.catalog.schema import BASE, revisions


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows, or facts in them, that the older schema has no place for."""

    count: int
    what: str
    instead: str  # what to do so that nothing is lost

    def __str__(self) -> str:
        return f"{self.count} {self.what}: {self.instead}"


@dataclass(frozen=True, slots=True)
class _Question:
    table: str
    column: str
    count: str  # SQL
    what: str
    instead: str


# By the revision that a downgrade takes back. How each disk was read is lost as well;
# only people look at it.
_QUESTIONS: Final[dict[str, tuple[_Question, ...]]] = {
    "0003": (
        _Question(
            *("vm_backup_contexts", "tracking_distrusted_since"),
            "SELECT count(*) FROM vm_backup_contexts WHERE tracking_distrusted_since IS NOT NULL",
            "VMs whose changed block tracking missed changes",
            "an older hub would believe it; back these VMs up once more, or keep this schema",
        ),
        _Question(
            *("vm_backup_contexts", "tracking_trusted_from_run"),
            "SELECT count(*) FROM vm_backup_contexts WHERE restore_point_count > 0 AND "
            "tracking_trusted_from_run > (SELECT COALESCE(MAX(run_number), 0) FROM backup_jobs "
            "WHERE vm_backup_context_id = context_id AND status = 'completed')",
            "VMs whose last backup may lack changes that were missed",
            "an older hub would build on it; back these VMs up once more, or keep this schema",
        ),
    ),
    "0002": (
        _Question(
            *("file_removals", "id", "SELECT count(*) FROM file_removals"),
            "files or folders of deleted backups still to be removed",
            "start the hub and let it remove them",
        ),
        _Question(
            "backup_jobs",
            "imported_at",
            "SELECT count(*) FROM backup_jobs WHERE imported_at IS NOT NULL",
            "imported backups",
            "an older hub cannot restore them; delete them, or keep this schema",
        ),
        _Question(
            "backup_repositories",
            "disabled",
            "SELECT count(*) FROM backup_repositories WHERE disabled",
            "disabled repositories",
            "an older hub would write into them; sendense repository enable, or keep this schema",
        ),
        _Question(
            *("agents", "draining", "SELECT count(*) FROM agents WHERE draining"),
            "agents being drained",
            "an older hub would give them backups; sendense agent resume, or keep this schema",
        ),
        _Question(
            *("backup_retries", "job_id", "SELECT count(*) FROM backup_retries"),
            "notes of which backup a retry repeats",
            "nothing keeps them; the backups themselves stay",
        ),
    ),
}


def losses(connection: Connection, current: str, target: str) -> list[Loss]:
    """What a downgrade from one known revision to an older one, or BASE, would lose."""
    names = [each.name for each in revisions()]
    first = 0 if target == BASE else names.index(target) + 1
    found = []
    for name in reversed(names[first : names.index(current) + 1]):
        for question in _QUESTIONS.get(name, ()):
            count = _count(connection, question)
            if count:
                found.append(Loss(count, question.what, question.instead))
    return found


def jobs(connection: Connection) -> int:
    """How many jobs the catalog has."""
    return _count(
        connection, _Question("backup_jobs", "id", "SELECT count(*) FROM backup_jobs", "", "")
    )


def _count(connection: Connection, question: _Question) -> int:
    """0 as well where an interrupted downgrade has taken the place away already."""
    inspector = inspect(connection)
    if not inspector.has_table(question.table):
        return 0
    if question.column not in {each["name"] for each in inspector.get_columns(question.table)}:
        return 0
    return int(connection.scalar(text(question.count)) or 0)
