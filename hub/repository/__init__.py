"""Layers, manifests and chains: the files of a backup repository (docs/formats.md)."""

from hub.repository.base_reader import BaseReader
from hub.repository.chain import Chain
from hub.repository.errors import (
    LayerDamaged,
    LayerInUse,
    LayerWriteFailed,
    RepositoryFull,
    RepositoryUnusable,
)
from hub.repository.facts import (
    DurableLayer,
    DurablePoint,
    LayerBase,
    LayerIdentity,
    SealedLayer,
    Space,
)
from hub.repository.layer_writer import LayerWriter
from hub.repository.leftovers import KnownJobs
from hub.repository.manifest import LayerTotals
from hub.repository.repository import Repository
from hub.repository.reserve import RESERVE_BYTES
from hub.repository.resumption import LayerState, RecoveredLayer, ResumedLayer

__all__ = [
    "RESERVE_BYTES",
    "BaseReader",
    "Chain",
    "DurableLayer",
    "DurablePoint",
    "KnownJobs",
    "LayerBase",
    "LayerDamaged",
    "LayerIdentity",
    "LayerInUse",
    "LayerState",
    "LayerTotals",
    "LayerWriteFailed",
    "LayerWriter",
    "RecoveredLayer",
    "Repository",
    "RepositoryFull",
    "RepositoryUnusable",
    "ResumedLayer",
    "SealedLayer",
    "Space",
]
