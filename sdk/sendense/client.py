"""The client: one method per RPC that people and programs use."""

from collections.abc import Callable
from os import PathLike
from typing import Final, Literal

from sendense import restore
from sendense.api.backups import BackupCalls
from sendense.api.contexts import ContextCalls
from sendense.api.disks import DiskCalls
from sendense.api.hub import HubCalls
from sendense.api.repositories import RepositoryCalls
from sendense.api.sites import SiteCalls
from sendense.api.statistics import StatisticsCalls
from sendense.channel import DEFAULT_PORT
from sendense.restore import RestoreProgress, RestoreResult

DEFAULT_ADDRESS: Final = f"127.0.0.1:{DEFAULT_PORT}"


class Client(
    BackupCalls, ContextCalls, DiskCalls, HubCalls, RepositoryCalls, SiteCalls, StatisticsCalls
):
    """A connection to one hub; a context manager, and safe to use from several threads.

    Every request ends within `timeout_s` seconds; streams (watch, restore) last
    as long as they deliver. Requests that change nothing when repeated are repeated
    a few times when the hub is briefly away. All methods raise `SendenseError`
    subclasses: HubUnavailable when the hub cannot be reached, InvalidArgument for
    values it cannot use, and those a method names.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = 30.0) -> None:
        """`address` is "host" or "host:port". Connects when first used. Raises InvalidArgument."""
        super().__init__(address, timeout_s=timeout_s)

    def restore_disk(
        self,
        job_id: str,
        disk_index: int,
        path: str | PathLike[str],
        format: Literal["raw", "qcow2"] = "raw",
        *,
        overwrite: bool = False,
        progress: Callable[[RestoreProgress], None] | None = None,
        threads: int | None = None,
    ) -> RestoreResult:
        """Write one disk of a restore point to a local file: sparse raw, or compressed QCOW2.

        Every cluster and the whole disk are checked against their digests, and
        the file is synced, before it gets the name `path`; until then, and
        after any error, what stood under that name is untouched. A restore point
        that was imported from an earlier system has no digests of its own: it is
        checked against those of what the hub read. `progress` is called from the
        calling thread. `threads` decode (None: one per core, at most four).

        Raises NotFound, FailedPrecondition (NOT_A_RESTORE_POINT), DataLoss when
        anything does not match, TargetExists, TargetUnusable, TargetWriteFailed.
        """
        return restore.restore_disk(
            self.address,
            job_id,
            disk_index,
            path,
            format,
            overwrite=overwrite,
            progress=progress,
            threads=threads,
        )
