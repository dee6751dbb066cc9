"""Writes one layer: data and journal while an upload runs, then the seal (docs/formats.md, Layer)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

import structlog

from hub.repository.errors import LayerWriteFailed, RepositoryFull, translated
from hub.repository.facts import NOTHING_DURABLE, DurableLayer, DurablePoint, SealedLayer
from hub.repository.file_calls import file_calls
from hub.repository.files import Descriptors
from hub.repository.journal import JournalReader, SealedManifest
from hub.repository.layer_files import LayerFiles
from hub.repository.left_layer import ReopenedLayer
from hub.repository.lineage import open_lineage
from hub.repository.manifest import (
    LayerTotals,
    ManifestFooter,
    ManifestHeader,
    RegionTable,
    root_of,
)
from hub.repository.paths import backing_name
from hub.repository.records import FrameRecord, ManifestInvalid, RecordKind, Trailer, pack_record
from hub.repository.reserve import require_reserve
from hub.repository.seal import by_region, write_tables
from hub.repository.structure_check import StructureCheck, StructureWrong
from sendense.clusters import cluster_count
from sendense.codec import EncodedClusters, check_batch
from sendense.qcow2_format import Qcow2LimitExceeded
from sendense.qcow2_placement import Cursor, write_all, write_placed
from sendense.qcow2_tables import ImageTables
from shared.errors import SendenseError
from shared.fail_points import fail_point

# A disk that takes longer to sync some 64 MiB is not there any more.
SYNC_DEADLINE_S: Final = 600.0
_log = structlog.get_logger(__name__)


class LayerWriter:
    """Appends one disk's frames, makes them durable, seals the layer.

    Threads: one appends and seals; another may call `sync` at the same time. `suspend`
    and `discard` may be called from any thread at any time. After an error every call
    but these two raises that error again: a sync that failed is never repeated, since
    the kernel reports a lost write only once.

    Order of writes: data, then fdatasync of the layer, then the journal's
    records, then its fdatasync: a record on stable storage means that its data
    is there, too.
    """

    def __init__(
        self,
        root: Path,
        layer: str,
        header: ManifestHeader,
        reopened: ReopenedLayer | None = None,
    ) -> None:
        """Create the files of `layer`, a path in the repository whose folder exists; or go on
        with those of a broken upload.

        The capacity is valid, the base checked. Raises RepositoryFull,
        RepositoryUnusable, LayerWriteFailed; nothing is left behind of new files then.
        """
        so_far = reopened.durable if reopened else NOTHING_DURABLE
        self.capacity_clusters = cluster_count(header.identity.capacity_bytes)
        self.last_cluster = so_far.last_cluster
        self._root = root
        self._layer = layer
        self._header = header
        self._base_path = header.base.path if header.base else None
        self._backing_file = backing_name(layer, self._base_path) if self._base_path else None
        self._cursor = Cursor(reopened.data_end) if reopened else Cursor()
        self._sync_turn = Lock()  # one sync after the other; guards the journal's end
        self._lock = Lock()  # guards the five below; never held over a system call
        self._failure: SendenseError | None = None
        self._lost_writes = False
        self._appended = so_far
        self._durable = so_far
        self._queued: list[bytes] = []
        self._journal_bytes = reopened.journal_bytes if reopened else 0
        if reopened is not None:
            self._files = reopened.files
            return
        self._files = LayerFiles.create(root, layer)
        try:
            with self._working():
                self._write_journal(pack_record(RecordKind.HEADER, 0, header.pack()))
        except BaseException:
            self._files.discard()
            raise
        fail_point("hub.layer.created")

    @property
    def durable(self) -> DurableLayer:
        """What is on stable storage, as of the reopening or the last sync."""
        with self._lock:
            return self._durable

    def append(self, batch: EncodedClusters, checksum: bytes | None = None) -> None:
        """Write a batch's data and queue its journal record.

        `checksum` is the frame's, where the caller has checked it already; it
        saves computing it. Raises FrameInvalid (nothing is written, the writer
        stays usable), RepositoryFull, LayerWriteFailed.
        """
        check_batch(batch, cluster_limit=self.capacity_clusters, after_cluster=self.last_cluster)
        with self._working():
            placement = self._cursor.place(batch)
            write_placed(self._files.layer_fd, batch, placement, file_calls().pwritev)
            fail_point("hub.layer.appended")
            body = FrameRecord.pack(batch, placement, checksum or batch.checksum())
            with self._lock:
                before = self._appended
                self._appended = DurableLayer(
                    before.frames + 1,
                    batch.last_cluster,
                    before.clusters + len(batch),
                    before.payload_bytes + batch.payload_bytes,
                )
                self._queued.append(pack_record(RecordKind.FRAME, self._appended.frames, body))
                self.last_cluster = batch.last_cluster

    def sync(self) -> DurablePoint:
        """Bring everything appended so far to stable storage; return how far that is.

        Raises RepositoryFull, LayerWriteFailed.
        """
        with self._working():
            return self._sync()

    def seal(self, change_id: str) -> SealedLayer:
        """Write the tables, check them, finish the manifest, give the layer its name.

        Raises RepositoryFull, LayerWriteFailed; LayerDamaged when the base is.
        After an error the layer is not sealed and can only be discarded.
        """
        with self._working():
            self._sync()
            totals, regions = self._write_structures()
            self._check_structures()
            footer = self._write_footer(change_id, totals, regions)
            self._files.publish()
        return SealedLayer(
            self._layer,
            footer.root_digest,
            footer.layer_bytes + self._journal_bytes,
            totals.clusters,
            totals.zero_clusters,
        )

    def discard(self) -> None:
        """Remove the layer's files; a sealed layer stays. May be repeated, never fails."""
        self._files.discard()

    def suspend(self) -> None:
        """Make durable what was appended, as far as that works, and close the files, which stay.

        `Repository.resume_layer` goes on with them. After a write or a sync that failed they
        are removed: the kernel would show data and records that are not on stable storage.
        May be repeated, never fails.
        """
        try:
            self.sync()
        except SendenseError as error:
            _log.info("layer_not_synced", layer=self._layer, error=str(error))
        with self._lock:
            lost = self._lost_writes
        if lost:
            self._files.discard()
        else:
            self._files.suspend()

    def _sync(self) -> DurablePoint:
        if not self._sync_turn.acquire(timeout=SYNC_DEADLINE_S):
            raise LayerWriteFailed(
                self._layer, f"a sync has not ended for {SYNC_DEADLINE_S} seconds"
            )
        try:
            with self._lock:
                if self._failure is not None:
                    raise self._failure
                queued, self._queued = self._queued, []
                appended = self._appended
            if queued:
                require_reserve(self._root)
                file_calls().fdatasync(self._files.layer_fd)
                fail_point("hub.layer.data_synced")
                self._write_journal(b"".join(queued))
                fail_point("hub.layer.journaled")
            with self._lock:
                self._durable = appended
            return DurablePoint(appended.frames, appended.last_cluster)
        except RepositoryFull as error:
            raise self._failed(error) from None
        except OSError as error:
            # Remembered before the next one has its turn: that one would find
            # the queue empty and call durable what was lost here.
            raise self._lost(error) from error
        finally:
            self._sync_turn.release()

    def _write_journal(self, records: bytes) -> None:
        fd = self._files.manifest_fd
        write_all(fd, [records], self._journal_bytes, file_calls().pwritev)
        self._journal_bytes += len(records)
        file_calls().fdatasync(fd)

    def _write_structures(self) -> tuple[LayerTotals, RegionTable]:
        fd = self._files.layer_fd
        tables = ImageTables(
            fd,
            self._header.identity.capacity_bytes,
            self._cursor,
            backing_file=self._backing_file,
            pwritev=file_calls().pwritev,
        )
        with (
            Descriptors(self._root) as files,
            JournalReader(self._files.manifest_path) as journal,
        ):
            totals, regions = write_tables(journal, tables, self._open_base(files))
            frames = self._appended.frames
            if (totals.frames, journal.valid_bytes) != (frames, self._journal_bytes):
                raise ManifestInvalid(f"the journal has {totals.frames} of {frames} frames")
        header = tables.finish()
        file_calls().fsync(fd)
        fail_point("hub.seal.tables_written")
        write_all(fd, [header], 0, file_calls().pwritev)
        file_calls().fsync(fd)
        return totals, regions

    def _open_base(self, files: Descriptors) -> list[SealedManifest]:
        if self._base_path is None:
            return []
        base = open_lineage(files, self._base_path)
        if base[0].footer.root_digest != self._header.base_root_digest:
            raise ManifestInvalid(f"the base {self._base_path} was replaced during the upload")
        return base

    def _check_structures(self) -> None:
        check = StructureCheck(
            self._files.layer_fd,
            capacity_bytes=self._header.identity.capacity_bytes,
            backing_file=self._backing_file,
        )
        with JournalReader(self._files.manifest_path) as journal:
            for region, placed in by_region(journal.frames()):
                check.region(region, [each.frame for each in placed])
        check.finish()

    def _write_footer(
        self, change_id: str, totals: LayerTotals, regions: RegionTable
    ) -> ManifestFooter:
        capacity_bytes = self._header.identity.capacity_bytes
        footer = ManifestFooter(
            capacity_bytes,
            change_id,
            root_of(regions, capacity_bytes),
            self._header.base,
            os.fstat(self._files.layer_fd).st_size,
            totals,
            regions,
        )
        record = pack_record(RecordKind.FOOTER, totals.frames + 1, footer.pack())
        trailer = Trailer(self._journal_bytes, len(record)).pack()
        self._write_journal(record + trailer)
        fail_point("hub.seal.footer_written")
        return footer

    @contextmanager
    def _working(self) -> Iterator[None]:
        """One call on the files: refused after a failure, remembers its own."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
        try:
            with self._files.use():
                yield
        except OSError as error:
            raise self._lost(error) from error
        except (ManifestInvalid, StructureWrong, Qcow2LimitExceeded) as error:
            raise self._failed(LayerWriteFailed(self._layer, str(error))) from error
        except SendenseError as error:
            self._failed(error)
            raise

    def _lost(self, error: OSError) -> SendenseError:
        with self._lock:
            self._lost_writes = True
        return self._failed(translated(error, self._layer))

    def _failed(self, error: SendenseError) -> SendenseError:
        with self._lock:
            self._failure = error
        return error
