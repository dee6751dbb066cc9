"""Which parts of an open disk are allocated, asked in requests of bounded size."""

import numpy as np

from agent.areas import Area
from agent.transports.errors import AllocationUnknown
from agent.transports.nfc.aio import Aio, OpenedFile, QueryAllocated
from agent.transports.nfc.session import RequestRefused, Session

CHUNK_BYTES = 64 << 10
CHUNKS_PER_QUERY = 256 << 10
"""16 GiB a query, 32 KiB of bitmap; VDDK documents twice as many as its limit."""


def allocated_areas(session: Session, opened: OpenedFile) -> list[Area]:
    """Ascending, disjoint, merged, inside the capacity.

    A query must start and end on the chunk grid; what a disk has beyond it
    (less than one chunk) counts as allocated.

    Raises AllocationUnknown when the host refuses, TransportErrors.
    """
    capacity = opened.capacity_bytes
    chunks = capacity // CHUNK_BYTES
    areas: list[Area] = []
    for first in range(0, chunks, CHUNKS_PER_QUERY):
        count = min(CHUNKS_PER_QUERY, chunks - first)
        query = QueryAllocated(opened.handle, CHUNK_BYTES, first * CHUNK_BYTES, count)
        session.expect_answer()
        try:
            query.check_reply(session.ask(Aio.QUERY_ALLOCATED, query.pack()))
        except RequestRefused as error:
            raise AllocationUnknown(session.path, str(error)) from error
        for start, length in _runs(session.receive(query.bitmap_bytes), count):
            _append(areas, (first + start) * CHUNK_BYTES, length * CHUNK_BYTES)
    if chunks * CHUNK_BYTES < capacity:
        _append(areas, chunks * CHUNK_BYTES, capacity - chunks * CHUNK_BYTES)
    return areas


def _runs(bitmap: bytes, count: int) -> list[tuple[int, int]]:
    """(first, length) of the runs of ones in `count` bits, least significant bit first."""
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), count=count, bitorder="little")
    edges = np.flatnonzero(np.diff(bits, prepend=0, append=0)).reshape(-1, 2)
    return [(int(start), int(end - start)) for start, end in edges]


def _append(areas: list[Area], start: int, length: int) -> None:
    if areas and areas[-1].end == start:
        areas[-1] = Area(areas[-1].start, areas[-1].length + length)
    else:
        areas.append(Area(start, length))
