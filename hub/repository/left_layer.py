"""What an upload, or the hub's last run, left of a layer: found, cut where it is not whole,
gone on with (docs/formats.md, What a crash leaves).
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from hub.repository.errors import LayerDamaged, LayerWriteFailed
from hub.repository.facts import (
    NOTHING_DURABLE,
    DurableLayer,
    LayerBase,
    LayerIdentity,
    SealedLayer,
)
from hub.repository.file_calls import file_calls
from hub.repository.files import Descriptors, sync_folder, unlink_if_there
from hub.repository.journal import JournalReader, SealedManifest, has_trailer
from hub.repository.layer_files import LayerFiles
from hub.repository.manifest import LayerTotals, ManifestHeader
from hub.repository.paths import JOB_FACTS, PARTIAL_SUFFIX, manifest_path
from hub.repository.records import FrameRecord, ManifestInvalid
from sendense.clusters import CLUSTER_BYTES
from sendense.codec import EncodedClusters
from sendense.qcow2_placement import write_all

# How much of the layer's end is read back, and how many bytes of its records are held.
_TAIL_BYTES: Final = 64 << 20
_TAIL_RECORD_BYTES: Final = 2 << 20
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Point:
    """A place between two frames: what lies before it, and where it is in both files."""

    durable: DurableLayer
    journal_bytes: int
    data_end: int


@dataclass(frozen=True, slots=True)
class ReopenedLayer:
    """The files of an unfinished layer, cut behind its last good frame, and how far it is."""

    files: LayerFiles
    header: ManifestHeader
    durable: DurableLayer
    journal_bytes: int
    data_end: int
    journal_bytes_cut: int
    layer_bytes_cut: int


class LeftLayer:
    """The files of one disk of one job, which nobody is writing now."""

    def __init__(
        self, root: Path, layer: str, identity: LayerIdentity, base: LayerBase | None
    ) -> None:
        self._root = root
        self._layer = layer
        self._identity = identity
        self._base = base
        self._final_path = root / layer
        self._partial_path = root / (layer + PARTIAL_SUFFIX)
        self._manifest_path = root / manifest_path(layer)

    def sealed(
        self, change_id: str, accepts: Callable[[ManifestHeader], bool]
    ) -> tuple[SealedLayer, LayerTotals] | None:
        """The layer, if all of it is there and its header is accepted; one that only lacks its
        final name gets it.

        Raises LayerWriteFailed when that name belongs to another disk's layer, or
        to one that cannot be read; OSError.
        """
        if not os.path.lexists(self._final_path) and not self._publish_whole(change_id, accepts):
            return None
        try:
            with Descriptors(self._root) as files:
                manifest = SealedManifest(files, self._layer)
                manifest_bytes = files.size(manifest.path)
        except LayerDamaged as error:
            raise LayerWriteFailed(
                self._layer, f"there is a sealed layer of that name: {error}"
            ) from error
        if manifest.header.identity != self._identity:
            raise LayerWriteFailed(self._layer, "there is another disk's sealed layer of that name")
        footer = manifest.footer
        if not accepts(manifest.header) or footer.change_id != change_id:
            return None
        # Whoever gave it its name may not have come to this.
        sync_folder(self._final_path.parent)
        layer = SealedLayer(
            self._layer,
            footer.root_digest,
            footer.layer_bytes + manifest_bytes,
            footer.totals.clusters,
            footer.totals.zero_clusters,
        )
        return layer, footer.totals

    def reopen(self, accepts: Callable[[ManifestHeader], bool]) -> ReopenedLayer | None:
        """Open the unfinished layer behind its last good frame; None where there is none to go on with.

        What lies behind is cut off, and everything before is on stable storage. What
        cannot be gone on with stays as it is. Raises OSError.
        """
        if os.path.lexists(self._final_path):
            return None
        files = LayerFiles.reopen(self._root, self._layer)
        if files is None:
            return None
        try:
            with JournalReader(self._manifest_path) as journal:
                header = journal.header
            if accepts(header):
                return _cut(files, header)
        except ManifestInvalid as error:
            _log.warning("layer_not_reopened", layer=self._layer, problem=str(error))
        except BaseException:
            files.suspend()
            raise
        files.suspend()
        return None

    def is_own(self, header: ManifestHeader) -> bool:
        """Whether a header is that of this disk on this base."""
        return (header.identity, header.base) == (self._identity, self._base)

    def remove(self) -> None:
        """Remove the files, durably; none there is fine.

        Raises LayerWriteFailed for a sealed layer of a job whose facts are written: it
        may be a restore point that the catalog does not know of. OSError.
        """
        facts = self._final_path.parent / JOB_FACTS
        if os.path.lexists(self._final_path) and os.path.lexists(facts):
            raise LayerWriteFailed(
                self._layer, "there is a sealed layer of that name, of a job that was completed"
            )
        # The manifest last: without one, a layer file would look sealed.
        removed = [
            unlink_if_there(path)
            for path in (self._partial_path, self._final_path, self._manifest_path)
        ]
        if any(removed):
            sync_folder(self._final_path.parent)

    def _publish_whole(self, change_id: str, accepts: Callable[[ManifestHeader], bool]) -> bool:
        """Whether the partial layer was complete; it has its final name then."""
        files = LayerFiles.reopen(self._root, self._layer)
        if files is None:
            return False
        try:
            if not self._is_whole(files, change_id, accepts):
                return False
            with files.use():
                # The crash may have come before the last sync.
                file_calls().fsync(files.layer_fd)
                file_calls().fsync(files.manifest_fd)
                files.publish()
        finally:
            files.suspend()
        return True

    def _is_whole(
        self, files: LayerFiles, change_id: str, accepts: Callable[[ManifestHeader], bool]
    ) -> bool:
        if not has_trailer(self._manifest_path):
            return False
        try:
            with JournalReader(self._manifest_path) as journal:
                deque(journal.frames(), maxlen=0)
                footer = journal.footer
                return (
                    footer is not None
                    and accepts(journal.header)
                    and footer.change_id == change_id
                    and footer.layer_bytes == os.fstat(files.layer_fd).st_size
                )
        except ManifestInvalid:
            return False


def _cut(files: LayerFiles, header: ManifestHeader) -> ReopenedLayer:
    """Cut both files behind the last good frame, the journal first, durably."""
    calls = file_calls()
    end = _good_end(files)
    layer_bytes = os.fstat(files.layer_fd).st_size
    journal_bytes_cut = os.fstat(files.manifest_fd).st_size - end.journal_bytes
    layer_bytes_cut = max(0, layer_bytes - end.data_end)
    if journal_bytes_cut:
        calls.ftruncate(files.manifest_fd, end.journal_bytes)
    if layer_bytes_cut:
        calls.ftruncate(files.layer_fd, end.data_end)
    if any(os.pread(files.layer_fd, CLUSTER_BYTES, 0)):
        # The header of tables that were just cut off.
        write_all(files.layer_fd, [bytes(CLUSTER_BYTES)], 0, calls.pwritev)
    # Also when nothing was cut: the crash may have come before the last sync.
    calls.fsync(files.layer_fd)
    calls.fsync(files.manifest_fd)
    return ReopenedLayer(
        files,
        header,
        end.durable,
        end.journal_bytes,
        end.data_end,
        journal_bytes_cut,
        layer_bytes_cut,
    )


def _good_end(files: LayerFiles) -> _Point:
    """The place behind the last frame that is whole and, of the last ones, stored as recorded.

    Data is synced before its record is written, so all of them should be. Raises
    OSError, ManifestInvalid.
    """
    frame_limit: int | None = None
    while True:
        tail, end = _tail(files.manifest_path, frame_limit)
        wrong = next(
            (at for at, (_, frame) in enumerate(tail) if not _is_stored(files, frame)), None
        )
        if wrong is None:
            return end
        before = tail[wrong][0]
        if wrong > 0 or before.durable.frames == 0:
            return before
        # Not one frame of the tail is good: those before it are looked at, too.
        frame_limit = before.durable.frames


def _tail(
    manifest: Path, frame_limit: int | None
) -> tuple[list[tuple[_Point, FrameRecord]], _Point]:
    """The last of the frames, up to `frame_limit` of all, each with the place before it; the end."""
    tail: deque[tuple[_Point, FrameRecord]] = deque()
    with JournalReader(manifest) as journal:
        end = _Point(NOTHING_DURABLE, journal.valid_bytes, CLUSTER_BYTES)
        for placed in journal.frames():
            if end.durable.frames == frame_limit:
                break
            tail.append((end, placed.frame))
            end = _behind(end, placed.frame, placed.record_bytes)
            while len(tail) > 1 and (
                end.durable.payload_bytes - tail[0][0].durable.payload_bytes > _TAIL_BYTES
                or end.journal_bytes - tail[0][0].journal_bytes > _TAIL_RECORD_BYTES
            ):
                tail.popleft()
    return list(tail), end


def _behind(before: _Point, frame: FrameRecord, record_bytes: int) -> _Point:
    placement = frame.placement
    payload_bytes = placement.head_bytes + placement.raw_bytes + placement.rest_bytes
    durable = DurableLayer(
        before.durable.frames + 1,
        frame.last_cluster,
        before.durable.clusters + len(frame.numbers),
        before.durable.payload_bytes + payload_bytes,
    )
    return _Point(durable, before.journal_bytes + record_bytes, max(before.data_end, placement.end))


def _is_stored(files: LayerFiles, frame: FrameRecord) -> bool:
    """Whether the layer has the bytes of which the frame's checksum was made. Raises OSError."""
    at = frame.placement
    head = os.pread(files.layer_fd, at.head_bytes, at.head_at)
    raw = os.pread(files.layer_fd, at.raw_bytes, at.raw_at)
    rest = os.pread(files.layer_fd, at.rest_bytes, at.rest_at)
    stored = EncodedClusters(frame.numbers, frame.sizes, frame.digests, head + rest, raw)
    return stored.checksum() == frame.frame_checksum
