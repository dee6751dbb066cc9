"""What became of a layer that was left unfinished."""

from dataclasses import dataclass
from enum import StrEnum, auto

from hub.repository.facts import NOTHING_DURABLE, DurableLayer, SealedLayer
from hub.repository.layer_writer import LayerWriter
from hub.repository.manifest import LayerTotals


@dataclass(frozen=True, slots=True)
class ResumedLayer:
    """What an upload goes on with: a `writer`; or nothing more to do, for the layer is `sealed`.

    `totals` are those of a sealed layer. The bytes cut were behind the last good frame.
    """

    writer: LayerWriter | None
    sealed: SealedLayer | None = None
    totals: LayerTotals | None = None
    journal_bytes_cut: int = 0
    layer_bytes_cut: int = 0


class LayerState(StrEnum):
    """What there is of a layer."""

    NONE = auto()  # nothing that an upload could go on with
    REOPENED = auto()  # unfinished; whole as far as it is
    SEALED = auto()


@dataclass(frozen=True, slots=True)
class RecoveredLayer:
    """What the hub's start-up found of a running job's layer, and cut."""

    state: LayerState
    durable: DurableLayer = NOTHING_DURABLE
    sealed: SealedLayer | None = None
    totals: LayerTotals | None = None
    journal_bytes_cut: int = 0
    layer_bytes_cut: int = 0
