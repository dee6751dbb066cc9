"""How a disk is read, as messages say it."""

from types import MappingProxyType
from typing import Final

from hub.jobs.states import ReadMethod
from sendense.v1 import backup_pb2

# None: not recorded, or in an upload's begin as planned.
READ_METHOD: Final = MappingProxyType(
    {
        None: backup_pb2.READ_METHOD_UNSPECIFIED,
        ReadMethod.ALLOCATED: backup_pb2.READ_METHOD_ALLOCATED,
        ReadMethod.CHANGED: backup_pb2.READ_METHOD_CHANGED,
        ReadMethod.COMPARED: backup_pb2.READ_METHOD_COMPARED,
    }
)
