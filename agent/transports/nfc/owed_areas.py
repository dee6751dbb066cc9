"""The areas of one read over several connections: each is delivered once, in order."""

from collections import deque
from collections.abc import Iterable, Iterator

from agent.areas import Area
from agent.transports.disk_reader import Extent
from agent.transports.nfc.reader import NfcDiskReader


class AreasFailed(Exception):
    """What names the areas raised `error`.

    A failed iterator just ends when it is asked again: repeated, the read would end
    early and call itself complete.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class OwedAreas:
    """The areas of one `read`: those asked for and not delivered are asked for again."""

    def __init__(self, areas: Iterable[Area]) -> None:
        self._fresh = iter(areas)
        self._owed: deque[Area] = deque()
        self._reader: NfcDiskReader | None = None
        self._extents: Iterator[Extent] = iter(())

    def next(self, reader: NfcDiskReader) -> Extent | None:
        """The next extent, None after the last. Raises what the reader raises."""
        if reader is not self._reader:
            self._reader = reader
            self._extents = reader.read(self._asked(tuple(self._owed)))
        extent = next(self._extents, None)
        if extent is not None:
            self._owed.popleft()
        return extent

    def _asked(self, again: tuple[Area, ...]) -> Iterator[Area]:
        yield from again
        while True:
            try:
                area = next(self._fresh)
            except StopIteration:
                return
            except Exception as error:
                raise AreasFailed(error) from error
            self._owed.append(area)
            yield area
