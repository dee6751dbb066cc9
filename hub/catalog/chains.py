"""Chains: a disk's row and those it builds on, down to its full, by foreign key."""

from typing import Final

from sqlalchemy import Integer, literal, select
from sqlalchemy.orm import Session, aliased, joinedload

from hub.catalog.models import BackupDisk
from hub.errors import ChainDamaged
from hub.jobs.states import BackupType, Status

# Rows of one question. Databases limit how deep a recursion goes, MySQL at 1000.
ROWS_AT_ONCE: Final = 500
_UNSUCCESSFUL: Final = (Status.FAILED, Status.CANCELLED)


def chain_of(session: Session, disk: BackupDisk) -> list[BackupDisk]:
    """The disk's row and those it builds on, newest first, each with its job and base.

    Raises ChainDamaged when the rows do not lead to a full of the same context. A
    disk whose job failed has no layer: its chain may end anywhere.
    """
    chain = [disk]
    seen = {disk.id}
    known: dict[int, BackupDisk] = {}
    while (base_id := chain[-1].base_disk_id) is not None:
        last = chain[-1]
        if base_id not in known:
            known |= _rows_below(session, base_id)
        base = known.get(base_id)
        if (
            base is None
            or base.id in seen
            or base.vm_backup_context_id != disk.vm_backup_context_id
            or base.status is not Status.COMPLETED
        ):
            raise ChainDamaged(last.qcow2_path or "", f"its base row {base_id} is unfit")
        seen.add(base.id)
        chain.append(base)
    last = chain[-1]
    if last.backup_type is not BackupType.FULL and last.status not in _UNSUCCESSFUL:
        raise ChainDamaged(last.qcow2_path or "", "it is an increment without a base")
    return chain


def _rows_below(session: Session, disk_id: int) -> dict[int, BackupDisk]:
    """The row and the next ones below it, by id."""
    first = select(
        BackupDisk.id, BackupDisk.base_disk_id, literal(1, Integer).label("depth")
    ).where(BackupDisk.id == disk_id)
    chain = first.cte("chain", recursive=True)
    below = aliased(BackupDisk)
    chain = chain.union_all(
        select(below.id, below.base_disk_id, chain.c.depth + 1)
        .join(chain, below.id == chain.c.base_disk_id)
        # Rows that lead back to themselves end here, too.
        .where(chain.c.depth < ROWS_AT_ONCE)
    )
    rows = session.scalars(
        select(BackupDisk)
        .join(chain, chain.c.id == BackupDisk.id)
        .options(joinedload(BackupDisk.job), joinedload(BackupDisk.base))
    )
    return {row.id: row for row in rows}
