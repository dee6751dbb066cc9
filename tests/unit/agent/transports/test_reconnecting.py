"""Disks read to the end although connections fail; what ends it, and with which error."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pytest
from tenacity import RetryCallState, Retrying

from agent.areas import Area
from agent.cancellation import Cancellation
from agent.errors import HubUnreachable
from agent.transports.errors import (
    AllocationUnknown,
    NfcCertificateMismatch,
    NfcConnectionLost,
    NfcOpenRefused,
    NfcReadFailed,
    NfcRefused,
    NfcRunningDisk,
    NfcTicketRefused,
    NfcWrongSize,
    ReaderClosed,
)
from agent.transports.nfc.aio import Compression
from agent.transports.nfc.connections import NfcConnections
from agent.transports.nfc.patience import ReconnectPatience
from agent.transports.nfc.reader import NfcDiskReader
from agent.transports.nfc.reads import ReadAhead
from agent.transports.nfc.reconnecting import SAME_PLACE, ReconnectingReader
from agent.transports.nfc.ticket import NfcTicket
from agent.vsphere.models import JobSnapshot
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.agent.transports.read_disks import CAPACITY, K, content, pieces, take, whole

pytestmark = pytest.mark.hostile

DEADLINE_S = 20.0
ATTEMPTS = 4
EAGER = ReconnectPatience(
    attempts=ATTEMPTS, first_wait_s=0.01, longest_wait_s=0.02, open_wait_s=0.01
)
ENDLESS = ReconnectPatience(attempts=1000, first_wait_s=3600, longest_wait_s=3600)


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    return simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=CAPACITY, content=content(1))])


@pytest.fixture(params=["nbdssl", "nbd"])
def vsphere(request: pytest.FixtureRequest, settings: VsphereSettings) -> Iterator[VsphereSite]:
    with VsphereSite.connect(replace(settings, transport=request.param, reconnect=EAGER)) as site:
        yield site


@pytest.fixture
def plain(settings: VsphereSettings) -> VsphereSettings:
    """Settings of a site where every byte of the disk travels."""
    return replace(settings, transport="nbd", reconnect=EAGER)


def opened(
    vsphere: VsphereSite, snapshot: JobSnapshot, job: Cancellation | None = None
) -> ReconnectingReader:
    reader = vsphere.open_disk(snapshot, snapshot.disks[0], job or Cancellation())
    assert isinstance(reader, ReconnectingReader)
    return reader


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


def test_place_that_the_host_cannot_read_ends_it_after_fresh_connections(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    bad = simulated.faults.set("nfc-error-reply", vm="pg", offset=20 * K, code=5)
    with opened(vsphere, snapshot) as reader:
        with pytest.raises(NfcReadFailed) as caught:
            whole(reader, longest=K)
        with pytest.raises(ReaderClosed):
            whole(reader)
    assert bad.fired == 1 + SAME_PLACE
    error = caught.value
    assert (error.offset_bytes, error.host, error.path) == (
        20 * K,
        "127.0.0.2",
        snapshot.disks[0].file_name,
    )
    assert "0x5" in str(error)


@pytest.mark.parametrize(
    ("fault", "options", "error"),
    [
        ("nfc-ticket-refused", {}, NfcRefused),
        ("nfc-ticket-expired", {}, NfcRefused),
        ("nfc-cut", {"at_byte": 700}, NfcConnectionLost),
        ("nfc-connection-limit", {"limit": 0}, NfcConnectionLost),
    ],
)
def test_failure_that_stays_is_told_with_host_and_disk_when_patience_ends(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    fault: str,
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    snapshot = take(vsphere, vm)
    armed = simulated.faults.set(fault, **options)
    with pytest.raises(error) as caught:
        opened(vsphere, snapshot)
    assert armed.fired == ATTEMPTS
    assert "127.0.0.2" in str(caught.value)
    assert snapshot.disks[0].file_name in str(caught.value)
    assert vsphere._budget._hosts == {}


def test_patience_in_seconds_ends_it_too(
    simulated: SimulatedSite, plain: VsphereSettings, vm: SimulatedVm
) -> None:
    hurried = ReconnectPatience(attempts=1000, total_s=0.0)
    with VsphereSite.connect(replace(plain, reconnect=hurried)) as vsphere:
        snapshot = take(vsphere, vm)
        cut = simulated.faults.set("nfc-cut", at_byte=0)
        with pytest.raises(NfcConnectionLost):
            opened(vsphere, snapshot)
        assert cut.fired == 1


def test_running_vms_current_link_is_refused_at_once(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    vm.power("poweredOn")
    (info,) = [one for one in vsphere.virtual_machines() if one.moref == vm.moid]
    running = replace(snapshot.disks[0], file_name=info.disks[0].file_name)
    tickets = simulated.faults.calls("NfcGetVmFiles")
    with pytest.raises(NfcRunningDisk, match="snapshot froze") as caught:
        vsphere.open_disk(snapshot, running, Cancellation())
    assert caught.value.host == "127.0.0.2"
    assert simulated.faults.calls("NfcGetVmFiles") == tickets + 1


def test_changed_certificate_of_the_nfc_service_ends_it_at_once(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    reader = opened(vsphere, snapshot)
    areas = pieces([Area(0, CAPACITY)], K)
    tickets = simulated.faults.calls("NfcGetVmFiles")
    seen = simulated.change_certificate("nfc")  # drops the connections, too
    with pytest.raises(NfcCertificateMismatch) as caught:
        list(reader.read(areas))
    assert caught.value.seen == seen.replace(":", "").lower()
    assert simulated.faults.calls("NfcGetVmFiles") == tickets + 1
    assert vsphere._budget._hosts == {}


def test_file_that_is_held_for_a_moment_is_opened_a_little_later(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    times = EAGER.first_opens - 1
    held = simulated.faults.set("nfc-error-reply", vm="pg", on="open", times=times)
    with opened(vsphere, snapshot) as reader:
        assert whole(reader, longest=5 * K) == content(1)
    assert held.fired == times
    assert simulated.faults.calls("NfcGetVmFiles") == times + 1


def test_file_that_stays_held_is_told_after_a_few_tries(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    held = simulated.faults.set("nfc-error-reply", vm="pg", on="open", code=7)
    with pytest.raises(NfcOpenRefused, match="0x7") as caught:
        opened(vsphere, snapshot)
    assert not isinstance(caught.value, NfcRunningDisk)
    assert held.fired == EAGER.first_opens < ATTEMPTS
    assert vsphere._budget._hosts == {}


def test_refusals_before_the_first_open_do_not_count_with_those_after_it(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    before = simulated.faults.set("nfc-error-reply", vm="pg", on="open", times=2)
    with opened(vsphere, snapshot) as reader:
        simulated.faults.cut_nfc(on_read=3)
        after = simulated.faults.set("nfc-error-reply", vm="pg", on="open", times=2)
        assert whole(reader, longest=5 * K) == content(1)
    assert (before.fired, after.fired) == (2, 2)
    simulated.faults.assert_all_fired()


def test_file_that_is_held_is_waited_for_although_nobody_tells_what_the_vm_runs_on(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take(vsphere, vm)
    asked = []
    ask = NfcConnections.connect

    def refuse_the_question(self: NfcConnections, stop: Cancellation) -> NfcDiskReader:
        try:
            return ask(self, stop)
        finally:
            asked.append(simulated.faults.clear("method-fail"))

    ticket = vsphere._tickets.for_disk

    def then_silent(moref: str, key: int) -> NfcTicket:
        given = ticket(moref, key)
        simulated.faults.set("method-fail", method="RetrievePropertiesEx")
        return given

    monkeypatch.setattr(NfcConnections, "connect", refuse_the_question)
    monkeypatch.setattr(vsphere._tickets, "for_disk", then_silent)
    held = simulated.faults.set("nfc-error-reply", vm="pg", on="open", times=1)
    with opened(vsphere, snapshot):
        assert held.fired == 1
    assert [[one.fired for one in each] for each in asked] == [[1], [0]]


def test_file_of_another_size_is_not_opened_twice(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    wrong = replace(snapshot.disks[0], capacity_bytes=CAPACITY + 512)
    with pytest.raises(NfcWrongSize):
        vsphere.open_disk(snapshot, wrong, Cancellation())
    assert simulated.faults.calls("NfcGetVmFiles") == 1


@pytest.mark.parametrize(("on", "more_s"), [("open", 5.0), ("read", 0.0)])
def test_refused_open_is_given_more_time_than_other_failures(on: str, more_s: float) -> None:
    refused = (
        NfcOpenRefused("esx", "[ds] a", "busy")
        if on == "open"
        else NfcRefused("esx", 902, "[ds] a", "log in", "busy")
    )
    patience = ReconnectPatience(first_wait_s=0.0, open_wait_s=5.0)
    state = RetryCallState(Retrying(), None, (), {})
    state.set_exception((type(refused), refused, None))
    assert patience.wait_s(state) == more_s


def test_file_that_was_open_before_is_opened_again_although_refused_once(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    with opened(vsphere, snapshot) as reader:
        simulated.faults.cut_nfc(on_read=3)
        simulated.faults.set("nfc-error-reply", vm="pg", on="open", times=1)
        assert whole(reader, longest=5 * K) == content(1)
    simulated.faults.assert_all_fired()


def test_fault_of_vsphere_is_waited_out_for_a_disk_half_read_and_told_for_another(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    with opened(vsphere, snapshot) as reader:
        simulated.faults.cut_nfc(on_read=3)
        simulated.faults.fail_method("NfcGetVmFiles")
        assert whole(reader, longest=5 * K) == content(1)
    simulated.faults.fail_method("NfcGetVmFiles")
    with pytest.raises(NfcTicketRefused, match="SystemError"):
        opened(vsphere, snapshot)
    simulated.faults.assert_all_fired()


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


def test_host_out_of_connections_is_waited_for(
    simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    patient = ReconnectPatience(attempts=1000, first_wait_s=0.01, longest_wait_s=0.02)
    with (
        VsphereSite.connect(replace(settings, reconnect=patient)) as vsphere,
        ThreadPoolExecutor(1) as pool,
    ):
        snapshot = take(vsphere, vm)
        limit = simulated.faults.set("nfc-connection-limit", limit=1)
        with opened(vsphere, snapshot):
            second = pool.submit(opened, vsphere, snapshot)
            assert limit.wait_fired(DEADLINE_S, times=3)
        with second.result(DEADLINE_S) as reader:
            assert whole(reader) == content(1)


def test_disks_share_the_budget_of_their_host(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    vms = [
        simulated.add_vm(
            f"vm-{n}", disks=[DiskSpec(capacity_bytes=CAPACITY, content=content(n))] * 2
        )
        for n in range(3)
    ]
    small = replace(settings, nfc_connections_per_host=2, nfc_buffers_mib_per_host=6)
    with VsphereSite.connect(small) as vsphere, ThreadPoolExecutor(6) as pool:

        def read(snapshot: JobSnapshot, index: int) -> bytes:
            with vsphere.open_disk(snapshot, snapshot.disks[index], Cancellation()) as reader:
                return whole(reader, longest=5 * K)

        snapshots = [take(vsphere, vm) for vm in vms]
        reads = [pool.submit(read, one, index) for one in snapshots for index in (0, 1)]
        wanted = [content(n) for n in range(3) for _ in (0, 1)]
        assert [each.result(DEADLINE_S) for each in reads] == wanted
        assert vsphere._budget._hosts == {}
    assert simulated.most_nfc_sessions == 2


def test_disk_that_moved_is_read_within_the_other_hosts_budget(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take(vsphere, vm)
    with opened(vsphere, snapshot) as reader:
        (before,) = vsphere._budget._hosts
        monkeypatch.setattr(vsphere._tickets, "host_of", lambda _: "host-4711")
        simulated.faults.cut_nfc(on_read=2)
        assert whole(reader, longest=5 * K) == content(1)
        assert before != "host-4711"
        assert list(vsphere._budget._hosts) == ["host-4711"]
    assert vsphere._budget._hosts == {}


def test_wait_for_the_other_hosts_budget_is_no_time_for_the_watch_over_the_reads(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()
    wait = vsphere._budget._wait_for_change

    def told(*arguments: Any) -> None:
        waiting.set()
        wait(*arguments)

    monkeypatch.setattr(vsphere._budget, "_wait_for_change", told)
    snapshot = take(vsphere, vm)
    with opened(vsphere, snapshot) as reader, ThreadPoolExecutor(1) as pool, ExitStack() as others:
        for _ in range(vsphere._budget._connections):
            others.callback(vsphere._budget.lease("host-4711", Cancellation()).release)
        monkeypatch.setattr(vsphere._tickets, "host_of", lambda _: "host-4711")
        simulated.faults.cut_nfc(on_read=2)
        reading = pool.submit(whole, reader, 5 * K)
        assert waiting.wait(DEADLINE_S)
        stands_at_s = reader.clock_s()
        assert reader.clock_s() == stands_at_s
        others.close()
        assert reading.result(DEADLINE_S) == content(1)
        assert reader.clock_s() > stands_at_s


class Enough(Exception):
    """Why a test's job ends."""


def test_cancelled_job_ends_the_wait_before_the_next_connection(
    simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    job = Cancellation()
    with (
        VsphereSite.connect(replace(settings, reconnect=ENDLESS)) as vsphere,
        ThreadPoolExecutor(1) as pool,
    ):
        snapshot = take(vsphere, vm)
        refused = simulated.faults.set("nfc-ticket-refused")
        opening = pool.submit(opened, vsphere, snapshot, job)
        assert refused.wait_fired(DEADLINE_S)
        job.cancel(Enough())
        with pytest.raises(Enough):
            opening.result(DEADLINE_S)
        assert vsphere._budget._hosts == {}


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_read_that_stalls_ends_with_its_job_or_its_reader(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, how: str
) -> None:
    job = Cancellation()
    snapshot = take(vsphere, vm)
    reader = opened(vsphere, snapshot, job)
    stall = simulated.faults.set("nfc-stall", skip=2)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(whole, reader, K)
        assert stall.wait_fired(DEADLINE_S)
        if how == "cancelled":
            job.cancel(Enough())
        else:
            reader.close()
        with pytest.raises(Enough if how == "cancelled" else ReaderClosed):
            reading.result(DEADLINE_S)
    # The thread that was reading gave everything back.
    assert vsphere._budget._hosts == {}
    assert job._callbacks == {}
    reader.close()


def test_wait_for_the_budget_ends_when_its_job_is_cancelled(
    settings: VsphereSettings, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Cancellation()
    waiting = threading.Event()
    with (
        VsphereSite.connect(replace(settings, nfc_connections_per_host=1)) as vsphere,
        ThreadPoolExecutor(1) as pool,
    ):
        wait = vsphere._budget._wait_for_change

        def told(*arguments: Any) -> None:
            waiting.set()
            wait(*arguments)

        monkeypatch.setattr(vsphere._budget, "_wait_for_change", told)
        snapshot = take(vsphere, vm)
        with opened(vsphere, snapshot) as first:
            second = pool.submit(opened, vsphere, snapshot, job)
            assert waiting.wait(DEADLINE_S)
            job.cancel(Enough())
            with pytest.raises(Enough):
                second.result(DEADLINE_S)
            assert whole(first) == content(1)


def test_leaving_a_read_early_closes_the_reader(vsphere: VsphereSite, vm: SimulatedVm) -> None:
    snapshot = take(vsphere, vm)
    reader = opened(vsphere, snapshot)
    extents = reader.read(pieces([Area(0, CAPACITY)], K))
    with closing(extents):  # type: ignore[type-var]
        assert next(extents).data == content(1)[:K]
    assert vsphere._budget._hosts == {}
    with pytest.raises(ReaderClosed):
        reader.allocated_areas()


@pytest.mark.parametrize("error", [Enough(), HubUnreachable("gone")], ids=["any", "retryable"])
def test_error_of_whoever_names_the_areas_is_not_a_failure_of_the_connection(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, error: Exception
) -> None:
    def areas() -> Iterator[Area]:
        yield Area(0, K)
        raise error

    snapshot = take(vsphere, vm)
    tickets = simulated.faults.calls("NfcGetVmFiles")
    with opened(vsphere, snapshot) as reader, pytest.raises(type(error)) as caught:
        list(reader.read(areas()))
    assert caught.value is error
    assert simulated.faults.calls("NfcGetVmFiles") == tickets + 1
