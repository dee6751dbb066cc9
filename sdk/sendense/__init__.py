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
from sendense.models import (
    BackupOrder,
    BackupStatus,
    BackupType,
    ConsistencyLevel,
    Protection,
    ReadMethod,
    RecoveredLayer,
    RecoveryDecision,
)
from sendense.restore import RestoreProgress, RestoreResult
from sendense.v1.backup_pb2 import (
    Backup,
    BackupDisk,
    BackupError,
    BackupWarning,
    DeletedBackups,
    DiskSampling,
)
from sendense.v1.context_pb2 import (
    BackupContext,
    ChainLayer,
    GetChainResponse,
    GetChangeIdResponse,
    GetDiskResponse,
)
from sendense.v1.hub_pb2 import RecoveredDisk, RecoveredJob, RecoveryReportResponse
from sendense.v1.inventory_pb2 import (
    Agent,
    VirtualDisk,
    VirtualMachine,
    VmAlarm,
    VmSnapshot,
    VsphereEndpoint,
)
from sendense.v1.repository_pb2 import Repository, RepositoryCheck, TestRepositoryResponse
from sendense.v1.statistics_pb2 import CurrentTotals, DayStatistics, GetStatisticsResponse

__all__ = [
    "Agent",
    "AlreadyExists",
    "Backup",
    "BackupContext",
    "BackupDisk",
    "BackupError",
    "BackupOrder",
    "BackupStatus",
    "BackupType",
    "BackupWarning",
    "ChainLayer",
    "Client",
    "ConsistencyLevel",
    "CurrentTotals",
    "DataLoss",
    "DayStatistics",
    "DeletedBackups",
    "DiskSampling",
    "FailedPrecondition",
    "GetChainResponse",
    "GetChangeIdResponse",
    "GetDiskResponse",
    "GetStatisticsResponse",
    "HubError",
    "HubUnavailable",
    "InvalidArgument",
    "NotFound",
    "Protection",
    "ReadMethod",
    "RecoveredDisk",
    "RecoveredJob",
    "RecoveredLayer",
    "RecoveryDecision",
    "RecoveryReportResponse",
    "Repository",
    "RepositoryCheck",
    "ResourceExhausted",
    "RestoreProgress",
    "RestoreResult",
    "SendenseError",
    "TargetExists",
    "TargetUnusable",
    "TargetWriteFailed",
    "TestRepositoryResponse",
    "Unavailable",
    "VirtualDisk",
    "VirtualMachine",
    "VmAlarm",
    "VmSnapshot",
    "VsphereEndpoint",
    "WaitTimeout",
]
