"""Layers, manifests and chains: the files of a backup repository (docs/formats.md)."""

from hub.repository.base_reader import BaseReader
from hub.repository.chain import Chain
from hub.repository.errors import (
    LayerDamaged,
    LayerWriteFailed,
    RepositoryFull,
    RepositoryUnusable,
)
from hub.repository.facts import DurablePoint, LayerBase, LayerIdentity, SealedLayer, Space
from hub.repository.layer_writer import LayerWriter
from hub.repository.leftovers import KnownJobs
from hub.repository.repository import Repository

__all__ = [
    "BaseReader",
    "Chain",
    "DurablePoint",
    "KnownJobs",
    "LayerBase",
    "LayerDamaged",
    "LayerIdentity",
    "LayerWriteFailed",
    "LayerWriter",
    "Repository",
    "RepositoryFull",
    "RepositoryUnusable",
    "SealedLayer",
    "Space",
]
