"""What the jobs of an agent share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import grpc

from agent.hub_presence import HubPresence
from agent.patience import Patience
from agent.pipeline import EncoderPool
from agent.sampling import SampleSettings
from agent.sweeper import Sweeper
from agent.vsphere.site import VsphereSite

PLAN_WAIT_S: Final = 120.0


@dataclass(frozen=True)
class JobTools:
    """What the jobs of an agent share."""

    site: VsphereSite
    sweeper: Sweeper
    encoders: EncoderPool
    # For an upload, and for questions about its base: streams that share a connection
    # share its flow control.
    open_upload_channel: Callable[[], grpc.Channel]
    disks_in_parallel: int
    sampling: SampleSettings = field(default_factory=SampleSettings)
    patience: Patience = field(default_factory=Patience)
    plan_wait_s: float = PLAN_WAIT_S
    presence: HubPresence = field(default_factory=HubPresence)
