"""Run by Alembic, on the connection that the catalog hands over."""

from alembic import context

from hub.catalog.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
