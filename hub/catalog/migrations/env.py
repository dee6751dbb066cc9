"""Run by Alembic, on the connection that the catalog hands over."""

from typing import Any

from alembic import context

from hub.catalog.migrations import repeatable  # noqa: F401 - Alembic takes note of its classes
from hub.catalog.models import Base


def tell(*, step: Any, **more: Any) -> None:
    """One line for each revision that was reached or left."""
    verb = "made " if step.is_upgrade else "undone"
    revision = step.up_revision
    context.config.attributes["report"](f"{verb}  {revision.revision}  {revision.doc}")


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    on_version_apply=tell,
)
with context.begin_transaction():
    context.run_migrations()
