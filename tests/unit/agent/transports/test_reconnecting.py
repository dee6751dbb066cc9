"""Disks read to the end although connections fail."""

from contextlib import closing
from dataclasses import replace

import pytest

from agent.areas import Area
from agent.transports.errors import (
    AllocationUnknown,
    ReaderClosed,
)
from agent.transports.nfc.aio import Compression
from agent.transports.nfc.reader import NfcDiskReader
from agent.transports.nfc.reads import ReadAhead
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.agent.transports.read_disks import (
    ATTEMPTS,
    CAPACITY,
    EAGER,
    K,
    content,
    opened,
    pieces,
    take,
    whole,
)

pytestmark = pytest.mark.hostile


def test_cut_at_any_byte_is_read_on(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    # The greeting, authd's lines, NFC's messages (264 bytes each), AIO replies, data.
    for at_byte in [*range(0, 1700, 83), 20_000, 100_001]:
        cut = simulated.faults.set("nfc-cut", at_byte=at_byte, times=1)
        with opened(vsphere, snapshot) as reader:
            assert whole(reader, longest=5 * K) == content(1)
        assert cut.fired == 1


def test_cuts_are_counted_anew_after_each_extent(
    simulated: SimulatedSite, plain: VsphereSettings, vm: SimulatedVm
) -> None:
    with VsphereSite.connect(plain) as vsphere:
        snapshot = take(vsphere, vm)
        cut = simulated.faults.set("nfc-cut", vm="pg", at_byte=CAPACITY // 16)
        with opened(vsphere, snapshot) as reader:
            assert whole(reader, longest=K) == content(1)
        assert cut.fired > 2 * ATTEMPTS


def test_only_what_was_not_delivered_is_asked_for_again(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Area] = []
    ask = ReadAhead._ask

    def noting(self: ReadAhead, area: Area) -> None:
        asked.append(area)
        ask(self, area)

    monkeypatch.setattr(ReadAhead, "_ask", noting)
    snapshot = take(vsphere, vm)
    areas = list(pieces([Area(0, CAPACITY)], 10 * K))
    with opened(vsphere, snapshot) as reader:
        simulated.faults.cut_nfc(on_read=7)
        extents = reader.read(areas)
        assert [(one.offset, len(one.data)) for one in extents] == [
            (area.start, area.length) for area in areas
        ]
    again = len(asked) - len(areas)
    assert 1 <= again <= 4
    # One connection's areas up to the cut; the other's from the first that was not delivered.
    before = next(n for n, area in enumerate(asked) if area in asked[:n])
    assert before >= 7
    assert asked == areas[:before] + areas[before - again :]
    simulated.faults.assert_all_fired()


BAD_FRAGMENTS = [
    ("length", 512),
    ("length", -512),
    ("extra_bytes", 4096),
    ("extra_bytes", -16),
    ("within", 512),
    ("total", -512),
    ("offset", 65536),
    ("frame_bytes", 1 << 20),
    ("operation", 3),
]


def test_corrupt_reply_is_not_used_and_asked_for_anew(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    with opened(vsphere, snapshot) as reader:
        for field, by in BAD_FRAGMENTS:
            bad = simulated.faults.set("nfc-bad-fragment", vm="pg", times=1, field=field, by=by)
            assert whole(reader, longest=5 * K) == content(1)
            assert bad.fired == 1


@pytest.mark.parametrize("fault", ["nfc-error-reply", "nfc-ticket-refused", "nfc-ticket-expired"])
def test_refusal_that_passes_is_tried_again_with_a_new_ticket(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, fault: str
) -> None:
    snapshot = take(vsphere, vm)
    simulated.faults.set(fault, vm="pg", times=1)
    with opened(vsphere, snapshot) as reader:
        assert whole(reader, longest=5 * K) == content(1)
    simulated.faults.assert_all_fired()


def test_ticket_that_was_used_before_is_replaced_by_a_new_one(
    vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take(vsphere, vm)
    new = vsphere._tickets.for_disk
    used = new(vm.moid, snapshot.disks[0].key)
    with NfcDiskReader.open(
        used, snapshot.disks[0].file_name, transport=vsphere._session.settings.transport
    ):
        pass
    given = [used]
    monkeypatch.setattr(
        vsphere._tickets,
        "for_disk",
        lambda moref, key: given.pop() if given else new(moref, key),
    )
    with opened(vsphere, snapshot) as reader:
        assert whole(reader) == content(1)
    assert given == []


def test_row_28_stalled_read_is_cut_and_repeated_on_a_new_connection(
    simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    """field-failures.md 28: reads hung for days."""
    hasty = replace(settings, timeout_s=0.7, reconnect=EAGER)
    for transport in ("nbd", "nbdssl"):
        with VsphereSite.connect(replace(hasty, transport=transport)) as vsphere:
            snapshot = take(vsphere, vm)
            with opened(vsphere, snapshot) as reader:
                stall = simulated.faults.set("nfc-stall", vm="pg", skip=5, times=1)
                assert whole(reader, longest=5 * K) == content(1)
            assert stall.fired == 1
            vsphere.remove_snapshot(snapshot)


def test_row_28_session_that_expires_in_mid_read_is_renewed_for_the_next_ticket(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    """field-failures.md 28: session expired after 30 minutes in mid-read."""
    snapshot = take(vsphere, vm)
    with opened(vsphere, snapshot) as reader:
        simulated.faults.set("session-expiry", on="read", times=1, skip=1)
        simulated.faults.cut_nfc(on_read=3)
        assert whole(reader, longest=5 * K) == content(1)
    simulated.faults.assert_all_fired()
    vsphere.remove_snapshot(snapshot)
    assert vm.snapshots == []


def test_allocation_is_asked_for_again_after_a_cut(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    with opened(vsphere, snapshot) as reader:
        wanted = reader.allocated_areas()
        simulated.cut_nfc_connections()
        assert reader.allocated_areas() == wanted


def test_holes_are_skipped_on_later_connections_too_when_allocation_is_unknown(
    simulated: SimulatedSite, plain: VsphereSettings, vm: SimulatedVm
) -> None:
    simulated.faults.set("nfc-error-reply", on="allocated")
    with VsphereSite.connect(plain) as vsphere:
        snapshot = take(vsphere, vm)
        with opened(vsphere, snapshot) as reader:
            with pytest.raises(AllocationUnknown):
                reader.allocated_areas()
            simulated.faults.cut_nfc(on_read=2)
            assert whole(reader, longest=5 * K) == content(1)
            assert reader._reader is not None
            assert reader._reader.compression is Compression.SKIPZ
    simulated.faults.assert_all_fired()


def test_leaving_a_read_early_closes_the_reader(vsphere: VsphereSite, vm: SimulatedVm) -> None:
    snapshot = take(vsphere, vm)
    reader = opened(vsphere, snapshot)
    extents = reader.read(pieces([Area(0, CAPACITY)], K))
    with closing(extents):  # type: ignore[type-var]
        assert next(extents).data == content(1)[:K]
    assert vsphere._budget._hosts == {}
    with pytest.raises(ReaderClosed):
        reader.allocated_areas()
