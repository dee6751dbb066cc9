"""The watch over a reader: what it gives is checked, and every wait for it ends."""

import threading
from collections.abc import Iterable, Iterator

import pytest

from agent.areas import EXTENT_BYTES, Area, split_extents, whole_disk
from agent.cancellation import Cancellation
from agent.disk_reads import DiskReads
from agent.errors import HubUnreachable, JobCancelled, ReadMismatch, ReadStalled
from agent.transports.disk_reader import Extent
from tests.unit.agent.drawn_disks import MemoryReader, drawn

pytestmark = pytest.mark.hostile

DEADLINE_S = 20.0


def areas_of(reader: MemoryReader) -> list[Area]:
    return list(split_extents(whole_disk(reader.capacity_bytes)))


def test_extents_come_in_order_and_the_reader_is_closed_at_the_end() -> None:
    content = drawn("abcd" * 40)
    reader = MemoryReader(content)
    with DiskReads(reader, 0) as reads:
        assert b"".join(extent.data for extent in reads.read(areas_of(reader))) == content
        assert not reader.closed
    assert reader.closed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "got the end"),
        (Extent(EXTENT_BYTES, bytes(512)), "got 512 bytes"),
        (Extent(0, bytes(EXTENT_BYTES)), "bytes at 0"),
    ],
    ids=["nothing", "a shorter extent", "another extent"],
)
def test_answer_to_something_else_is_refused(given: Extent | None, said: str) -> None:
    reader = MemoryReader(drawn("abcd" * 40), change={1: given})
    with DiskReads(reader, 0) as reads, pytest.raises(ReadMismatch, match=said):
        list(reads.read(areas_of(reader)))
    assert reader.faults_fired == 1


def test_more_than_was_asked_for_is_refused() -> None:
    class Generous(MemoryReader):
        def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
            yield from super().read(areas)
            yield Extent(0, b"more")

    reader = Generous(drawn("ab"))
    with DiskReads(reader, 0) as reads, pytest.raises(ReadMismatch, match="more than"):
        list(reads.read(areas_of(reader)))


@pytest.mark.parametrize("at_area", [0, 3, 4])
def test_error_of_the_areas_is_not_taken_for_the_reader_s(at_area: int) -> None:
    class Stubborn(MemoryReader):
        """Takes any retryable error for its host's and goes on, as one that reconnects does."""

        def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
            source = iter(areas)
            while True:
                try:
                    area = next(source)
                except StopIteration:
                    return
                except HubUnreachable:
                    pytest.fail("the reader saw an error that is none of its own")
                yield Extent(area.start, self._content[area.start : area.end])

    reader = Stubborn(drawn("abcdefgh" * 20))

    def failing() -> Iterator[Area]:
        for number, area in enumerate(areas_of(reader)):
            if number == at_area:
                raise HubUnreachable("gone")
            yield area
        raise HubUnreachable("gone at the end")

    with DiskReads(reader, 0) as reads, pytest.raises(HubUnreachable):
        list(reads.read(failing()))


def test_reader_that_gives_nothing_is_closed() -> None:
    reader = MemoryReader(drawn("abcd" * 40), block_at=1)
    with DiskReads(reader, 3, read_s=0.1) as reads, pytest.raises(ReadStalled, match="disk 3"):
        list(reads.read(areas_of(reader)))
    assert reader.faults_fired == 1


def test_allocation_query_that_is_not_answered_ends_too() -> None:
    closed = threading.Event()

    class Silent(MemoryReader):
        def allocated_areas(self) -> list[Area]:
            assert closed.wait(DEADLINE_S)
            raise ConnectionError

        def close(self) -> None:
            closed.set()

    with DiskReads(Silent(b""), 0, read_s=0.1) as reads, pytest.raises(ReadStalled):
        reads.allocated_areas()


def test_cancellation_ends_a_read_that_waits() -> None:
    reader = MemoryReader(drawn("abcd" * 40), block_at=1)
    cancellation = Cancellation()

    def cancel() -> None:
        assert reader.blocked.wait(DEADLINE_S)
        cancellation.cancel(JobCancelled("enough"))

    threading.Thread(target=cancel).start()
    with (
        DiskReads(reader, 0, cancellation=cancellation) as reads,
        pytest.raises(JobCancelled, match="enough"),
    ):
        list(reads.read(areas_of(reader)))
    assert reader.closed
