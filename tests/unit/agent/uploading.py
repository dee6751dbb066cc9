"""Uploads of disks from memory to a recording hub."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from agent.areas import Area, to_clusters, whole_disk
from agent.base_digests import BaseDigests
from agent.cancellation import Cancellation
from agent.disk_reads import DiskReads
from agent.patience import Patience
from agent.pipeline import EncoderPool
from agent.read_plan import ReadPlan
from agent.upload import UploadResult, upload_disk
from sendense.channel import open_channel
from tests.unit.agent.drawn_disks import MemoryReader
from tests.unit.agent.recording_hub import DEADLINE_S, RecordingHub, Upload

THREADS = ("read-", "answers-", "watch-", "base-digests-")
PATIENT = Patience(answer_s=60, seal_s=60, read_s=60)


@pytest.fixture(autouse=True)
def no_threads_are_left() -> Iterator[None]:
    yield
    end = time.monotonic() + DEADLINE_S
    while left := [t for t in threading.enumerate() if t.name.startswith(THREADS)]:
        assert time.monotonic() < end, f"threads left: {left}"
        left[0].join(0.1)


def uploaded(
    hub: RecordingHub,
    reader: MemoryReader,
    areas: list[Area] | None = None,
    *,
    base: bytes | None = None,
    cancellation: Cancellation | None = None,
    patience: Patience = PATIENT,
    told: dict[str, Any] | None = None,
) -> tuple[UploadResult, Upload]:
    """An upload of these areas, over that base when one is given; `told` changes the plan's facts."""
    if areas is None:
        areas = whole_disk(reader.capacity_bytes)
    areas = to_clusters(areas, reader.capacity_bytes)
    cancellation = cancellation or Cancellation()
    with (
        EncoderPool(2) as encoders,
        closing(open_channel(hub.address, dedicated=True)) as channel,
        closing(open_channel(hub.address, dedicated=True)) as base_channel,
        DiskReads(reader, "disk 1", cancellation=cancellation, read_s=patience.read_s) as reads,
    ):
        if base is None:
            plan = ReadPlan.allocated(areas)
        else:
            hub.bases["job-1", 1] = base
            plan = ReadPlan.changed(
                areas,
                BaseDigests(
                    base_channel,
                    job_id="job-1",
                    disk_index=1,
                    capacity_bytes=reader.capacity_bytes,
                    cancellation=cancellation,
                    answer_s=patience.answer_s,
                ),
            )
        result = upload_disk(
            channel,
            reads,
            replace(plan, **(told or {})),
            job_id="job-1",
            disk_index=1,
            encoders=encoders,
            cancellation=cancellation,
            patience=patience,
        )
    return result, hub.uploads["job-1", 1]
