"""An earlier system as it is found: layers made by qemu-img, and a catalog that tells of them."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, text

from sendense.clusters import CLUSTER_BYTES

FIRST = datetime(2025, 10, 8, 19, 6, 0, 123456, tzinfo=UTC)
EPOCH = 1759946759
VM = "pgtest1"
REPOSITORY = "repo-local-1"
CLUSTERS = 16

JOBS = {
    "id": "VARCHAR(191)",
    "disk_id": "INTEGER",
    "change_id": "VARCHAR(255)",
    "vm_name": "VARCHAR(255)",
    "vm_backup_context_id": "VARCHAR(64)",
    "repository_id": "VARCHAR(64)",
    "policy_id": "VARCHAR(64)",
    "repository_path": "VARCHAR(512)",
    "parent_backup_id": "VARCHAR(191)",
    "backup_type": "VARCHAR(32)",
    "status": "VARCHAR(32)",
    "bytes_transferred": "BIGINT",
    "total_bytes": "BIGINT",
    "error_message": "TEXT",
    "created_at": "DATETIME(6)",
    "started_at": "DATETIME(6)",
    "completed_at": "DATETIME(6)",
}
CONTEXTS = {
    "context_id": "VARCHAR(64)",
    "vm_name": "VARCHAR(255)",
    "vmware_vm_id": "VARCHAR(64)",
    "vm_path": "VARCHAR(512)",
    "vcenter_host": "VARCHAR(255)",
    "datacenter": "VARCHAR(255)",
    "repository_id": "VARCHAR(64)",
    "total_backups_run": "INTEGER",
    "last_backup_id": "VARCHAR(64)",
    "created_at": "DATETIME(6)",
}
DISKS = {
    "id": "BIGINT",
    "vm_backup_context_id": "VARCHAR(64)",
    "backup_job_id": "VARCHAR(191)",
    "disk_index": "INTEGER",
    "vmware_disk_key": "INTEGER",
    "size_gb": "BIGINT",
    "disk_change_id": "VARCHAR(255)",
    "qcow2_path": "VARCHAR(512)",
    "bytes_transferred": "BIGINT",
    "status": "VARCHAR(32)",
    "error_message": "TEXT",
    "created_at": "DATETIME(6)",
    "completed_at": "DATETIME(6)",
}
REPOSITORIES = {
    "id": "VARCHAR(64)",
    "name": "VARCHAR(255)",
    "repository_type": "VARCHAR(32)",
    "config": "TEXT",
}

Row = dict[str, Any]


@dataclass
class OldSystem:
    """Files in `folder`, and the rows of `tables` by their name; tests break what they want to."""

    folder: Path
    url: str
    cache: Path  # of layers, shared by tests
    tables: dict[str, list[Row]] = field(default_factory=dict)
    columns: dict[str, dict[str, str]] = field(
        default_factory=lambda: {
            "backup_jobs": dict(JOBS),
            "vm_backup_contexts": dict(CONTEXTS),
            "backup_disks": dict(DISKS),
            "backup_repositories": dict(REPOSITORIES),
        }
    )
    # What each layer's disk holds, by file.
    content: dict[Path, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self.columns:
            self.tables.setdefault(name, [])

    @property
    def jobs(self) -> list[Row]:
        return self.tables["backup_jobs"]

    @property
    def disks(self) -> list[Row]:
        return self.tables["backup_disks"]

    def job(self, row_id: str) -> Row:
        """The row of backup_jobs with that id."""
        (found,) = [row for row in self.jobs if row["id"] == row_id]
        return found

    def row(self, run: int, disk: int) -> Row:
        """The row of the disk in the k-th backup of `add_backups`, from 0."""
        return self.job(disk_id(run, disk))

    def file(self, run: int, disk: int) -> Path:
        return Path(self.row(run, disk)["repository_path"])

    def add_context(self, **more: Any) -> Row:
        row = {
            "context_id": "ctx-pgtest1-20251006-203401",
            "vm_name": VM,
            "vmware_vm_id": "vm-1",
            "vm_path": "/DC/vm/pgtest1",
            "vcenter_host": "vcenter.example",
            "datacenter": "DC",
            "repository_id": REPOSITORY,
            "total_backups_run": 7,
            "last_backup_id": "",
            "created_at": FIRST,
        } | more
        self.tables["vm_backup_contexts"].append(row)
        return row

    def add_repository(self, path: Path | None = None, **more: Any) -> Row:
        row = {
            "id": REPOSITORY,
            "name": "Local SSD",
            "repository_type": "local",
            "config": json.dumps({"path": str(path or self.folder)}),
        } | more
        self.tables["backup_repositories"].append(row)
        return row

    def add_backups(
        self,
        runs: int = 7,
        disks: int = 3,
        *,
        parents: str = "group",
        fulls: Iterable[int] = (0,),
        vm: str = VM,
    ) -> None:
        """Backups with rows and layers. `parents`: "group", "chain" or "none" is what rows name."""
        fulls = set(fulls)
        for run in range(runs):
            for disk in range(disks):
                full = run in fulls
                base = None if full else self._path(run - 1, disk, vm)
                path = self.add_layer(self._path(run, disk, vm), run, disk, base)
                parent = {
                    "group": group_id(run, vm),
                    "chain": None if full else disk_id(run - 1, disk, vm),
                    "none": None,
                }[parents]
                self.add_row(run, disk, path, full=full, parent=parent, vm=vm)

    def add_row(
        self,
        run: int,
        disk: int,
        path: Path,
        *,
        full: bool,
        parent: str | None,
        vm: str = VM,
        **more: Any,
    ) -> Row:
        # Disks of a backup begin hours apart, and backups follow each other within a second.
        made = FIRST + timedelta(hours=3 * run, minutes=80 * disk)
        row = {
            "id": disk_id(run, disk, vm),
            "disk_id": disk,
            "change_id": f"52 3c ec 11-{disk}/{run + 1}",
            "vm_name": vm,
            "vm_backup_context_id": None,
            "repository_id": REPOSITORY,
            "policy_id": "nightly",
            "repository_path": str(path),
            "parent_backup_id": parent,
            "backup_type": "full" if full else "incremental",
            "status": "completed",
            "bytes_transferred": 4096 * (run + 1),
            "total_bytes": CLUSTERS * CLUSTER_BYTES,
            "error_message": None,
            "created_at": made,
            "started_at": made,
            "completed_at": made + timedelta(minutes=5),
        } | more
        self.jobs.append(row)
        return row

    def add_layer(self, path: Path, run: int, disk: int, base: Path | None = None) -> Path:
        """A layer with some clusters of its own, over its base's."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = CLUSTERS * CLUSTER_BYTES + 512 * (disk + 1)
        content = bytearray(self.content[base] if base is not None else bytes(size))
        # Relative: the same layer in another test is a copy.
        below = os.path.relpath(base, path.parent) if base is not None else ""
        backing = ("-b", below, "-F", "qcow2") if below else ()
        made = self.cache / hashlib.sha256(f"{run} {disk} {below} ".encode() + content).hexdigest()
        writes = self._writes(content, run, disk, is_full=base is None)
        self.content[path] = bytes(content)
        if made.exists():
            shutil.copyfile(made, path)
            return path
        qemu_img("create", "-f", "qcow2", *backing, str(path), *(() if below else (str(size),)))
        commands = [part for each in writes for part in ("-c", each)]
        subprocess.run(
            ["qemu-io", "-f", "qcow2", *commands, str(path)],
            check=True,
            capture_output=True,
            timeout=60,
        )
        shutil.copyfile(path, made)
        return path

    @staticmethod
    def _writes(content: bytearray, run: int, disk: int, *, is_full: bool) -> list[str]:
        """What the layer changes, done to `content`, as commands of qemu-io."""
        writes: list[str] = []
        for number in range(4):
            start = (run * 7 + disk * 3 + number * 9) % CLUSTERS * CLUSTER_BYTES + 4096 * number
            length = min(3 * 4096 + 512 * run, len(content) - start)
            letter = 0x41 + (run * 4 + disk * 11 + number) % 190
            content[start : start + length] = bytes([letter]) * length
            writes.append(f"write -P {letter} {start} {length}")
        if not is_full:
            # What was there becomes zeros: it must not come back from below.
            start = (run * 5 + disk) % CLUSTERS * CLUSTER_BYTES
            content[start : start + CLUSTER_BYTES] = bytes(CLUSTER_BYTES)
            writes.append(f"write -z {start} {CLUSTER_BYTES}")
        return writes

    def save(self) -> None:
        """Write the tables, replacing what was saved before."""
        engine = create_engine(self.url)
        try:
            with engine.begin() as connection:
                for name, columns in self.columns.items():
                    self._save_table(connection, name, columns)
        finally:
            engine.dispose()

    def hashes(self) -> dict[str, tuple[str, int]]:
        """Digest and time of change of every file."""
        return {
            str(path.relative_to(self.folder)): (
                hashlib.sha256(path.read_bytes()).hexdigest(),
                path.stat().st_mtime_ns,
            )
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    def _path(self, run: int, disk: int, vm: str) -> Path:
        return (
            self.folder / f"ctx-{vm}-1" / f"disk-{2000 + disk}" / f"{disk_id(run, disk, vm)}.qcow2"
        )

    def _save_table(self, connection: Connection, name: str, columns: Mapping[str, str]) -> None:
        connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
        described = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        options = " DEFAULT CHARSET=utf8mb4" if connection.dialect.name != "sqlite" else ""
        connection.execute(text(f"CREATE TABLE {name} ({described}){options}"))
        names = ", ".join(columns)
        places = ", ".join(f":{column}" for column in columns)
        insert = text(f"INSERT INTO {name} ({names}) VALUES ({places})")  # noqa: S608 - our names
        for row in self.tables[name]:
            connection.execute(insert, {column: row.get(column) for column in columns})


def group_id(run: int, vm: str = VM) -> str:
    """Of the k-th backup, as the old system named it."""
    return f"backup-{vm}-{EPOCH + run}"


def disk_id(run: int, disk: int, vm: str = VM) -> str:
    return f"{group_id(run, vm)}-disk{disk}-20251008-{190600 + run}"


def qemu_img(*arguments: str) -> str:
    done = subprocess.run(
        ["qemu-img", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
