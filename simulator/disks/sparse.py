"""Sparse files: holes are found, kept and made, so that a large disk costs its data only."""

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

_KEEP_SIZE_AND_PUNCH_HOLE = 0x01 | 0x02
_ZEROS = bytes(1 << 20)
_COPY_BYTES = 8 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def data_extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the parts of [start, end) that the file system holds data for."""
    position = start
    while position < end:
        try:
            data = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end of the file
                return
            raise
        if data >= end:
            return
        hole = min(os.lseek(fd, data, os.SEEK_HOLE), end)
        yield data, hole - data
        position = hole


def copy_range(
    source: int, source_offset: int, target: int, target_offset: int, length: int
) -> None:
    """Copy bytes between two files, holes and all. The target must read as zeros there before."""
    shift = target_offset - source_offset
    for offset, extent in data_extents(source, source_offset, source_offset + length):
        _copy_data(source, offset, target, offset + shift, extent)


def _copy_data(
    source: int, source_offset: int, target: int, target_offset: int, length: int
) -> None:
    done = 0
    while done < length:
        part = os.pread(source, min(_COPY_BYTES, length - done), source_offset + done)
        if not part:
            raise OSError(errno.EIO, "the source file ended early")
        write_all(target, part, target_offset + done)
        done += len(part)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """`pwrite` until everything is written."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make [offset, offset + length) read as zeros, without storage where the file system can."""
    if length <= 0:
        return
    if _libc.fallocate(fd, _KEEP_SIZE_AND_PUNCH_HOLE, offset, length) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
        raise OSError(code, os.strerror(code))
    for at in range(offset, offset + length, len(_ZEROS)):
        write_all(fd, _ZEROS[: min(len(_ZEROS), offset + length - at)], at)


def stored_bytes(path: Path) -> int:
    """Bytes that the file takes on its file system."""
    return path.stat().st_blocks * 512
