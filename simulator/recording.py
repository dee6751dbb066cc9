"""Keeps a raw copy of every disk as each snapshot froze it, so that restores can be compared."""

import os
from pathlib import Path

from simulator.disks.link import ChainView, Link
from simulator.disks.sparse import copy_range


def record_link(link: Link, target: Path) -> None:
    """Write what a frozen link shows to a sparse file. An earlier one of that name is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(target.name + ".unfinished")
    fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, link.capacity_bytes)
        for segment in ChainView(link).segments(0, link.capacity_bytes):
            if segment.link is not None:
                copy_range(segment.link.fd, segment.offset, fd, segment.offset, segment.length)
    finally:
        os.close(fd)
    unfinished.replace(target)
