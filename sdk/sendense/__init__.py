"""Sendense: the client of a backup hub.

`Client` is all of it; the rest are the messages it returns (protobuf messages
of `sendense.v1`; timestamps are UTC, sizes are bytes), enumerations and errors.
"""

from sendense.client import Client
from sendense.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    HubError,
    HubUnavailable,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SendenseError,
    TargetExists,
    TargetUnusable,
    TargetWriteFailed,
    Unavailable,
    WaitTimeout,
)
from sendense.models import BackupStatus, BackupType, ConsistencyLevel
from sendense.restore import RestoreProgress, RestoreResult
from sendense.v1.backup_pb2 import Backup, BackupDisk, BackupError, BackupWarning
from sendense.v1.context_pb2 import BackupContext, GetDiskResponse
from sendense.v1.inventory_pb2 import Agent, VirtualDisk, VirtualMachine, VsphereEndpoint
from sendense.v1.repository_pb2 import Repository

__all__ = [
    "Agent",
    "AlreadyExists",
    "Backup",
    "BackupContext",
    "BackupDisk",
    "BackupError",
    "BackupStatus",
    "BackupType",
    "BackupWarning",
    "Client",
    "ConsistencyLevel",
    "DataLoss",
    "FailedPrecondition",
    "GetDiskResponse",
    "HubError",
    "HubUnavailable",
    "InvalidArgument",
    "NotFound",
    "Repository",
    "ResourceExhausted",
    "RestoreProgress",
    "RestoreResult",
    "SendenseError",
    "TargetExists",
    "TargetUnusable",
    "TargetWriteFailed",
    "Unavailable",
    "VirtualDisk",
    "VirtualMachine",
    "VsphereEndpoint",
    "WaitTimeout",
]
