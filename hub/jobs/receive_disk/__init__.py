"""Upload of one disk: open, frames, finish; acknowledged as they become durable."""

from hub.jobs.receive_disk.upload import receive_disk

__all__ = ["receive_disk"]
