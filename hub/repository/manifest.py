"""What a manifest says: its header and footer, and the table of a sealed layer's regions."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from struct import Struct
from typing import Any, ClassVar, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from hub.repository.facts import LayerBase, LayerIdentity
from hub.repository.records import ManifestInvalid
from sendense.clusters import CLUSTER_BYTES, region_count
from sendense.digests import clusters_in_region, root_digest, zero_region_digest

FORMAT: Final = 1

# A region in which this layer or one below it has clusters; 64 bytes. The
# visible counts are of clusters with data as the guest sees them, their stored
# bytes, this layer's records (0, 0: none) and the digest of the guest's view.
REGION_ROW: Final = np.dtype(
    [
        ("region", "<u4"),
        ("visible_clusters", "<u4"),
        ("visible_bytes", "<u8"),
        ("records_at", "<u8"),
        ("records_bytes", "<u8"),
        ("digest", "u1", (32,)),
    ]
)
RegionTable = npt.NDArray[np.void]

T = TypeVar("T", LayerIdentity, LayerBase, "LayerTotals")


@dataclass(frozen=True, slots=True)
class LayerTotals:
    """Sums over a layer's frames; `clusters` are those with data."""

    frames: int
    clusters: int
    zero_clusters: int
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class ManifestHeader:
    """The first record: what the layer belongs to, known before the first byte of data."""

    identity: LayerIdentity
    base: LayerBase | None
    # Of the base's disk, 32 bytes; empty without one. It ties the chain together
    # by content: another layer under the base's name is noticed.
    base_root_digest: bytes
    # Of how the disk is read (UploadOpen.plan_digest): only an upload of the same plan
    # goes on with the layer. Empty: none does.
    plan_digest: bytes = b""

    def pack(self) -> bytes:
        """The record's body: JSON."""
        return _json(
            {
                "format": FORMAT,
                "cluster_bytes": CLUSTER_BYTES,
                "identity": asdict(self.identity),
                "base": asdict(self.base) if self.base else None,
                "base_root_digest": self.base_root_digest.hex(),
                "plan_digest": self.plan_digest.hex(),
            }
        )

    @classmethod
    def unpack(cls, body: bytes) -> Self:
        """Decode. Raises ManifestInvalid."""
        facts = _facts(body)
        if facts.get("format") != FORMAT or facts.get("cluster_bytes") != CLUSTER_BYTES:
            raise ManifestInvalid(f"manifest format {facts.get('format')!r} is not known here")
        base = facts.get("base")
        return cls(
            _from_facts(LayerIdentity, facts.get("identity")),
            _from_facts(LayerBase, base) if base is not None else None,
            _digest(facts.get("base_root_digest"), allow_empty=base is None),
            _hex(facts.get("plan_digest", "")),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ManifestFooter:
    """The last record: the layer is complete, and this is its content."""

    LAYOUT: ClassVar[Struct] = Struct("<III")

    # JSON bytes, rows, zero; then the JSON, padded with spaces to 4 bytes, then the rows
    capacity_bytes: int
    change_id: str
    root_digest: bytes
    base: LayerBase | None
    layer_bytes: int  # length of the sealed QCOW2 file
    totals: LayerTotals
    regions: RegionTable

    def pack(self) -> bytes:
        """The record's body."""
        text = _json(
            {
                "capacity_bytes": self.capacity_bytes,
                "change_id": self.change_id,
                "root_digest": self.root_digest.hex(),
                "base": asdict(self.base) if self.base else None,
                "layer_bytes": self.layer_bytes,
                "totals": asdict(self.totals),
            }
        )
        text = text.ljust(-(-len(text) // 4) * 4)
        fixed = self.LAYOUT.pack(len(text), len(self.regions), 0)
        return b"".join((fixed, text, self.regions.tobytes()))

    @classmethod
    def unpack(cls, body: bytes) -> Self:
        """Decode and check the root digest against the regions. Raises ManifestInvalid."""
        if len(body) < cls.LAYOUT.size:
            raise ManifestInvalid("the footer is too short")
        text_bytes, rows, zero = cls.LAYOUT.unpack_from(body)
        at = cls.LAYOUT.size + text_bytes
        if zero or len(body) != at + rows * REGION_ROW.itemsize:
            raise ManifestInvalid("the footer's lengths do not add up")
        facts = _facts(body[cls.LAYOUT.size : at])
        capacity_bytes = facts.get("capacity_bytes")
        change_id = facts.get("change_id")
        layer_bytes = facts.get("layer_bytes")
        if not isinstance(capacity_bytes, int) or capacity_bytes <= 0:
            raise ManifestInvalid("the footer has no capacity")
        if not isinstance(change_id, str):
            raise ManifestInvalid("the footer has no change id")
        if not isinstance(layer_bytes, int):
            raise ManifestInvalid("the footer has no layer length")
        base = facts.get("base")
        footer = cls(
            capacity_bytes,
            change_id,
            _digest(facts.get("root_digest")),
            _from_facts(LayerBase, base) if base is not None else None,
            layer_bytes,
            _from_facts(LayerTotals, facts.get("totals")),
            np.frombuffer(body, REGION_ROW, rows, at),
        )
        numbers = footer.regions["region"].astype(np.int64)
        if len(numbers) and (
            bool(np.any(numbers[1:] <= numbers[:-1]))
            or int(numbers[-1]) >= region_count(capacity_bytes)
        ):
            raise ManifestInvalid("the footer's regions are out of order or beyond the disk")
        if root_of(footer.regions, capacity_bytes) != footer.root_digest:
            raise ManifestInvalid("the root digest is not that of the regions")
        return footer

    def row(self, region: int) -> np.void | None:
        """The row of a region, if it has one."""
        numbers = self.regions["region"]
        at = int(np.searchsorted(numbers, region))
        if at == len(numbers) or int(numbers[at]) != region:
            return None
        row: np.void = self.regions[at]
        return row


def root_of(regions: RegionTable, capacity_bytes: int) -> bytes:
    """The root digest of a disk; regions without a row have never been written."""
    digests = [
        zero_region_digest(clusters_in_region(region, capacity_bytes))
        for region in range(region_count(capacity_bytes))
    ]
    for region, digest in zip(regions["region"].tolist(), regions["digest"], strict=True):
        digests[region] = digest.tobytes()
    return root_digest(digests)


def _json(facts: Mapping[str, object]) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode()


def _facts(text: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise ManifestInvalid(f"no JSON where it should be: {error}") from error
    if not isinstance(facts, dict):
        raise ManifestInvalid("no JSON object where it should be")
    return facts


def _from_facts(kind: type[T], facts: object) -> T:
    if not isinstance(facts, dict):
        raise ManifestInvalid(f"no {kind.__name__} where it should be")
    values: dict[str, Any] = {}
    for fact in fields(kind):
        value = facts.get(fact.name)
        wanted = int if fact.type is int else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ManifestInvalid(f"{kind.__name__} has no usable {fact.name}")
        values[fact.name] = value
    made: T = kind(**values)
    return made


def _digest(text: object, *, allow_empty: bool = False) -> bytes:
    digest = _hex(text)
    if len(digest) != 32 and not (allow_empty and not digest):
        raise ManifestInvalid(f"a digest of {len(digest)} bytes")
    return digest


def _hex(text: object) -> bytes:
    try:
        return bytes.fromhex(text if isinstance(text, str) else "-")
    except ValueError as error:
        raise ManifestInvalid("no digest where it should be") from error
