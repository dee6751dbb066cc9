"""How each disk was read, how far changed block tracking was checked, and where it is not believed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"

UTC = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
METHODS = ("allocated", "changed", "compared")
CHECK = "ck_backup_disks_read_method"
COUNTS: tuple[str, ...] = (
    "bytes_unchanged",
    "clusters_sampled",
    "clusters_drawn_from",
    "undetected_clusters_bound",
    "clusters_missed",
)


def upgrade() -> None:
    _add_read_method()
    op.add_column("backup_disks", sa.Column("read_reason", sa.Text(), nullable=True))
    for name in COUNTS:
        op.add_column("backup_disks", _count(name, sa.BigInteger()))
    op.add_column("vm_backup_contexts", sa.Column("tracking_distrusted_since", UTC, nullable=True))
    op.add_column(
        "vm_backup_contexts",
        sa.Column("tracking_distrusted_job_id", sa.String(length=128), nullable=True),
    )
    op.add_column("vm_backup_contexts", _count("tracking_trusted_from_run", sa.Integer()))


def downgrade() -> None:
    for name in (
        "tracking_trusted_from_run",
        "tracking_distrusted_job_id",
        "tracking_distrusted_since",
    ):
        op.drop_column("vm_backup_contexts", name)
    for name in (*reversed(COUNTS), "read_reason"):
        op.drop_column("backup_disks", name)
    if op.get_bind().dialect.name != "sqlite":
        # SQLite has it in the column.
        op.drop_constraint(CHECK, "backup_disks", type_="check")
    op.drop_column("backup_disks", "read_method")


def _add_read_method() -> None:
    """With its check: SQLite adds one to a table only as part of a column."""
    if op.get_bind().dialect.name == "sqlite":
        values = ", ".join(f"'{method}'" for method in METHODS)
        op.execute(
            "ALTER TABLE backup_disks ADD COLUMN read_method VARCHAR(16) "
            f"CONSTRAINT {CHECK} CHECK (read_method IN ({values}))"
        )
        return
    kind = sa.Enum(*METHODS, name=op.f(CHECK), native_enum=False, create_constraint=True, length=16)
    op.add_column("backup_disks", sa.Column("read_method", kind, nullable=True))


def _count(name: str, kind: sa.types.TypeEngine[int]) -> sa.Column[int]:
    return sa.Column(name, kind, nullable=False, server_default=sa.text("0"))
