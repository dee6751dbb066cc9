"""The catalog's first schema: repositories, agents, contexts, jobs and disks."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

UTC = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TYPES = ("full", "incremental")
STATUSES = ("pending", "running", "completed", "failed", "cancelled")
LEVELS = ("crash", "file_system")
MARIADB: dict[str, Any] = {
    f"{dialect}_{key}": value
    for dialect in ("mysql", "mariadb")
    for key, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def checked(name: str, values: tuple[str, ...]) -> sa.Enum:
    """A string column held to these values by a CHECK constraint."""
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=16)


def upgrade() -> None:
    op.create_table(
        "agents",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("site", sa.String(length=128), nullable=False),
        sa.Column("hostname", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("vsphere_address", sa.String(length=255), nullable=False),
        sa.Column("vsphere_full_name", sa.String(length=255), nullable=False),
        sa.Column("vsphere_api_type", sa.String(length=64), nullable=False),
        sa.Column("vsphere_api_version", sa.String(length=64), nullable=False),
        sa.Column("connected_since", UTC, nullable=True),
        sa.Column("last_seen_at", UTC, nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
        sa.UniqueConstraint("site", name=op.f("uq_agents_site")),
        **MARIADB,
    )
    op.create_table(
        "backup_repositories",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backup_repositories")),
        sa.UniqueConstraint("name", name=op.f("uq_backup_repositories_name")),
        **MARIADB,
    )
    op.create_table(
        "vm_backup_contexts",
        sa.Column("context_id", sa.String(length=128), nullable=False),
        sa.Column("vm_name", sa.String(length=255), nullable=False),
        sa.Column("vmware_vm_id", sa.String(length=64), nullable=False),
        sa.Column("instance_uuid", sa.String(length=64), nullable=False),
        sa.Column("site", sa.String(length=128), nullable=False),
        sa.Column("repository_id", sa.String(length=128), nullable=False),
        sa.Column("total_backups_run", sa.Integer(), nullable=False),
        sa.Column("successful_backups", sa.Integer(), nullable=False),
        sa.Column("failed_backups", sa.Integer(), nullable=False),
        sa.Column("last_backup_id", sa.String(length=128), nullable=True),
        sa.Column("last_backup_type", checked("last_type", TYPES), nullable=True),
        sa.Column("last_backup_at", UTC, nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["backup_repositories.id"],
            name=op.f("fk_vm_backup_contexts_repository_id"),
        ),
        sa.PrimaryKeyConstraint("context_id", name=op.f("pk_vm_backup_contexts")),
        sa.UniqueConstraint(
            "site",
            "instance_uuid",
            "repository_id",
            name=op.f("uq_vm_backup_contexts_site_instance_uuid_repository_id"),
        ),
        **MARIADB,
    )
    op.create_index(
        op.f("ix_vm_backup_contexts_vm_name"), "vm_backup_contexts", ["vm_name"], unique=False
    )
    op.create_table(
        "backup_jobs",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("vm_backup_context_id", sa.String(length=128), nullable=False),
        sa.Column("repository_id", sa.String(length=128), nullable=False),
        sa.Column("run_number", sa.Integer(), nullable=False),
        sa.Column("active_context_id", sa.String(length=128), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("backup_type", checked("type", TYPES), nullable=False),
        sa.Column("requested_type", checked("requested_type", TYPES), nullable=True),
        sa.Column("quiesce", sa.Boolean(), nullable=False),
        sa.Column("status", checked("status", STATUSES), nullable=False),
        sa.Column("consistency", checked("consistency", LEVELS), nullable=True),
        sa.Column("snapshot", sa.String(length=64), nullable=False),
        sa.Column("other_snapshots", sa.JSON(), nullable=False),
        sa.Column("disk_count", sa.Integer(), nullable=False),
        sa.Column("bytes_planned", sa.BigInteger(), nullable=False),
        sa.Column("bytes_read", sa.BigInteger(), nullable=False),
        sa.Column("bytes_transferred", sa.BigInteger(), nullable=False),
        sa.Column("bytes_stored", sa.BigInteger(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("error_reason", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("cancel_requested_at", UTC, nullable=True),
        sa.Column("cancel_reason", sa.Text(), nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("started_at", UTC, nullable=True),
        sa.Column("completed_at", UTC, nullable=True),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["backup_repositories.id"], name=op.f("fk_backup_jobs_repository_id")
        ),
        sa.ForeignKeyConstraint(
            ["vm_backup_context_id"],
            ["vm_backup_contexts.context_id"],
            name=op.f("fk_backup_jobs_vm_backup_context_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backup_jobs")),
        sa.UniqueConstraint("active_context_id", name=op.f("uq_backup_jobs_active_context_id")),
        sa.UniqueConstraint("request_id", name=op.f("uq_backup_jobs_request_id")),
        sa.UniqueConstraint(
            "vm_backup_context_id",
            "run_number",
            name=op.f("uq_backup_jobs_vm_backup_context_id_run_number"),
        ),
        **MARIADB,
    )
    op.create_index(op.f("ix_backup_jobs_created_at"), "backup_jobs", ["created_at"], unique=False)
    op.create_index(op.f("ix_backup_jobs_status"), "backup_jobs", ["status"], unique=False)
    op.create_table(
        "backup_disks",
        sa.Column("id", ROW_NUMBER, autoincrement=True, nullable=False),
        sa.Column("vm_backup_context_id", sa.String(length=128), nullable=False),
        sa.Column("backup_job_id", sa.String(length=128), nullable=False),
        sa.Column("disk_index", sa.Integer(), nullable=False),
        sa.Column("vmware_disk_key", sa.Integer(), nullable=False),
        sa.Column("disk_uuid", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=255), nullable=False),
        sa.Column("capacity_bytes", sa.BigInteger(), nullable=False),
        sa.Column("backup_type", checked("type", TYPES), nullable=False),
        sa.Column("base_disk_id", ROW_NUMBER, nullable=True),
        sa.Column("disk_change_id", sa.String(length=255), nullable=False),
        sa.Column("qcow2_path", sa.String(length=512), nullable=True),
        sa.Column("bytes_planned", sa.BigInteger(), nullable=False),
        sa.Column("bytes_read", sa.BigInteger(), nullable=False),
        sa.Column("bytes_transferred", sa.BigInteger(), nullable=False),
        sa.Column("bytes_stored", sa.BigInteger(), nullable=False),
        sa.Column("root_digest", sa.String(length=64), nullable=True),
        sa.Column("status", checked("status", STATUSES), nullable=False),
        sa.Column("error_reason", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("sealed_at", UTC, nullable=True),
        sa.Column("completed_at", UTC, nullable=True),
        sa.ForeignKeyConstraint(
            ["backup_job_id"],
            ["backup_jobs.id"],
            name=op.f("fk_backup_disks_backup_job_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["base_disk_id"],
            ["backup_disks.id"],
            name=op.f("fk_backup_disks_base_disk_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["vm_backup_context_id"],
            ["vm_backup_contexts.context_id"],
            name=op.f("fk_backup_disks_vm_backup_context_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backup_disks")),
        sa.UniqueConstraint(
            "backup_job_id", "disk_index", name=op.f("uq_backup_disks_backup_job_id_disk_index")
        ),
        **MARIADB,
    )
    op.create_index(
        op.f("ix_backup_disks_base_disk_id"), "backup_disks", ["base_disk_id"], unique=False
    )
    op.create_index(
        op.f("ix_backup_disks_vm_backup_context_id"),
        "backup_disks",
        ["vm_backup_context_id"],
        unique=False,
    )


def downgrade() -> None:
    for table in (
        "backup_disks",
        "backup_jobs",
        "vm_backup_contexts",
        "backup_repositories",
        "agents",
    ):
        op.drop_table(table)
