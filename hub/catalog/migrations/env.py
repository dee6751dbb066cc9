"""Run by Alembic, on the connection that the catalog hands over."""

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo

from hub.catalog.migrations import repeatable  # noqa: F401 - Alembic takes note of its classes
from hub.catalog.models import Base
from hub.catalog.schema import revisions


def tell(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """One line for each revision that was reached or left."""
    verb = "made " if step.is_upgrade else "undone"
    name = step.up_revision_id
    what = next((each.what for each in revisions() if each.name == name), "")
    context.config.attributes["report"](f"{verb}  {name}  {what}")


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    on_version_apply=tell,
)
with context.begin_transaction():
    context.run_migrations()
