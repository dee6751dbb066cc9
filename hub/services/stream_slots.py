"""A limit of open streams of each kind.

Each open stream holds a thread of the server's pool. With a limit a kind, and
a pool larger than their sum, short calls always find a thread.
"""

import threading
from typing import Final

import grpc

from hub.errors import TooManyStreams

LIMITS: Final = {"session": 512, "watch": 256, "upload": 128, "base digests": 128, "restore": 64}
SHORT_CALLS: Final = 64
POOL_THREADS: Final = sum(LIMITS.values()) + SHORT_CALLS


class StreamSlots:
    """Thread-safe."""

    def __init__(self) -> None:
        self._free = {kind: threading.BoundedSemaphore(limit) for kind, limit in LIMITS.items()}

    def take(self, kind: str, context: grpc.ServicerContext) -> None:
        """Hold a slot until the RPC ends. Raises TooManyStreams."""
        slots = self._free[kind]
        if not slots.acquire(blocking=False):
            raise TooManyStreams(kind, LIMITS[kind])
        if not context.add_callback(slots.release):
            slots.release()
