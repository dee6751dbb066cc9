"""Reading a manifest: as a stream, as far as it is whole, or sealed, by its table of regions."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from types import TracebackType

from hub.repository.errors import LayerDamaged
from hub.repository.files import Descriptors
from hub.repository.manifest import ManifestFooter, ManifestHeader
from hub.repository.paths import manifest_path
from hub.repository.records import Envelope, FrameRecord, ManifestInvalid, RecordKind, Trailer
from sendense.clusters import REGION_CLUSTERS, cluster_count

_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class PlacedFrame:
    """A frame record and where the record lies in the manifest."""

    frame: FrameRecord
    record_at: int
    record_bytes: int


class JournalReader:
    """Reads a manifest from its start, record by record, sealed or not.

    A context manager; one thread. `frames()` ends at the end of the valid
    prefix: after it `valid_bytes` says how long that is, `problem` why it ends
    before the file does (empty: it does not), `footer` what a sealed manifest
    ends with. Memory: one record.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError, or ManifestInvalid when not even the header is whole."""
        self.valid_bytes = 0
        self.frame_count = 0
        self.problem = ""
        self.footer: ManifestFooter | None = None
        self._sequence = 0
        self._file = BufferedReader(FileIO(path), _BUFFER_BYTES)
        try:
            kind, body = self._record()
            if kind is not RecordKind.HEADER:
                raise ManifestInvalid("the manifest does not begin with its header")
            self.header = ManifestHeader.unpack(body)
            self.valid_bytes = self._file.tell()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "JournalReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def frames(self) -> Iterator[PlacedFrame]:
        """Yield the whole frames in order. Raises OSError only. Call it once."""
        cluster_limit = cluster_count(self.header.identity.capacity_bytes)
        last_cluster = -1
        try:
            while self._file.peek(1):
                kind, body = self._record()
                if kind is RecordKind.FOOTER:
                    self._end(body)
                    return
                if kind is not RecordKind.FRAME:
                    raise ManifestInvalid(f"a {kind.name} record among the frames")
                frame = FrameRecord.unpack(body)
                if not last_cluster < frame.first_cluster <= frame.last_cluster < cluster_limit:
                    raise ManifestInvalid(
                        f"clusters {frame.first_cluster} to {frame.last_cluster} are out of order"
                    )
                last_cluster = frame.last_cluster
                at, self.valid_bytes = self.valid_bytes, self._file.tell()
                self.frame_count += 1
                yield PlacedFrame(frame, at, self.valid_bytes - at)
        except ManifestInvalid as error:
            self.problem = str(error)

    def _end(self, body: bytes) -> None:
        footer = ManifestFooter.unpack(body)
        footer_at = self.valid_bytes
        footer_bytes = self._file.tell() - footer_at
        trailer = Trailer.unpack(self._file.read(Trailer.BYTES))
        if (trailer.footer_at, trailer.footer_bytes) != (footer_at, footer_bytes):
            raise ManifestInvalid("the trailer does not point to the footer")
        if footer.totals.frames != self.frame_count:
            raise ManifestInvalid("the footer counts other frames than there are")
        self.valid_bytes = self._file.tell()
        if self._file.peek(1):
            raise ManifestInvalid("there are bytes behind the trailer")
        self.footer = footer

    def _record(self) -> tuple[RecordKind, bytes]:
        start = self._file.read(Envelope.BYTES)
        if len(start) < Envelope.BYTES:
            raise ManifestInvalid("a record is cut off")
        envelope = Envelope.unpack(start)
        if envelope.sequence != self._sequence:
            raise ManifestInvalid(
                f"record {envelope.sequence} stands where record {self._sequence} should"
            )
        body = self._file.read(envelope.body_bytes)
        if len(body) < envelope.body_bytes:
            raise ManifestInvalid("a record is cut off")
        envelope.check(body)
        self._sequence += 1
        return envelope.kind, body


class SealedManifest:
    """The manifest of a sealed layer: header, footer, and frames by region."""

    def __init__(self, files: Descriptors, layer: str) -> None:
        """Open the manifest of the layer of that path, relative to the repository.

        Reads the header and the footer only. Raises LayerDamaged.
        """
        self.layer = layer
        self.path = manifest_path(layer)
        self._files = files
        try:
            self._open()
        except ManifestInvalid as error:
            raise LayerDamaged(self.path, str(error)) from error
        layer_bytes = files.size(layer)
        if layer_bytes != self.footer.layer_bytes:
            raise LayerDamaged(
                layer,
                f"is {layer_bytes} bytes long, was sealed with {self.footer.layer_bytes}",
            )

    @property
    def capacity_bytes(self) -> int:
        return self.footer.capacity_bytes

    def frames(self, region: int) -> list[FrameRecord]:
        """The frames of a region in this layer, ascending. Raises LayerDamaged."""
        row = self.footer.row(region)
        if row is None or not int(row["records_bytes"]):
            return []
        at, length = int(row["records_at"]), int(row["records_bytes"])
        if at + length > self._footer_at:
            raise LayerDamaged(self.path, f"region {region} lies beyond the frames")
        data = memoryview(self._files.read(self.path, length, at))
        try:
            return self._parsed(region, data)
        except ManifestInvalid as error:
            raise LayerDamaged(self.path, str(error)) from error

    def _parsed(self, region: int, data: memoryview) -> list[FrameRecord]:
        cluster_limit = cluster_count(self.capacity_bytes)
        last_cluster = region * REGION_CLUSTERS - 1
        frames = []
        at = 0
        while at < len(data):
            kind, body, at = _record_in(data, at)
            if kind is not RecordKind.FRAME:
                raise ManifestInvalid(f"region {region} has a {kind.name} record")
            frame = FrameRecord.unpack(body)
            if (
                frame.region != region
                or frame.first_cluster <= last_cluster
                or frame.last_cluster >= cluster_limit
            ):
                raise ManifestInvalid(f"region {region} has clusters that are not its own")
            last_cluster = frame.last_cluster
            frames.append(frame)
        return frames

    def _open(self) -> None:
        size = self._files.size(self.path)
        if size < Trailer.BYTES:
            raise ManifestInvalid("no trailer: the manifest was not sealed")
        trailer = Trailer.unpack(self._files.read(self.path, Trailer.BYTES, size - Trailer.BYTES))
        self._footer_at = trailer.footer_at
        if trailer.footer_at + trailer.footer_bytes + Trailer.BYTES != size:
            raise ManifestInvalid("the trailer does not fit the manifest's length")
        record = self._files.read(self.path, trailer.footer_bytes, trailer.footer_at)
        kind, body, end = _record_in(memoryview(record), 0)
        if kind is not RecordKind.FOOTER or end != len(record):
            raise ManifestInvalid("no footer where the trailer points")
        self.footer = ManifestFooter.unpack(bytes(body))
        start = self._files.read(self.path, Envelope.BYTES, 0)
        header_bytes = Envelope.BYTES + Envelope.unpack(start).body_bytes
        if header_bytes > trailer.footer_at:
            raise ManifestInvalid("the header is longer than the manifest")
        kind, body, _ = _record_in(memoryview(self._files.read(self.path, header_bytes, 0)), 0)
        if kind is not RecordKind.HEADER:
            raise ManifestInvalid("the manifest does not begin with its header")
        self.header = ManifestHeader.unpack(bytes(body))
        if (
            self.header.identity.capacity_bytes != self.footer.capacity_bytes
            or self.header.base != self.footer.base
        ):
            raise ManifestInvalid("header and footer tell of different layers")


def has_trailer(path: Path) -> bool:
    """Whether a manifest ends as a sealed one does. Raises OSError."""
    with path.open("rb") as file:
        file.seek(-min(Trailer.BYTES, path.stat().st_size), os.SEEK_END)
        try:
            Trailer.unpack(file.read())
        except ManifestInvalid:
            return False
    return True


def _record_in(data: memoryview, at: int) -> tuple[RecordKind, memoryview, int]:
    """Kind, body and end of the record at that place. Raises ManifestInvalid."""
    if len(data) - at < Envelope.BYTES:
        raise ManifestInvalid("a record is cut off")
    envelope = Envelope.unpack(bytes(data[at : at + Envelope.BYTES]))
    start = at + Envelope.BYTES
    body = data[start : start + envelope.body_bytes]
    if len(body) < envelope.body_bytes:
        raise ManifestInvalid("a record is cut off")
    envelope.check(body)
    return envelope.kind, body, start + envelope.body_bytes
