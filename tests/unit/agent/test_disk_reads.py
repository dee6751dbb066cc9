"""The watch over a reader: what it gives is checked, and every wait for it ends."""

import threading
from collections.abc import Iterable, Iterator

import pytest

from agent.areas import EXTENT_BYTES, Area, split_extents, whole_disk
from agent.cancellation import Cancellation
from agent.disk_reads import DiskReads
from agent.errors import HubUnreachable, JobCancelled, ReadMismatch, ReadStalled
from agent.transports.disk_reader import Extent
from agent.transports.nfc.turn_clock import TurnClock
from tests.unit.agent.drawn_disks import MemoryReader, drawn

pytestmark = pytest.mark.hostile

DEADLINE_S = 20.0
DISK = "Hard disk 3 ([datastore1] pg/pg_2-000001.vmdk)"


def areas_of(reader: MemoryReader) -> list[Area]:
    return list(split_extents(whole_disk(reader.capacity_bytes)))


def test_extents_come_in_order_and_the_reader_is_closed_at_the_end() -> None:
    content = drawn("abcd" * 40)
    reader = MemoryReader(content)
    with DiskReads(reader, DISK) as reads:
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
    with DiskReads(reader, DISK) as reads, pytest.raises(ReadMismatch, match=said):
        list(reads.read(areas_of(reader)))
    assert reader.faults_fired == 1


def test_more_than_was_asked_for_is_refused() -> None:
    class Generous(MemoryReader):
        def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
            yield from super().read(areas)
            yield Extent(0, b"more")

    reader = Generous(drawn("ab"))
    with DiskReads(reader, DISK) as reads, pytest.raises(ReadMismatch, match="more than"):
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

    with DiskReads(reader, DISK) as reads, pytest.raises(HubUnreachable):
        list(reads.read(failing()))


def test_reader_that_gives_nothing_is_closed() -> None:
    reader = MemoryReader(drawn("abcd" * 40), block_at=1)
    with DiskReads(reader, DISK, read_s=0.1) as reads, pytest.raises(ReadStalled) as caught:
        list(reads.read(areas_of(reader)))
    assert str(caught.value) == f"reading {DISK} gave nothing for 0.1 s"
    assert reader.faults_fired == 1


class Queueing(MemoryReader):
    """Waits for its turn at a host before an area, until the watch has looked often enough."""

    LOOKS = 4

    def __init__(self, content: bytes, *, wait_at: int, block_at: int | None = None) -> None:
        super().__init__(content, block_at=block_at)
        self._wait_at = wait_at
        self._clock = TurnClock()
        self._looks = threading.Semaphore(0)
        self.waited = False

    def clock_s(self) -> float:
        self._looks.release()
        return self._clock.now()

    def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
        for number, extent in enumerate(super().read(areas)):
            if number == self._wait_at:
                with self._clock.waiting():
                    while self._looks.acquire(blocking=False):
                        pass
                    for _ in range(self.LOOKS):  # each is one read_s after the other
                        assert self._looks.acquire(timeout=DEADLINE_S)
                self.waited = True
            yield extent


def test_wait_for_a_turn_at_the_host_is_no_stall() -> None:
    content = drawn("abcd" * 40)
    reader = Queueing(content, wait_at=1)
    with DiskReads(reader, DISK, read_s=0.1) as reads:
        assert b"".join(extent.data for extent in reads.read(areas_of(reader))) == content
    assert reader.waited


def test_reader_that_gives_nothing_after_its_turn_came_is_closed() -> None:
    reader = Queueing(drawn("abcd" * 40), wait_at=1, block_at=2)
    with DiskReads(reader, DISK, read_s=0.1) as reads, pytest.raises(ReadStalled):
        list(reads.read(areas_of(reader)))
    assert reader.waited
    assert reader.faults_fired == 1


def test_allocation_query_that_is_not_answered_ends_too() -> None:
    closed = threading.Event()

    class Silent(MemoryReader):
        def allocated_areas(self) -> list[Area]:
            assert closed.wait(DEADLINE_S)
            raise ConnectionError

        def close(self) -> None:
            closed.set()

    with DiskReads(Silent(b""), DISK, read_s=0.1) as reads, pytest.raises(ReadStalled):
        reads.allocated_areas()


def test_cancellation_ends_a_read_that_waits() -> None:
    reader = MemoryReader(drawn("abcd" * 40), block_at=1)
    cancellation = Cancellation()

    def cancel() -> None:
        assert reader.blocked.wait(DEADLINE_S)
        cancellation.cancel(JobCancelled("enough"))

    threading.Thread(target=cancel).start()
    with (
        DiskReads(reader, DISK, cancellation=cancellation) as reads,
        pytest.raises(JobCancelled, match="enough"),
    ):
        list(reads.read(areas_of(reader)))
    assert reader.closed
