"""Administration: disabled repositories, draining agents, inventories, retries, deletions, imports."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

UTC = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BLOB = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
MARIADB: dict[str, Any] = {
    f"{dialect}_{key}": value
    for dialect in ("mysql", "mariadb")
    for key, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}
COLUMNS: tuple[tuple[str, str], ...] = (
    ("backup_repositories", "disabled"),
    ("agents", "draining"),
    ("vm_backup_contexts", "restore_point_count"),
    ("vm_backup_contexts", "bytes_stored"),
    ("backup_jobs", "imported_at"),
    ("backup_disks", "legacy_id"),
)
LISTED = ("status", "backup_type", "created_at", "id")
INDEXES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # Before the longer one: InnoDB checks the foreign key by the first that fits, and
    # would lock the repository with every change of a job's status.
    ("ix_backup_jobs_repository_id", "backup_jobs", ("repository_id",)),
    ("ix_backup_jobs_listed", "backup_jobs", (*LISTED, "vm_backup_context_id")),
    ("ix_backup_jobs_listed_of_repository", "backup_jobs", ("repository_id", *LISTED)),
    ("ix_backup_jobs_listed_of_context", "backup_jobs", ("vm_backup_context_id", *LISTED)),
    (
        "ix_backup_jobs_added_up",
        "backup_jobs",
        (
            *("created_at", "repository_id", "status", "backup_type", "started_at"),
            *("completed_at", "bytes_read", "bytes_transferred", "bytes_stored"),
        ),
    ),
    ("ix_vm_backup_contexts_named", "vm_backup_contexts", ("vm_name", "context_id")),
    ("ix_vm_backup_contexts_of_site", "vm_backup_contexts", ("site", "vm_name", "context_id")),
    (
        "ix_vm_backup_contexts_of_repository",
        "vm_backup_contexts",
        ("repository_id", "vm_name", "context_id"),
    ),
    (
        "ix_vm_backup_contexts_of_site_and_repository",
        "vm_backup_contexts",
        ("site", "repository_id", "vm_name", "context_id"),
    ),
    ("ix_vm_backup_contexts_vmware_vm_id", "vm_backup_contexts", ("vmware_vm_id",)),
    ("ix_vm_backup_contexts_instance_uuid", "vm_backup_contexts", ("instance_uuid",)),
)
# Those of 0001 that the new ones stand for.
REPLACED: tuple[tuple[str, str, str], ...] = (
    ("ix_backup_jobs_created_at", "backup_jobs", "created_at"),
    ("ix_backup_jobs_status", "backup_jobs", "status"),
    ("ix_vm_backup_contexts_vm_name", "vm_backup_contexts", "vm_name"),
)
# MariaDB made these by itself for foreign keys, and dropped them for the new ones.
OF_FOREIGN_KEYS: tuple[tuple[str, str, str], ...] = (
    ("fk_backup_jobs_repository_id", "backup_jobs", "repository_id"),
    ("fk_vm_backup_contexts_repository_id", "vm_backup_contexts", "repository_id"),
)


def upgrade() -> None:
    for table, name in (("backup_repositories", "disabled"), ("agents", "draining")):
        op.add_column(
            table, sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())
        )
    op.add_column(
        "vm_backup_contexts",
        sa.Column("restore_point_count", sa.Integer(), nullable=False, server_default=sa.text("0")),
    )
    op.add_column(
        "vm_backup_contexts",
        sa.Column("bytes_stored", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
    )
    op.add_column("backup_jobs", sa.Column("imported_at", UTC, nullable=True))
    op.add_column("backup_disks", sa.Column("legacy_id", sa.String(length=255), nullable=True))
    op.create_index("uq_backup_disks_legacy_id", "backup_disks", ["legacy_id"], unique=True)
    op.create_table(
        "agent_inventories",
        sa.Column("agent_id", sa.String(length=128), nullable=False),
        sa.Column("content", BLOB, nullable=False),
        sa.Column("reported_at", UTC, nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"],
            ["agents.id"],
            name=op.f("fk_agent_inventories_agent_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("agent_id", name=op.f("pk_agent_inventories")),
        **MARIADB,
    )
    op.create_table(
        "backup_retries",
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.Column("retry_of_job_id", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["backup_jobs.id"],
            name=op.f("fk_backup_retries_job_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["retry_of_job_id"],
            ["backup_jobs.id"],
            name=op.f("fk_backup_retries_retry_of_job_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_backup_retries")),
        **MARIADB,
    )
    op.create_index(
        op.f("ix_backup_retries_retry_of_job_id"),
        "backup_retries",
        ["retry_of_job_id"],
        unique=False,
    )
    op.create_table(
        "file_removals",
        sa.Column("id", ROW_NUMBER, autoincrement=True, nullable=False),
        sa.Column("repository_id", sa.String(length=128), nullable=False),
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("requested_at", UTC, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["backup_repositories.id"],
            name=op.f("fk_file_removals_repository_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_file_removals")),
        **MARIADB,
    )
    for column in ("repository_id", "job_id"):
        op.create_index(op.f(f"ix_file_removals_{column}"), "file_removals", [column], unique=False)
    for index, table, columns in INDEXES:
        op.create_index(op.f(index), table, columns, unique=False)
    for index, table, _ in REPLACED:
        op.drop_index(op.f(index), table_name=table)
    # What completion counts from now on.
    op.execute(
        "UPDATE vm_backup_contexts SET restore_point_count = (SELECT COUNT(*) FROM backup_jobs "
        "WHERE vm_backup_context_id = context_id AND status = 'completed'), "
        "bytes_stored = (SELECT COALESCE(SUM(backup_jobs.bytes_stored), 0) FROM backup_jobs "
        "WHERE vm_backup_context_id = context_id AND status = 'completed')"
    )


def downgrade() -> None:
    for index, table, column in REPLACED:
        op.create_index(op.f(index), table, [column], unique=False)
    if op.get_bind().dialect.name != "sqlite":
        for index, table, column in OF_FOREIGN_KEYS:
            op.create_index(op.f(index), table, [column], unique=False)
    for index, table, _ in INDEXES:
        op.drop_index(op.f(index), table_name=table)
    op.drop_table("file_removals")
    op.drop_table("backup_retries")
    op.drop_table("agent_inventories")
    op.drop_index("uq_backup_disks_legacy_id", table_name="backup_disks")
    for table, name in reversed(COLUMNS):
        op.drop_column(table, name)
