"""How far a job came that may go on: read to its end, and how often its uploads were resumed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"

UTC = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("backup_jobs", sa.Column("read_at", UTC, nullable=True))
    op.add_column("backup_disks", _count("resume_count", sa.Integer()))
    op.add_column("backup_disks", _count("bytes_resent", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("backup_disks", "bytes_resent")
    op.drop_column("backup_disks", "resume_count")
    op.drop_column("backup_jobs", "read_at")


def _count(name: str, kind: sa.types.TypeEngine[int]) -> sa.Column[int]:
    return sa.Column(name, kind, nullable=False, server_default=sa.text("0"))
