"""Reads what the base of a disk holds: cluster digests, region by region."""

from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from hub.repository.facts import LayerBase
from hub.repository.files import Descriptors
from hub.repository.lineage import open_base
from hub.repository.region_view import sealed_region
from sendense.clusters import ZERO_DIGEST, region_count
from sendense.digests import clusters_in_region

Digests = npt.NDArray[np.uint8]


class BaseReader:
    """The chain of a base, open for its digests. A context manager; one thread.

    The disk may have grown since: behind the base's end all is zeros. Memory: one region.
    """

    def __init__(self, root: Path, base: LayerBase, capacity_bytes: int) -> None:
        """`capacity_bytes` is the disk's that is to build on the base. Raises LayerDamaged."""
        self.capacity_bytes = capacity_bytes
        self._files = Descriptors(root)
        try:
            self._layers = open_base(self._files, base, capacity_bytes)
        except BaseException:
            self._files.close()
            raise

    def __enter__(self) -> "BaseReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; may be called twice."""
        self._files.close()

    def digests(self, region: int) -> Digests | None:
        """The digests of all clusters of a region of the disk, uint8[n, 16]; None: all are zeros.

        Raises LayerDamaged unless they are those that the base was sealed with.
        """
        newest = self._layers[0]
        if region >= region_count(newest.capacity_bytes):
            return None
        digests = sealed_region(self._layers, region).digests
        zeros = np.frombuffer(ZERO_DIGEST, np.uint8)
        if bool(np.all(digests == zeros)):
            return None
        grown = clusters_in_region(region, self.capacity_bytes) - len(digests)
        if grown:
            digests = np.concatenate([digests, np.tile(zeros, (grown, 1))])
        return digests
