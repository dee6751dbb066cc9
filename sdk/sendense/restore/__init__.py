"""Restore of one disk to a local file: receive, check, decode, write, check again, name it."""

import os
from collections.abc import Callable
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import Literal

from sendense.clusters import CLUSTER_BYTES
from sendense.errors import InvalidArgument, typed_errors
from sendense.restore.decode import DecodePool
from sendense.restore.progress import RestoreProgress, RestoreResult
from sendense.restore.stream import RestoreStream, open_restore
from sendense.restore.target import Target
from sendense.restore.writers import DiskWriter, Qcow2DiskWriter, RawDiskWriter

__all__ = ["RestoreProgress", "RestoreResult", "restore_disk"]


def restore_disk(
    address: str,
    job_id: str,
    disk_index: int,
    path: str | PathLike[str],
    format: Literal["raw", "qcow2"] = "raw",
    *,
    overwrite: bool = False,
    progress: Callable[[RestoreProgress], None] | None = None,
    threads: int | None = None,
) -> RestoreResult:
    """Restore a disk to `path`; see `Client.restore_disk`, which is the public face of this.

    A crash leaves `<path>.partial`, which nobody takes for a disk and the next
    restore to `path` replaces; an error leaves nothing.
    """
    if format not in ("raw", "qcow2"):
        raise InvalidArgument(f"format {format!r} is neither raw nor qcow2")
    if threads is not None and threads < 1:
        raise InvalidArgument(f"{threads} threads cannot decode anything")
    target = Target(Path(path), overwrite=overwrite)
    target.check()
    with (
        typed_errors(address),
        open_restore(address, job_id, disk_index) as stream,
    ):
        header = stream.header
        # What is not known before (0, imported restore points) is found to be too much on the way.
        # Raw clusters of a QCOW2 file are aligned, which costs less than one cluster a frame.
        expected = header.cluster_count * CLUSTER_BYTES if format == "raw" else header.payload_bytes
        target.check_space(expected)
        with closing(target):
            target.open()
            _receive(stream, target, format, progress, threads or default_threads())
            root_digest = stream.check_root()
            target.commit()
        return RestoreResult(
            path=target.path,
            format=format,
            capacity_bytes=header.capacity_bytes,
            root_digest=root_digest,
            cluster_count=stream.cluster_count,
            payload_bytes=stream.payload_bytes,
            imported=header.imported,
        )


def default_threads() -> int:
    """Decoding threads: one per core this process may use, at most four."""
    return max(1, min(4, len(os.sched_getaffinity(0))))


def _receive(
    stream: RestoreStream,
    target: Target,
    format: Literal["raw", "qcow2"],
    progress: Callable[[RestoreProgress], None] | None,
    threads: int,
) -> None:
    capacity = stream.header.capacity_bytes
    writer: DiskWriter
    writer = (
        RawDiskWriter(target, capacity) if format == "raw" else Qcow2DiskWriter(target, capacity)
    )
    with DecodePool(threads, writer.write_decoded) as pool:
        for batch in stream.batches():
            writer.append(batch)
            pool.submit(batch)
            if progress is not None:
                progress(stream.progress())
        pool.finish()
    writer.finish()
