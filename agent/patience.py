"""How long the agent waits for others while it backs up a disk."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Seconds after which the other side counts as stalled."""

    answer_s: float = 120.0  # for an acknowledgement, an upload to be opened, digests of the base
    seal_s: float = 900.0  # for the hub to write tables and sync the layer
    # For one extent, without the wait for a host's budget. The transport's own time-outs
    # and new connections come first: this ends a reader that does not come back from them.
    read_s: float = 1800.0
    # For a hub that is away, or an upload of which nothing more becomes durable: the job's
    # snapshot stands, and grows, until then.
    hub_s: float = 1800.0
