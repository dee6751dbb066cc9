"""The tables of the catalog. Models never commit and hold no rules."""

from datetime import datetime
from typing import Any, ClassVar, Final, NotRequired, TypedDict

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from hub.catalog.columns import Blob, RowNumber, UtcDateTime, checked
from hub.jobs.states import BackupType, Consistency, ReadMethod, Status

# Binary collation: two sites or repositories may differ in case alone, as on SQLite.
MARIADB: Final = {
    f"{dialect}_{key}": value
    for dialect in ("mysql", "mariadb")
    for key, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}
ID_CHARS: Final = 128
# How the indexes of jobs go on, after what the jobs belong to.
LISTED: Final = ("status", "backup_type", "created_at", "id")
# Of what is said in words; MariaDB's TEXT has room for 64 KiB, more is refused.
MAX_TEXT_CHARS: Final = 4096


class WarningFacts(TypedDict):
    """One warning, as `backup_jobs.warnings` keeps it."""

    code: str
    message: str
    disk_label: NotRequired[str]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcDateTime()}


class BackupRepository(Base):
    """A folder of layers."""

    __tablename__ = "backup_repositories"
    __table_args__ = MARIADB

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    path: Mapped[str] = mapped_column(String(1024))
    is_default: Mapped[bool] = mapped_column(Boolean(), default=False)
    # No new backup starts there.
    disabled: Mapped[bool] = mapped_column(Boolean(), default=False, server_default=false())
    created_at: Mapped[datetime]


class Agent(Base):
    """The agent of one site, as it last registered."""

    __tablename__ = "agents"
    __table_args__ = MARIADB

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    site: Mapped[str] = mapped_column(String(ID_CHARS), unique=True)
    hostname: Mapped[str] = mapped_column(String(255), default="")
    version: Mapped[str] = mapped_column(String(64), default="")
    vsphere_address: Mapped[str] = mapped_column(String(255), default="")
    vsphere_full_name: Mapped[str] = mapped_column(String(255), default="")
    vsphere_api_type: Mapped[str] = mapped_column(String(64), default="")
    vsphere_api_version: Mapped[str] = mapped_column(String(64), default="")
    connected_since: Mapped[datetime | None]
    last_seen_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    # No new backup starts at its site.
    draining: Mapped[bool] = mapped_column(Boolean(), default=False, server_default=false())


class AgentInventory(Base):
    """The VMs that an agent reported last: what is known of a site while its agent is away."""

    __tablename__ = "agent_inventories"
    __table_args__ = MARIADB

    agent_id: Mapped[str] = mapped_column(
        ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True
    )
    # A sendense.v1.AgentInventory, compressed by zlib.
    content: Mapped[bytes] = mapped_column(Blob)
    reported_at: Mapped[datetime]


class VmBackupContext(Base):
    """One VM in one repository: where its chains live. A rename of the VM changes nothing."""

    __tablename__ = "vm_backup_contexts"
    # Lists in the order of the name, with or without a site and a repository; and a VM
    # by its moref or instance uuid.
    __table_args__ = (
        UniqueConstraint("site", "instance_uuid", "repository_id"),
        Index("ix_vm_backup_contexts_named", "vm_name", "context_id"),
        Index("ix_vm_backup_contexts_of_site", "site", "vm_name", "context_id"),
        Index("ix_vm_backup_contexts_of_repository", "repository_id", "vm_name", "context_id"),
        Index(
            "ix_vm_backup_contexts_of_site_and_repository",
            *("site", "repository_id", "vm_name", "context_id"),
        ),
        Index("ix_vm_backup_contexts_vmware_vm_id", "vmware_vm_id"),
        Index("ix_vm_backup_contexts_instance_uuid", "instance_uuid"),
        MARIADB,
    )

    context_id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    vm_name: Mapped[str] = mapped_column(String(255))
    vmware_vm_id: Mapped[str] = mapped_column(String(64))
    instance_uuid: Mapped[str] = mapped_column(String(64))
    site: Mapped[str] = mapped_column(String(ID_CHARS))
    repository_id: Mapped[str] = mapped_column(ForeignKey("backup_repositories.id"))
    # Jobs started; the number of the newest one is its run_number. This and the next two
    # count what ever happened: deleting a job takes nothing back.
    total_backups_run: Mapped[int] = mapped_column(Integer(), default=0)
    successful_backups: Mapped[int] = mapped_column(Integer(), default=0)
    failed_backups: Mapped[int] = mapped_column(Integer(), default=0)
    # Completed jobs that are there now, and the bytes they stored: what lists and
    # statistics would else have to count. Completion and deletion keep them.
    restore_point_count: Mapped[int] = mapped_column(Integer(), default=0, server_default=text("0"))
    bytes_stored: Mapped[int] = mapped_column(BigInteger(), default=0, server_default=text("0"))
    # Of the last completed job; written by its completion and by deletions.
    last_backup_id: Mapped[str | None] = mapped_column(String(ID_CHARS))
    last_backup_type: Mapped[BackupType | None] = mapped_column(checked(BackupType, "last_type"))
    last_backup_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    # tracking_trust.py has the rules of these three. Since when changed block tracking is
    # not believed, and the latest job that found it out; both NULL while it is believed.
    tracking_distrusted_since: Mapped[datetime | None]
    tracking_distrusted_job_id: Mapped[str | None] = mapped_column(String(ID_CHARS))
    # run_number of the job that ended the last distrust. Jobs before it may lack changes.
    tracking_trusted_from_run: Mapped[int] = mapped_column(
        Integer(), default=0, server_default=text("0")
    )

    repository: Mapped[BackupRepository] = relationship(lazy="joined", innerjoin=True)


class BackupJob(Base):
    """One backup of one VM. Its id is the parent of everything the backup made."""

    __tablename__ = "backup_jobs"
    # first_jobs.py says how the listed ones make every list quick. The last one has all that
    # statistics.py adds up: the rows of a month's jobs lie everywhere.
    __table_args__ = (
        UniqueConstraint("vm_backup_context_id", "run_number"),
        # With the context, whose name is asked for job after job: no row is read for it.
        Index("ix_backup_jobs_listed", *LISTED, "vm_backup_context_id"),
        Index("ix_backup_jobs_listed_of_repository", "repository_id", *LISTED),
        Index("ix_backup_jobs_listed_of_context", "vm_backup_context_id", *LISTED),
        Index(
            "ix_backup_jobs_added_up",
            *("created_at", "repository_id", "status", "backup_type", "started_at"),
            *("completed_at", "bytes_read", "bytes_transferred", "bytes_stored"),
        ),
        MARIADB,
    )

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    vm_backup_context_id: Mapped[str] = mapped_column(
        ForeignKey("vm_backup_contexts.context_id", ondelete="CASCADE")
    )
    # An index of its own: InnoDB would check the foreign key, and lock the repository,
    # with every change of a longer one's columns, the status above all.
    repository_id: Mapped[str] = mapped_column(ForeignKey("backup_repositories.id"), index=True)
    # 1, 2, 3, ... in the context: the order of its jobs, whatever the clock does.
    run_number: Mapped[int] = mapped_column(Integer())
    # The context while the job is pending or running, NULL after: with its unique
    # index, a second running job of a context cannot be stored.
    active_context_id: Mapped[str | None] = mapped_column(String(ID_CHARS), unique=True)
    request_id: Mapped[str | None] = mapped_column(String(ID_CHARS), unique=True)
    backup_type: Mapped[BackupType] = mapped_column(checked(BackupType, "type"))
    requested_type: Mapped[BackupType | None] = mapped_column(checked(BackupType, "requested_type"))
    quiesce: Mapped[bool] = mapped_column(Boolean(), default=False)
    status: Mapped[Status] = mapped_column(checked(Status, "status"))
    consistency: Mapped[Consistency | None] = mapped_column(checked(Consistency, "consistency"))
    snapshot: Mapped[str] = mapped_column(String(64), default="")
    # Names of the snapshots that the VM had beside the job's.
    other_snapshots: Mapped[list[str]] = mapped_column(JSON(), default=list)
    disk_count: Mapped[int] = mapped_column(Integer(), default=0)
    bytes_planned: Mapped[int] = mapped_column(BigInteger(), default=0)
    bytes_read: Mapped[int] = mapped_column(BigInteger(), default=0)
    bytes_transferred: Mapped[int] = mapped_column(BigInteger(), default=0)
    bytes_stored: Mapped[int] = mapped_column(BigInteger(), default=0)
    warnings: Mapped[list[WarningFacts]] = mapped_column(JSON(), default=list)
    error_reason: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text())
    # Every disk is sealed, and the snapshot stood until then.
    read_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    cancel_reason: Mapped[str | None] = mapped_column(Text())
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    # Taken over from the catalog of an earlier system, then; NULL: a job of this one.
    imported_at: Mapped[datetime | None]

    context: Mapped[VmBackupContext] = relationship(lazy="joined", innerjoin=True)
    disks: Mapped[list["BackupDisk"]] = relationship(
        order_by="BackupDisk.disk_index", back_populates="job", viewonly=True
    )
    retry: Mapped["BackupRetry | None"] = relationship(
        foreign_keys="BackupRetry.job_id", lazy="joined", viewonly=True
    )


class BackupRetry(Base):
    """A job that repeats another one. It goes with either of them."""

    __tablename__ = "backup_retries"
    __table_args__ = MARIADB

    job_id: Mapped[str] = mapped_column(
        ForeignKey("backup_jobs.id", ondelete="CASCADE"), primary_key=True
    )
    retry_of_job_id: Mapped[str] = mapped_column(
        ForeignKey("backup_jobs.id", ondelete="CASCADE"), index=True
    )


class BackupDisk(Base):
    """One disk of one job, keyed by (job, disk index); one layer file."""

    __tablename__ = "backup_disks"
    __table_args__ = (
        UniqueConstraint("backup_job_id", "disk_index"),
        Index("uq_backup_disks_legacy_id", "legacy_id", unique=True),
        MARIADB,
    )

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    vm_backup_context_id: Mapped[str] = mapped_column(
        ForeignKey("vm_backup_contexts.context_id", ondelete="CASCADE"), index=True
    )
    backup_job_id: Mapped[str] = mapped_column(ForeignKey("backup_jobs.id", ondelete="CASCADE"))
    disk_index: Mapped[int] = mapped_column(Integer())
    vmware_disk_key: Mapped[int] = mapped_column(Integer())
    disk_uuid: Mapped[str] = mapped_column(String(64))
    label: Mapped[str] = mapped_column(String(255))
    capacity_bytes: Mapped[int] = mapped_column(BigInteger())
    backup_type: Mapped[BackupType] = mapped_column(checked(BackupType, "type"))
    # InnoDB checks row by row: without an action on delete, it would refuse to delete a
    # context with a chain. That a base stays while an increment needs it is a rule of
    # delete_jobs.py; an increment that lost its base by plain SQL is no restore point.
    base_disk_id: Mapped[int | None] = mapped_column(
        ForeignKey("backup_disks.id", ondelete="SET NULL"), index=True
    )
    # NULL: backed up before it was recorded.
    read_method: Mapped[ReadMethod | None] = mapped_column(checked(ReadMethod, "read_method"))
    # Why the disk is not read by changed block tracking although it had a base to be.
    read_reason: Mapped[str | None] = mapped_column(Text())
    disk_change_id: Mapped[str] = mapped_column(String(255), default="")
    qcow2_path: Mapped[str | None] = mapped_column(String(512))
    bytes_planned: Mapped[int] = mapped_column(BigInteger(), default=0)
    bytes_read: Mapped[int] = mapped_column(BigInteger(), default=0)
    bytes_transferred: Mapped[int] = mapped_column(BigInteger(), default=0)
    bytes_stored: Mapped[int] = mapped_column(BigInteger(), default=0)
    # Read, found to be the base's already, and not sent.
    bytes_unchanged: Mapped[int] = mapped_column(BigInteger(), default=0, server_default=text("0"))
    # How far what tracking called unchanged was checked (SamplingFacts); all 0 when it was not.
    clusters_sampled: Mapped[int] = mapped_column(BigInteger(), default=0, server_default=text("0"))
    clusters_drawn_from: Mapped[int] = mapped_column(
        BigInteger(), default=0, server_default=text("0")
    )
    undetected_clusters_bound: Mapped[int] = mapped_column(
        BigInteger(), default=0, server_default=text("0")
    )
    clusters_missed: Mapped[int] = mapped_column(BigInteger(), default=0, server_default=text("0"))
    # How often its upload broke off and went on, and the payload bytes sent again for it.
    resume_count: Mapped[int] = mapped_column(Integer(), default=0, server_default=text("0"))
    bytes_resent: Mapped[int] = mapped_column(BigInteger(), default=0, server_default=text("0"))
    root_digest: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[Status] = mapped_column(checked(Status, "status"))
    error_reason: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text())
    created_at: Mapped[datetime]
    # The layer is on stable storage under its final name.
    sealed_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    # Id of the row in the earlier system's catalog that this one was made from. Such a
    # row has no root_digest, and its layer no manifest: it is never a base.
    legacy_id: Mapped[str | None] = mapped_column(String(255))

    # Joined as what it is: SQLite would work the outer join to a join out for all jobs.
    job: Mapped[BackupJob] = relationship(back_populates="disks", viewonly=True, innerjoin=True)
    base: Mapped["BackupDisk | None"] = relationship(remote_side=[id], viewonly=True)


class FileRemoval(Base):
    """A file or folder of a job that was deleted or did not succeed, until it is removed, too.

    Written in the transaction that deletes the rows or ends the job. What is not in this table is
    never removed for having no rows: an older copy of the catalog must not cost
    the restore points that it does not know.
    """

    __tablename__ = "file_removals"
    __table_args__ = MARIADB

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    repository_id: Mapped[str] = mapped_column(ForeignKey("backup_repositories.id"), index=True)
    # The deleted job. A job that has this id now keeps its files.
    job_id: Mapped[str] = mapped_column(String(ID_CHARS), index=True)
    # Relative to the repository: a job's folder, or an imported layer.
    path: Mapped[str] = mapped_column(String(1024))
    requested_at: Mapped[datetime]
