"""How much of an upload the hub has not yet called durable."""

from collections import deque
from typing import Final

from agent.errors import HubMisbehaved

WINDOW_BYTES: Final = 64 * 1024 * 1024


class AckWindow:
    """Payload bytes of frames sent and not acknowledged. Not thread-safe: the owner locks.

    Frames are those of the whole layer, of which `durable_frames` were there before.
    """

    def __init__(self, durable_frames: int = 0, limit_bytes: int = WINDOW_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._sent: deque[int] = deque()
        self._acknowledged_frames = durable_frames
        self._bytes = 0

    @property
    def outstanding_frames(self) -> int:
        return len(self._sent)

    @property
    def sent_frames(self) -> int:
        return self._acknowledged_frames + len(self._sent)

    def has_room_for(self, payload_bytes: int) -> bool:
        """Whether that frame may be sent; one frame always may, however large."""
        return not self._sent or self._bytes + payload_bytes <= self._limit_bytes

    def sent(self, payload_bytes: int) -> None:
        """A frame goes out."""
        self._sent.append(payload_bytes)
        self._bytes += payload_bytes

    def acknowledged(self, durable_frames: int) -> None:
        """The hub has that many frames of the layer on stable storage. Raises HubMisbehaved."""
        if not self._acknowledged_frames <= durable_frames <= self.sent_frames:
            raise HubMisbehaved(
                f"it acknowledged {durable_frames} frames after {self._acknowledged_frames}, "
                f"of {self.sent_frames} sent"
            )
        for _ in range(durable_frames - self._acknowledged_frames):
            self._bytes -= self._sent.popleft()
        self._acknowledged_frames = durable_frames
