"""Reads of one disk that end: each extent is what was asked for, and comes in time."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Self, TypeVar

import structlog

from agent.areas import Area
from agent.cancellation import Cancellation
from agent.errors import ReadMismatch, ReadStalled
from agent.patience import Patience
from agent.transports.disk_reader import DiskReader, Extent

JOIN_S: Final = 30.0
LOOK_S: Final = 1.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class DiskReads:
    """A DiskReader with a watch over it; a context manager that closes the reader.

    Threads: one thread reads; `close` may be called from any, and more than once. A thread
    of its own closes the reader when it gives nothing for too long or the job ends; how
    long is told by the reader's clock, which leaves out waits for a turn at a host. `disk`
    names it in errors: its label and file.
    """

    def __init__(
        self,
        reader: DiskReader,
        disk: str,
        *,
        cancellation: Cancellation | None = None,
        read_s: float = Patience.read_s,
    ) -> None:
        self._reader = reader
        self._disk = disk
        self._cancellation = cancellation or Cancellation()
        self._read_s = read_s
        self._waiting_since: float | None = None  # written by the reading thread alone
        self._stalled = False  # written by the watch alone
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._watch_reader, name=f"watch-{disk}", daemon=True)

    @property
    def capacity_bytes(self) -> int:
        return self._reader.capacity_bytes

    def allocated_areas(self) -> list[Area]:
        """See DiskReader. Raises ReadStalled and the cancellation's error as well."""
        return self._await(self._reader.allocated_areas)

    def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
        """See DiskReader: one extent for each area, in order; `areas` is consumed ahead.

        Raises ReadMismatch when the reader gives something else, ReadStalled, the
        cancellation's error, and what the reader and `areas` raise.
        """
        asked = _Asked(areas)
        extents = self._reader.read(asked)
        while (extent := self._await(lambda: next(extents, None))) is not None:
            if asked.error is not None:
                raise asked.error
            if not asked.owed:
                raise ReadMismatch(self._disk, "it gave more than was asked for")
            area = asked.owed.popleft()
            if extent.offset != area.start or len(extent.data) != area.length:
                raise ReadMismatch(self._disk, _mismatch(area, extent))
            yield extent
        missing = asked.owed[0] if asked.owed else next(asked, None)
        if asked.error is not None:
            raise asked.error
        if missing is not None:
            raise ReadMismatch(self._disk, _mismatch(missing, None))

    def close(self) -> None:
        """Let go of the disk; a read that waits raises. Raises nothing."""
        self._over.set()
        self._reader.close()

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        self._watch.join(JOIN_S)
        if self._watch.is_alive():
            _log.error("reader_does_not_close", disk=self._disk)

    def _await(self, answer: Callable[[], T]) -> T:
        self._waiting_since = self._reader.clock_s()
        try:
            return answer()
        except Exception as error:
            # A reader that was closed under a read only says so: the reason is known here.
            if self._stalled:
                raise ReadStalled(self._disk, self._read_s) from error
            self._cancellation.check()
            raise
        finally:
            self._waiting_since = None

    def _watch_reader(self) -> None:
        with self._cancellation.calling(lambda _: self._over.set()):
            while not self._over.wait(min(LOOK_S, self._read_s)):
                since = self._waiting_since
                if since is not None and self._reader.clock_s() - since > self._read_s:
                    self._stalled = True
                    break
        self._reader.close()


class _Asked(Iterator[Area]):
    """The areas as a reader takes them, ahead of what it gives.

    An error of theirs ends them and is kept: it is none of the reader's, which must not
    take it for a failure of its host and go on without what was still to come.
    """

    def __init__(self, areas: Iterable[Area]) -> None:
        self._areas = iter(areas)
        self.owed: deque[Area] = deque()
        self.error: Exception | None = None

    def __next__(self) -> Area:
        if self.error is not None:
            raise StopIteration
        try:
            area = next(self._areas)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopIteration from error
        self.owed.append(area)
        return area


def _mismatch(asked: Area, got: Extent | None) -> str:
    given = f"{len(got.data)} bytes at {got.offset}" if got is not None else "the end"
    return f"asked for {asked.length} bytes at {asked.start}, got {given}"
