"""Digests of many clusters compared at once."""

import numpy as np
import numpy.typing as npt

from sendense.clusters import DIGEST_BYTES


def differ(digests: bytes, others: bytes) -> npt.NDArray[np.bool_]:
    """For each of the digests whether it differs from its counterpart, or from the only other."""
    differing: npt.NDArray[np.bool_] = (_words(digests) != _words(others)).any(axis=1)
    return differing


def _words(digests: bytes) -> npt.NDArray[np.uint64]:
    # numpy compares words, not runs of bytes.
    return np.frombuffer(digests, "<u8").reshape(-1, DIGEST_BYTES // 8)
